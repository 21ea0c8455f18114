package sqlite

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/remote"
	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/wire"
)

const agentEnv = "DRSYNC_TEST_AGENT_PIDS"

// TestAgentProcess is not a test: it is the agent of the others, started through ssh.
func TestAgentProcess(t *testing.T) {
	pids := os.Getenv(agentEnv)
	if pids == "" {
		t.Skip("it is the agent of other tests")
	}
	if err := os.WriteFile(filepath.Join(pids, strconv.Itoa(os.Getpid())), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := wire.Serve(t.Context(), os.Stdin, os.Stdout, wire.Server{
		Streams: map[string]wire.StreamFunc{StreamName: NewSnapshotHandler([]string{os.Getenv("DRSYNC_TEST_AGENT_ROOT")})},
	})
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// farLab is a lab whose active is reached through sshd.
type farLab struct {
	*lab
	host  remote.Host
	pids  string
	asked []string
	told  []string
	// before is called before each request.
	before func(kind string)
}

func newFarLab(t *testing.T, config string) *farLab {
	s := testenv.SSHD(t)
	f := &farLab{lab: newLab(t, "wal", 0), pids: t.TempDir(), before: func(string) {}}
	f.fill(3000)
	if config != "" {
		text, err := os.ReadFile(s.Config)
		if err == nil {
			err = os.WriteFile(s.Config, append(text, config+"\n"...), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Stop()
		s.Start()
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.host, err = remote.Dial(t.Context(), remote.Config{
		Host: s.Host, Port: s.Port, User: s.User, Identity: s.Identity, KnownHosts: s.KnownHosts, Transport: remote.TransportAgent,
		AgentCommand: []string{"env", agentEnv + "=" + f.pids, "TMPDIR=" + os.Getenv("TMPDIR"), "DRSYNC_TEST_AGENT_ROOT=" + filepath.Dir(f.active),
			self, "-test.run=^TestAgentProcess$", "--"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.host.Close() })
	return f
}

func (f *farLab) far() *Engine {
	e := f.engine()
	e.o.Snapshot = func(ctx context.Context, arg string) (io.ReadCloser, error) {
		kind, _, found := strings.Cut(arg, ":")
		if !found {
			kind = "whole"
		}
		f.asked = append(f.asked, kind)
		f.before(kind)
		return f.host.Stream(ctx, StreamName, arg)
	}
	e.o.Event = func(ev event.Event) {
		if ev.Kind == event.Info && ev.Step == "" {
			f.told = append(f.told, ev.Text)
		}
	}
	return e
}

// killAgents ends every agent at once, as SIGKILL does.
func (f *farLab) killAgents() {
	f.t.Helper()
	entries, err := os.ReadDir(f.pids)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			f.t.Fatal(err)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		f.awaitEnd(pid)
		os.Remove(filepath.Join(f.pids, e.Name()))
	}
}

// awaitEnd waits for a process that is not a child of this one.
func (f *farLab) awaitEnd(pid int) {
	f.t.Helper()
	f.await(func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, "the end of an agent")
}

func (f *farLab) await(done func() bool, what string) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("waited too long for %s", what)
		}
	}
}

// awaitNoCopies waits until the active has no copy any more.
func (f *farLab) awaitNoCopies() {
	f.t.Helper()
	f.await(func() bool {
		entries, err := os.ReadDir(os.Getenv("TMPDIR"))
		return err == nil && len(entries) == 0
	}, "the removal of the copies")
}

func (f *farLab) wantAsked(want string) {
	f.t.Helper()
	if got := strings.Join(f.asked, " "); got != want {
		f.t.Fatalf("asked %q, want %q; told %q", got, want, f.told)
	}
}

func TestChangesThroughAgents(t *testing.T) {
	f := newFarLab(t, "")
	f.publish(f.far())
	f.wantAsked("whole")
	f.exec("UPDATE nodes SET node_name = 'y' WHERE rowid % 50 = 0")
	f.asked = nil
	e := f.far()
	begin := time.Now()
	c := f.capture(e)
	f.wantAsked("check sums ranges")
	if took := time.Since(begin); took > 14*time.Second {
		t.Fatalf("%v: the end of the sums waited for the agent's next sign of life", took)
	}
	f.wantSame(f.engine())
	if n := c.Counts().Bytes; n == 0 || n > 600_000 {
		t.Fatalf("%d bytes of %d", n, c.g.Length)
	}
	f.awaitNoCopies()
}

// An agent that is killed while its copy is read leaves it, and the next call takes it away.
func TestAgentKilledWhileItHolds(t *testing.T) {
	f := newFarLab(t, "")
	f.publish(f.far())
	f.exec("UPDATE nodes SET node_name = 'y' WHERE rowid % 50 = 0")
	f.asked = nil
	f.before = func(kind string) {
		if kind != "ranges" {
			return
		}
		f.killAgents()
		left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), privatePrefix+"*"))
		if err != nil || len(left) != 1 {
			t.Fatalf("left by the killed agent: %q %v", left, err)
		}
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(left[0], old, old); err != nil {
			t.Fatal(err)
		}
	}
	e := f.far()
	f.capture(e)
	f.wantAsked("check sums ranges whole")
	f.wantSame(f.engine())
	f.awaitNoCopies()
}

// A host that allows one session only gives the whole database, as before.
func TestOneSessionOnly(t *testing.T) {
	f := newFarLab(t, "MaxSessions 1")
	f.publish(f.far())
	f.exec("UPDATE nodes SET node_name = 'y' WHERE rowid % 50 = 0")
	for range 3 {
		f.asked = nil
		e := f.far()
		c := f.capture(e)
		f.wantAsked("check sums whole")
		c.Close()
		if err := c.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.awaitNoCopies()
}

// The standby's connection is lost while the copy is held: the agent notices and removes it.
func TestConnectionLostWhileHeld(t *testing.T) {
	f := newFarLab(t, "")
	f.publish(f.far())
	f.exec("UPDATE nodes SET node_name = 'y' WHERE rowid % 50 = 0")
	f.before = func(kind string) {
		if kind == "ranges" {
			f.host.Close()
		}
	}
	e := f.far()
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil {
		t.Fatal("a capture without a connection")
	}
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	f.awaitNoCopies()
}
