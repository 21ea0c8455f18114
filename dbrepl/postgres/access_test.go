package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// connectionErrorsAreOneClearLine covers what an operator gets wrong first.
func connectionErrorsAreOneClearLine(t *testing.T, l *lab) {
	l.active.Exec(t, "postgres", "CREATE ROLE \"d "+l.name+"\" LOGIN SUPERUSER PASSWORD 'right:\\pass'''")
	l.onActive(t, "CREATE TABLE t (n int)")
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer dead.Close() // accepts and says nothing
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed.Close()
	for _, test := range []struct {
		name   string
		adjust func(o *Options)
		want   string
	}{
		{"password", func(o *Options) { o.Active.User, o.Active.Password = "d "+l.name, "wrong secret" }, "password authentication failed"},
		{"no such user", func(o *Options) { o.Standby.User = "nobody here" }, `role "nobody here" does not exist`},
		{"no such database", func(o *Options) { o.Name = "missing" }, `database "missing" does not exist`},
		{"nobody listens", func(o *Options) { o.Active.Address = closed.Addr().String() }, "connection refused"},
		{"no socket", func(o *Options) { o.Standby.Address = "/nonexistent" }, "no such file"},
		{"silence", func(o *Options) { o.Active.Address = dead.Addr().String(); o.Connect = 200 * time.Millisecond }, "no answer in time"},
		{"no encryption", func(o *Options) { o.Active.TLS = &tls.Config{ServerName: "127.0.0.1"} }, "refused TLS"},
	} {
		e := l.engine(t, test.adjust)
		_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || hint.Of(err) == "" || strings.Contains(err.Error()+hint.Of(err), "secret") {
			t.Errorf("%s: %v\nhint: %s", test.name, err, hint.Of(err))
		}
		if _, cerr := e.Check(t.Context()); cerr == nil {
			t.Errorf("%s: check says nothing", test.name)
		}
	}
	// The right one works over TCP, for the programs too.
	e := l.engine(t, func(o *Options) { o.Active.User, o.Active.Password = "d "+l.name, `right:\pass'` })
	l.sync(t, e)
	l.nothingLeft(t)
}

// whatCheckNames has accounts and servers that lack something.
func whatCheckNames(t *testing.T, l *lab) {
	l.onActive(t, "CREATE SCHEMA s; CREATE TABLE s.closed (n int); CREATE SEQUENCE s.seq; CREATE TABLE secret (n int); ALTER TABLE secret ENABLE ROW LEVEL SECURITY; SELECT lo_create(0)")
	weak := "weak_" + l.name
	for _, p := range []*testenv.PostgresServer{l.active, l.standby} {
		p.Exec(t, "postgres", "CREATE ROLE "+weak+" LOGIN PASSWORD 'x'")
	}
	owner := "owner_" + l.name
	l.active.Exec(t, "postgres", "CREATE ROLE "+owner)
	l.onActive(t, "CREATE TABLE owned (n int); ALTER TABLE owned OWNER TO "+owner)
	refused := func(e *Engine, texts ...string) {
		t.Helper()
		findings, err := e.Check(t.Context())
		must(t, err)
		_, err = e.Capture(t.Context(), dbrepl.CaptureOptions{})
		for _, text := range texts {
			wantFinding(t, findings, true, text)
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("capture: %v, want %q", err, text)
			}
		}
		l.nothingLeft(t)
	}
	asWeak := func(o *Options) { o.Active.User, o.Active.Password = weak, "x" }
	refused(l.engine(t, asWeak), "may not read sequence s.seq, table public.owned, table public.secret, table s.closed", "1 large objects", "has no role "+owner)
	l.active.Exec(t, "postgres", "GRANT pg_read_all_data TO "+weak)
	refused(l.engine(t, asWeak), "row security hides rows from it in public.secret")
	l.standby.Exec(t, "postgres", "CREATE ROLE "+owner)
	refused(l.engine(t, func(o *Options) { o.Standby.User = weak }), "may not create databases", "no member of")
	refused(l.engine(t, func(o *Options) { o.Standby.Address = l.active.Socket }), "the active server itself")
	for text, alter := range map[string]func(p *pair){
		"only servers of the same major version":  func(p *pair) { p.standby.Number = 160001 },
		"it is a replica itself":                  func(p *pair) { p.active.InRecovery = true },
		"into which nothing can be loaded":        func(p *pair) { p.standby.InRecovery = true },
		"PostgreSQL 12 and newer":                 func(p *pair) { p.active.Number, p.standby.Number = 90624, 90624 },
		"pg_dump and pg_restore of PostgreSQL 99": func(p *pair) { p.active.Number, p.standby.Number = 990001, 990001 },
	} {
		e := l.engine(t)
		e.alter = alter
		refused(e, text)
	}
	if _, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{}); err != nil {
		t.Error(err)
	}
}

