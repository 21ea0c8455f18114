package postgres

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// configuration makes an engine as another configuration has it, with a home and
// a state directory of its own.
func (l *lab) configuration(t testing.TB) *Engine {
	t.Helper()
	o := l.options()
	o.Scratch = filepath.Join(t.TempDir(), "scratch")
	o.Lock = 300 * time.Millisecond
	e, err := New(o)
	must(t, err)
	e.standby.private, e.active.private = l.private, l.private
	t.Cleanup(func() { must(t, e.Close()) })
	return e
}

// refusedAsBusy says that another configuration is told who is in its way.
func refusedAsBusy(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, dbrepl.ErrBusy) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "process ") || !strings.Contains(hint.Of(err), "another configuration") {
		t.Errorf("%s: %v\nhint: %s", what, err, hint.Of(err))
	}
}

// oneConfigurationHasTheDatabase has two of them want the same.
func oneConfigurationHasTheDatabase(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int)")
	one, other := l.configuration(t), l.configuration(t)
	dir := filepath.Join(t.TempDir(), "dump")
	kept, err := one.Capture(t.Context(), dbrepl.CaptureOptions{Dump: dir})
	must(t, err)
	token := kept.Token()
	busy := map[string]func() error{
		"capture":  func() error { _, err := other.Capture(t.Context(), dbrepl.CaptureOptions{}); return err },
		"recover":  func() error { return other.Recover(t.Context(), nil) },
		"publish":  func() error { return other.Recover(t.Context(), token) },
		"restore":  func() error { _, err := other.Restore(t.Context(), dir); return err },
		"beside":   func() error { _, err := other.RestoreAs(t.Context(), dir, l.name+"_x"); return err },
		"promote":  func() error { _, err := other.Promote(t.Context()); return err },
		"discard":  func() error { return (&captured{e: other, g: kept.(*captured).g}).Discard(t.Context()) },
		"publish'": func() error { return (&captured{e: other, g: kept.(*captured).g}).Publish(t.Context()) },
	}
	for what, do := range busy {
		refusedAsBusy(t, what, do())
	}
	must(t, kept.Publish(t.Context()))
	refusedAsBusy(t, "after the publish", other.Recover(t.Context(), nil))
	// Who only looks need not wait.
	_, err = other.Visible(t.Context())
	must(t, err)
	if _, err := other.Compare(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := other.Check(t.Context()); err != nil {
		t.Error(err)
	}
	// Another database of the same server is another matter.
	elsewhere := newLab(t, l.active, l.standby)
	must(t, elsewhere.configuration(t).Recover(t.Context(), nil))
	// A session that was lost is made anew, unless another was faster.
	must(t, one.Recover(t.Context(), nil))
	l.standby.Exec(t, "postgres", "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
	must(t, one.Recover(t.Context(), nil))
	refusedAsBusy(t, "after it was taken anew", other.Recover(t.Context(), nil))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCrash)
	if err := one.Recover(ctx, nil); !errors.Is(err, errCrash) {
		t.Errorf("%v", err)
	}
	must(t, one.Close())
	must(t, other.Recover(t.Context(), nil))
	refusedAsBusy(t, "the one that let go", one.Recover(t.Context(), nil))
}

const childOf = "DRSYNC_TEST_HOLDS" // how the test's child knows what to lock: name, active, standby

// TestClaimOfAKilledProcess kills a process that is at work.
func TestClaimOfAKilledProcess(t *testing.T) {
	if about := os.Getenv(childOf); about != "" {
		holdAndWait(t, strings.Split(about, "|"))
		return
	}
	t.Parallel()
	l := startLab(t)
	l.onActive(t, "CREATE TABLE t (n int)")
	e := l.configuration(t)
	l.killedWhileAtWork(t, l.name, l.active.Addr, l.standby.Socket)(func() {
		refusedAsBusy(t, "while it lives", e.Recover(t.Context(), nil))
	})
	l.sync(t, e)
	// The standby's server ends, and with it every session.
	l.standby.Stop()
	l.standby.Start()
	l.sync(t, e)
}

// killedWhileAtWork starts a process that claims the standby. What is returned
// runs a function while it does, and then kills it.
func (l *lab) killedWhileAtWork(t *testing.T, about ...string) func(meanwhile func()) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestClaimOfAKilledProcess$")
	child.Env = append(os.Environ(), childOf+"="+strings.Join(about, "|"))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	said := ""
	for s := bufio.NewScanner(out); said != "at work" && s.Scan(); {
		said = s.Text()
	}
	if said != "at work" {
		t.Errorf("the child said %q", said)
	}
	return func(meanwhile func()) {
		meanwhile()
		must(t, child.Process.Kill())
		_ = child.Wait() // killed, as it says
	}
}

func holdAndWait(t *testing.T, about []string) {
	o := Options{Name: about[0], Active: Server{Address: about[1], User: "postgres"}, Standby: Server{Address: about[2], User: "postgres"}, Scratch: filepath.Join(t.TempDir(), "scratch")}
	var engine dbrepl.Engine
	var err error
	if len(about) == 3 {
		engine, err = New(o)
	} else {
		nothing := func(context.Context) error { return nil }
		engine, err = NewReplica(ReplicaOptions{Options: o, DataDirectory: about[3], Start: nothing, Stop: nothing})
	}
	must(t, err)
	must(t, engine.Recover(t.Context(), nil))
	_, err = os.Stdout.WriteString("at work\n")
	must(t, err)
	select {} // until it is killed
}

// TestReplicaIsClaimed has two configurations with one data directory.
func TestReplicaIsClaimed(t *testing.T) {
	t.Parallel()
	l := newReplicaLab(t, testenv.Postgres(t))
	l.onActive(t, "CREATE TABLE t (n int)")
	configuration := func() *Replica {
		o := l.options()
		o.Lock = 300 * time.Millisecond
		r, err := NewReplica(o)
		must(t, err)
		r.careless = true
		t.Cleanup(func() { must(t, r.Close()) })
		return r
	}
	one, other := configuration(), configuration()
	must(t, other.Recover(t.Context(), nil)) // there is nothing yet
	c := l.capture(t, one)
	for what, do := range map[string]func() error{
		"capture": func() error { _, err := other.Capture(t.Context(), dbrepl.CaptureOptions{}); return err },
		"recover": func() error { return other.Recover(t.Context(), nil) },
		"publish": func() error { return other.Recover(t.Context(), c.Token()) },
		"discard": func() error { return (&replica{r: other, p: c.(*replica).p}).Discard(t.Context()) },
	} {
		refusedAsBusy(t, what, do())
	}
	must(t, c.Publish(t.Context()))
	must(t, c.Close())
	_, err := other.Promote(t.Context())
	refusedAsBusy(t, "promote", err)
	_, err = other.Visible(t.Context())
	must(t, err)
	if _, err := other.Compare(t.Context()); err != nil {
		t.Error(err)
	}
	must(t, one.Close())
	l.sync(t, other)
	refusedAsBusy(t, "the one that let go", one.Recover(t.Context(), nil))
	// The file is what counts, and not that somebody once had it.
	must(t, os.Remove(other.claimFile()))
	must(t, other.Recover(t.Context(), nil))
	refusedAsBusy(t, "after it was removed", one.Recover(t.Context(), nil))
	must(t, other.Close())
	(&lab{}).killedWhileAtWork(t, l.name, l.active.Addr, l.standby.Socket, l.standby.Datadir)(func() {
		refusedAsBusy(t, "while a child lives", one.Recover(t.Context(), nil))
	})
	l.sync(t, one)
}
