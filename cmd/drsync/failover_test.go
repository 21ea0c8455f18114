package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/internal/testenv"
)

// configured opens a standby whose active is reached through sshd, changed by
// replacing from by to in its configuration.
func configured(t *testing.T, sshd *testenv.SSHServer, change ...string) *standby {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	dir := t.TempDir()
	text := strings.NewReplacer(change...).Replace(fmt.Sprintf(`active:
  host: 127.0.0.1
  port: %d
  user: root
  identity: %s
  known_hosts: %s
  home: /srv/home
  transport: sftp
standby:
  home: %s
  state: %s
application: custom
database:
  engine: mysql
  name: app
  active: {address: "127.0.0.1:3306", user: drsync, via: ssh}
  standby: {address: "127.0.0.1:3307", user: drsync}
`, sshd.Port, sshd.Identity, sshd.KnownHosts, filepath.Join(dir, "home"), filepath.Join(dir, "state")))
	path := filepath.Join(dir, "drsync.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := openStandby(&options{env: env{in: strings.NewReader(""), out: io.Discard, err: io.Discard, now: time.Now}, configPath: path}, output{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// silent accepts connections, by the kernel, and says nothing.
func silent(t *testing.T) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr)
}

func TestActiveAnswers(t *testing.T) {
	up, other, down := testenv.SSHD(t), testenv.SSHD(t), testenv.SSHD(t)
	down.Stop()
	locked := testenv.SSHD(t)
	if err := os.WriteFile(locked.AuthorizedKeys, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "known")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(other.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(line), " ")
	changed := filepath.Join(t.TempDir(), "known")
	if err := os.WriteFile(changed, fmt.Appendf(nil, "[127.0.0.1]:%d %s", up.Port, key), 0o600); err != nil {
		t.Fatal(err)
	}
	hole := silent(t)
	direct := func(address string) []string {
		return []string{`address: "127.0.0.1:3306", user: drsync, via: ssh`, fmt.Sprintf(`address: %q, user: drsync, via: direct`, address)}
	}
	port := func(s *testenv.SSHServer, to int) []string {
		return []string{fmt.Sprintf("port: %d", s.Port), fmt.Sprintf("port: %d", to)}
	}
	for _, c := range []struct {
		name     string
		sshd     *testenv.SSHServer
		change   []string
		answers  bool
		fails    bool
		evidence string
	}{
		{"lets us in", up, nil, true, false, "lets us log in"},
		{"host key unknown", up, []string{up.KnownHosts, empty}, true, false, "is not known"},
		{"host key changed", up, []string{up.KnownHosts, changed}, true, false, "has CHANGED"},
		{"key withdrawn", locked, nil, true, false, "does not let root in"},
		{"stopped", down, nil, false, false, "refused"},
		{"silent", up, port(up, hole.Port), false, false, "no login within"},
		{"no identity", up, []string{up.Identity, "/nonexistent"}, false, true, ""},
		{"no known hosts", up, []string{up.KnownHosts, "/nonexistent"}, false, true, ""},
		{"no such name", up, []string{"host: 127.0.0.1", "host: host.invalid"}, false, true, ""},
		{"stopped, its database is up", down, direct(hole.String()), true, false, "database server accepts"},
		{"stopped, its database too", down, direct(down.Addr), false, false, "database: "},
		{"unknown, its database is up", up, append(direct(hole.String()), up.Identity, "/nonexistent"), true, false, "database server accepts"},
		{"unknown, its database is down", up, append(direct(down.Addr), up.Identity, "/nonexistent"), false, true, "database: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := configured(t, c.sshd, c.change...)
			timeout := 20 * time.Second
			if c.name == "silent" {
				timeout = 200 * time.Millisecond
			}
			evidence, answers, err := s.activeAnswers(t.Context(), timeout)
			if answers != c.answers || (err != nil) != c.fails || !strings.Contains(evidence, c.evidence) {
				t.Errorf("answers %v, evidence %q, error %v", answers, evidence, err)
			}
		})
	}
}

// TestFailoverTakesTheVisible: the active's clock went back before the last run.
func TestFailoverTakesTheVisible(t *testing.T) {
	s := configured(t, &testenv.SSHServer{Port: 1, Identity: "/nonexistent", KnownHosts: "/nonexistent"})
	d, err := s.failoverDeps()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := d.Snapshot(context.Background()); ok || err != nil {
		t.Fatalf("a snapshot before the first: %v, %v", ok, err)
	}
	snaps, err := snapshot.Open(d.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	published := time.Date(2026, 3, 4, 10, 0, 0, 0, time.UTC)
	for i, at := range []time.Time{published, published.AddDate(10, 0, 0), published.Add(-time.Hour)} {
		draft, err := snaps.Begin(snapshot.IDFor(at))
		if err != nil {
			t.Fatal(err)
		}
		if err := draft.Commit(snapshot.Record{Time: at, Published: published.Add(time.Duration(i) * time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	r, ok, err := d.Snapshot(t.Context())
	if want := snapshot.IDFor(published.Add(-time.Hour)); err != nil || !ok || r.ID != want {
		t.Errorf("%s, %v, %v, want %s", r.ID, ok, err, want)
	}
}

// TestFirstRunHasAName: what the very first run leaves on the active has this
// standby's name too. A command that only looks makes no state directory.
func TestFirstRunHasAName(t *testing.T) {
	s := configured(t, testenv.SSHD(t))
	if _, err := os.Stat(s.config.Standby.State); !os.IsNotExist(err) {
		t.Errorf("the state directory, after a command that looks: %v", err)
	}
	run, err := openStandby(s.options, output{changes: true})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	if _, err := os.Stat(filepath.Join(s.config.Standby.State, "instance")); err != nil {
		t.Errorf("this standby has no name: %v", err)
	}
}