// anOrdinaryAccountSuffices copies without a superuser on either side.
func anOrdinaryAccountSuffices(t *testing.T, l *lab) {
	reader, app, filler := "reader_"+l.name, "app_"+l.name, "filler_"+l.name
	l.active.Exec(t, "postgres", "CREATE ROLE "+reader+" LOGIN PASSWORD 'x' IN ROLE pg_read_all_data; CREATE ROLE "+app+"; ALTER DATABASE "+l.name+" OWNER TO "+app)
	l.standby.Exec(t, "postgres", "CREATE ROLE "+app+"; CREATE ROLE "+filler+" LOGIN CREATEDB IN ROLE "+app)
	l.onActive(t, "SET ROLE "+app+"; "+artifactory6)
	e := l.engine(t, func(o *Options) { o.Active.User, o.Active.Password, o.Standby.User = reader, "x", filler })
	for range 3 {
		l.sync(t, e)
	}
	l.sameDatabases(t)
	_, err := e.Promote(t.Context())
	must(t, err)
	if _, err := l.standby.Query(l.name, "INSERT INTO tasks VALUES ('a', 'b', 1)"); err != nil {
		t.Error(err)
	}
}

// throughATunnel reaches the active only by a function that dials.
func throughATunnel(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000)")
	var dialled atomic.Int64
	var broken atomic.Bool
	tunnel := func(o *Options) {
		o.Active.Address = "database.invalid:5999"
		o.Active.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialled.Add(1)
			if network != "tcp" || addr != "database.invalid:5999" {
				t.Errorf("dials %s %s", network, addr)
			}
			if broken.Load() {
				return nil, errors.New("the tunnel is gone")
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", l.active.Addr)
		}
	}
	e := l.engine(t, tunnel)
	l.sync(t, e)
	l.sameDatabases(t)
	if dialled.Load() < 4 {
		t.Errorf("dialled %d times", dialled.Load())
	}
	e.during = func(string) { broken.Store(true) }
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	l.nothingLeft(t)
}

