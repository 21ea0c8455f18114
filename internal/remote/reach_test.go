package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

// listener serves each connection with serve, for the time of the test.
func listener(t *testing.T, serve func(net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().(*net.TCPAddr).Port
}

func reset(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }

// TestVerdict: what an error of Dial says about the host.
func TestVerdict(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	s, other := testenv.SSHD(t), testenv.SSHD(t)
	stopped := testenv.SSHD(t)
	stopped.Stop()
	empty := filepath.Join(t.TempDir(), "known")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	frozen := testenv.Proxy(t, s.Addr)
	frozen.Freeze()
	at := func(serve func(net.Conn)) func(*Config) {
		port := listener(t, serve)
		return func(c *Config) { c.Port = port }
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   error // nil: nothing is known about the host
	}{
		{"stopped", func(c *Config) { c.Port = stopped.Port }, ErrUnreachable},
		{"closes at once", at(func(net.Conn) {}), ErrUnreachable},
		{"resets", at(reset), ErrUnreachable},
		{"accepts and is silent", func(c *Config) { c.Port, c.DialTimeout = frozen.Port, 200*time.Millisecond }, ErrUnreachable},
		{"host key unknown", func(c *Config) { c.KnownHosts = empty }, ErrAnswered},
		{"key not allowed", func(c *Config) { c.Identity = other.Identity }, ErrAnswered},
		{"closes after its banner", at(func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n") }), ErrAnswered},
		{"refuses before its banner", at(func(c net.Conn) { _, _ = io.WriteString(c, "Exceeded MaxStartups\r\n") }), ErrAnswered},
		{"silent after its banner", func(c *Config) {
			at(func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n"); _, _ = io.Copy(io.Discard, c) })(c)
			c.DialTimeout = 200 * time.Millisecond
		}, ErrAnswered},
		{"no identity", func(c *Config) { c.Identity = "/nonexistent" }, nil},
		{"no known hosts", func(c *Config) { c.KnownHosts = "/nonexistent" }, nil},
		{"no such name", func(c *Config) { c.Host = "host.invalid" }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := config(t, s, TransportSFTP)
			c.change(&conf)
			h, err := Dial(t.Context(), conf)
			if err == nil {
				h.Close()
				t.Fatal("let in")
			}
			for _, v := range []error{ErrUnreachable, ErrAnswered} {
				if got := errors.Is(err, v); got != errors.Is(v, c.want) {
					t.Errorf("%q: %v (%v)", v, got, err)
				}
			}
		})
	}
}

// A time that is over before anything was tried, and a caller who gives up, say nothing.
func TestVerdictOfTheCaller(t *testing.T) {
	s := testenv.SSHD(t)
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := Dial(late, config(t, s, TransportSFTP)); err == nil || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrAnswered) {
		t.Errorf("no time: %v", err)
	}
	frozen := testenv.Proxy(t, s.Addr)
	frozen.Freeze()
	conf := config(t, s, TransportSFTP)
	conf.Port = frozen.Port
	ctx, stop := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { stop(io.ErrNoProgress) })
	if _, err := Dial(ctx, conf); !errors.Is(err, io.ErrNoProgress) || errors.Is(err, ErrUnreachable) {
		t.Errorf("given up: %v", err)
	}
}

func TestKnock(t *testing.T) {
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stopped := testenv.SSHD(t)
	stopped.Stop()
	for _, c := range []struct {
		network, addr     string
		ok, isUnreachable bool
	}{
		{"unix", socket, true, false},
		{"unix", socket + "x", false, true},
		{"tcp", stopped.Addr, false, true},
		{"tcp", "host.invalid:1", false, false},
		{"tcp", "nonsense", false, false},
	} {
		err := Knock(t.Context(), c.network, c.addr)
		if (err == nil) != c.ok || errors.Is(err, ErrUnreachable) != c.isUnreachable {
			t.Errorf("%s: %v", c.addr, err)
		}
	}
}
