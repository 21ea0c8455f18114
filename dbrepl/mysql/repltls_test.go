package mysql

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// authority signs certificates.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // of its own certificate
}

func newAuthority(t testing.TB, dir, name string) *authority {
	t.Helper()
	a := &authority{dir: dir}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	a.file, _, a.key = a.issue(t, name, a.cert)
	return a
}

// issue signs a certificate, by itself if it is the authority's own.
func (a *authority) issue(t testing.TB, name string, c *x509.Certificate) (certFile, keyFile string, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(suffix, kind string, data []byte) string {
		path := filepath.Join(a.dir, name+suffix)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write(".pem", "CERTIFICATE", der), write(".key", "EC PRIVATE KEY", secret), key
}

func (a *authority) client() *tls.Config {
	roots := x509.NewCertPool()
	pemData, err := os.ReadFile(a.file)
	if err == nil {
		roots.AppendCertsFromPEM(pemData)
	}
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

func TestReplicaOverTLS(t *testing.T) { everywhere(t, replicaOverTLS) }

// replicaOverTLS has accounts that may only come encrypted, and an active whose
// certificate is for its address.
func replicaOverTLS(t *testing.T, p product) {
	dir := t.TempDir()
	known, other := newAuthority(t, dir, "known"), newAuthority(t, dir, "other")
	cert, key, _ := known.issue(t, "active", &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	active := p.start(t, "--ssl-ca="+known.file, "--ssl-cert="+cert, "--ssl-key="+key)
	_, standby := startReplicas(t, p)
	l := newLab(t, active, standby)
	active.Exec(t, "", "CREATE USER safe@'127.0.0.1' IDENTIFIED BY "+text(replPassword)+" REQUIRE SSL; GRANT ALL ON *.* TO safe@'127.0.0.1'; "+
		"CREATE USER repl@'127.0.0.1' IDENTIFIED BY "+text(replPassword)+" REQUIRE SSL; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'")
	l.onActive(t, counterTable)
	with := func(adjust ...func(*ReplicaOptions)) *Replica {
		return l.replica(t, append([]func(*ReplicaOptions){func(o *ReplicaOptions) {
			o.Active.User, o.Active.Password, o.Active.TLS = "safe", replPassword, known.client()
			o.Source.TLS, o.Source.CA = true, known.file
			o.Quiet, o.Connect = 3*time.Second, 3*time.Second
		}}, adjust...)...)
	}
	r := with()
	for run := range 3 {
		if c := l.replicate(t, r); isSeed(t, c) != (run == 0) {
			t.Errorf("run %d copied the whole database: %v", run, isSeed(t, c))
		}
		l.manyTransactions(t, 2)
	}
	if got := l.counter(t); got != wantCounter(4) {
		t.Errorf("the standby has %s", got)
	}
	for _, f := range l.mustFindings(t, r) {
		if strings.HasPrefix(f, "true") {
			t.Errorf("check finds %s", f)
		}
	}
	for name, c := range map[string]struct {
		adjust func(*ReplicaOptions)
		says   string
	}{
		"another authority": {func(o *ReplicaOptions) { o.Source.CA = other.file }, "(error 2026)"},
		"another name": {func(o *ReplicaOptions) {
			o.Source.Address = strings.Replace(o.Source.Address, "127.0.0.1", "localhost", 1)
		}, "(error 2026)"},
		"not encrypted":            {func(o *ReplicaOptions) { o.Source.TLS, o.Source.CA = false, "" }, "(error 1045)"},
		"drsync's own: authority":  {func(o *ReplicaOptions) { o.Active.TLS = other.client() }, "unknown authority"},
		"drsync's own: not at all": {func(o *ReplicaOptions) { o.Active.TLS = nil }, "Access denied"},
	} {
		_, err := with(c.adjust).Capture(t.Context(), dbrepl.CaptureOptions{})
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if ours := c.says == "unknown authority"; ours != strings.Contains(hint.Of(err), "certificate of the active") {
			t.Errorf("%s: the hint is %q", name, hint.Of(err))
		}
		if got := l.counter(t); got != wantCounter(4) {
			t.Errorf("%s: the standby has %s", name, got)
		}
	}
	l.replicate(t, r)
	if got := l.counter(t); got != wantCounter(6) {
		t.Errorf("the standby has %s", got)
	}
}