// encryptedOnly starts a server that lets nobody in without encryption, with an
// account d. The pools are of its certificate, "server", and of another one.
func encryptedOnly(t *testing.T) (active *testenv.PostgresServer, pools map[string]*x509.CertPool) {
	t.Helper()
	testenv.Require(t, "openssl")
	active = testenv.PostgresFrom(t, nil, "ssl=on")
	pools = make(map[string]*x509.CertPool)
	for _, name := range []string{"server", "other"} {
		cmd := active.Command("openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=db.test", "-addext", "subjectAltName=DNS:db.test",
			"-keyout", filepath.Join(active.Datadir, name+".key"), "-out", filepath.Join(active.Datadir, name+".crt"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		pem, err := os.ReadFile(filepath.Join(active.Datadir, name+".crt"))
		must(t, err)
		pools[name] = x509.NewCertPool()
		pools[name].AppendCertsFromPEM(pem)
	}
	active.Start()
	must(t, os.WriteFile(filepath.Join(active.Datadir, "pg_hba.conf"), []byte("local all all trust\nhostssl all,replication all 127.0.0.1/32 scram-sha-256\n"), 0o600))
	active.Exec(t, "postgres", "SELECT pg_reload_conf()")
	active.Exec(t, "postgres", "CREATE ROLE d LOGIN SUPERUSER PASSWORD 'x'")
	return active, pools
}

// TestTLS encrypts the way to the active, and does not trust another certificate.
func TestTLS(t *testing.T) {
	t.Parallel()
	active, pools := encryptedOnly(t)
	l := newLab(t, active, testenv.Postgres(t))
	l.onActive(t, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	with := func(pool string) *Engine {
		return l.engine(t, func(o *Options) {
			o.Active.User, o.Active.Password = "d", "x"
			o.Active.TLS = &tls.Config{ServerName: "db.test", RootCAs: pools[pool], MinVersion: tls.VersionTLS12}
		})
	}
	l.sync(t, with("server"))
	l.sameDatabases(t)
	_, err := with("other").Capture(t.Context(), dbrepl.CaptureOptions{})
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "\n") || !strings.Contains(hint.Of(err), "certificate of the active") {
		t.Errorf("%v", err)
	}
	_, err = l.engine(t, func(o *Options) { o.Active.User, o.Active.Password = "d", "x" }).Capture(t.Context(), dbrepl.CaptureOptions{})
	if err == nil || !strings.Contains(err.Error(), "no encryption") {
		t.Errorf("in clear: %v", err)
	}
}

// TestReplicaOverTLS receives the first copy and the log from a server that sends
// neither without encryption.
func TestReplicaOverTLS(t *testing.T) {
	t.Parallel()
	active, pools := encryptedOnly(t)
	l := newReplicaLab(t, active)
	l.onActive(t, "CREATE TABLE t (n int)")
	with := func(pool string) *Replica {
		r := l.engine(t, func(o *ReplicaOptions) {
			o.Active.User, o.Active.Password, o.Quiet = "d", "x", time.Second
			if pool != "" {
				o.Active.TLS = &tls.Config{ServerName: "db.test", RootCAs: pools[pool], MinVersion: tls.VersionTLS12}
			}
		})
		r.e.active.private = t.TempDir()
		return r
	}
	clear := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			rows, err := active.Query("postgres", "SELECT left(query, 30) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'drsync%' AND NOT ssl")
			if err != nil {
				t.Error(err)
				return
			}
			for _, q := range rows {
				select {
				case clear <- q:
				default:
				}
			}
		}
	})
	for n := range 2 {
		l.onActive(t, fmt.Sprintf("INSERT INTO t VALUES (%d)", n))
		l.sync(t, with("server"))
	}
	cancel()
	watch.Wait()
	if len(clear) > 0 {
		t.Errorf("in clear: %s", <-clear)
	}
	if rows, err := l.standby.Query(l.name, "SELECT count(*) FROM t"); err != nil || rows[0] != "2" {
		t.Errorf("%q, %v", rows, err)
	}
	for pool, want := range map[string]string{"other": "certificate", "": "no encryption"} {
		if _, err := with(pool).Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || hint.Of(err) == "" {
			t.Errorf("%q: %v\nhint: %s", pool, err, hint.Of(err))
		}
	}
}

// TestQuietServer stops the active's server in the middle of a capture: it still
// accepts connections, and never answers.
func TestQuietServer(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.onActive(t, "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 100000)")
	e := l.engine(t, func(o *Options) { o.Connect, o.Quiet = time.Second, 100*time.Millisecond })
	e.during = func(what string) {
		if what == "snapshot" {
			must(t, syscall.Kill(l.active.PID(), syscall.SIGSTOP))
		}
	}
	_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	must(t, syscall.Kill(l.active.PID(), syscall.SIGCONT))
	if err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("%v", err)
	}
	l.nothingLeft(t)
}
