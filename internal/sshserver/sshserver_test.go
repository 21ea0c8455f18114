package sshserver_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/drsync/drsync/internal/remote"
	"github.com/drsync/drsync/internal/sshserver"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/sourcetest"
	"github.com/drsync/drsync/rsyncx/wire"
)

// newKey makes a key pair and returns the file of the private one.
func newKey(t *testing.T) (path string, public ssh.PublicKey) {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if public, err = ssh.NewPublicKey(pub); err != nil {
		t.Fatal(err)
	}
	return path, public
}

// serve starts a server and returns it with how to reach it.
func serve(t *testing.T, exec sshserver.Handler) (*sshserver.Server, remote.Config) {
	t.Helper()
	identity, public := newKey(t)
	s, err := sshserver.Start(t.Context(), sshserver.Options{Authorized: public, Exec: exec, SFTP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(s.KnownHostsLine()), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c := remote.Config{Host: host, User: "anyone", Identity: identity, KnownHosts: known, SSHConfig: "none", Transport: remote.TransportAgent}
	if c.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// agent answers the command that remote starts.
func agent(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) int {
	if !strings.HasPrefix(command, "drsync agent") {
		io.WriteString(stderr, "command not found")
		return 127
	}
	if err := wire.Serve(ctx, stdin, stdout, wire.Server{Roots: []string{"/"}}); err != nil {
		io.WriteString(stderr, err.Error())
		return 1
	}
	return 0
}

func dial(t *testing.T, c remote.Config) remote.Host {
	t.Helper()
	h, err := remote.Dial(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestSourcesThroughIt(t *testing.T) {
	_, c := serve(t, agent)
	for _, transport := range []string{remote.TransportAgent, remote.TransportSFTP} {
		t.Run(transport, func(t *testing.T) {
			c.Transport = transport
			h := dial(t, c)
			sourcetest.TestSource(t, func(t *testing.T, dir string) rsyncx.Source {
				src, err := h.Source(t.Context(), dir, rsyncx.View{})
				if err != nil {
					t.Fatal(err)
				}
				return src
			})
		})
	}
}

func TestTunnelAndRefusals(t *testing.T) {
	s, c := serve(t, agent)
	h := dial(t, c)
	conn, err := h.DialContext(t.Context(), "tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Errorf("no greeting through the tunnel: %v", err)
	}
	other, _ := newKey(t)
	c.Identity = other
	t.Setenv("SSH_AUTH_SOCK", "")
	if h, err := remote.Dial(t.Context(), c); err == nil {
		h.Close()
		t.Error("another key was let in")
	}
	if _, err := sshserver.Start(t.Context(), sshserver.Options{}); err == nil {
		t.Error("a server that lets nobody in was started")
	}
	_, public := newKey(t)
	if _, err := sshserver.Start(t.Context(), sshserver.Options{Authorized: public, Addr: "0.0.0.0:0"}); err == nil {
		t.Error("a server that listens everywhere was started")
	}
}

// TestHandlersEnd: a handler ends with its client, and Close waits for it.
func TestHandlersEnd(t *testing.T) {
	began, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	s, c := serve(t, func(ctx context.Context, _ string, _ io.Reader, stdout, _ io.Writer) int {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return 0
	})
	h := dial(t, c)
	go h.Source(t.Context(), "/", rsyncx.View{})
	<-began
	h.Close()
	<-ended
	h = dial(t, c)
	go h.Source(t.Context(), "/", rsyncx.View{})
	<-began
	s.Close()
	select {
	case <-ended:
	default:
		t.Error("Close did not wait for the handler")
	}
	if _, err := remote.Dial(t.Context(), c); err == nil {
		t.Error("a closed server answers")
	}
}

// TestSFTPIsReadOnly writes through the subsystem, with the library's own client.
func TestSFTPIsReadOnly(t *testing.T) {
	s, c := serve(t, nil)
	key, err := os.ReadFile(c.Identity)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ssh.Dial("tcp", s.Addr(), &ssh.ClientConfig{Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(s.HostKey())})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	write(t, client, filepath.Join(t.TempDir(), "new"))
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Run("true"); err == nil {
		t.Error("a command ran without a handler")
	}
}
