package failover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
)

var (
	now       = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	errBroken = errors.New("broken")
)

// lab is a standby with one published snapshot, whose active is down. It
// counts what was done to it.
type lab struct {
	Deps
	t      *testing.T
	calls  map[string]int
	answer bool
	fail   map[string]error
	record snapshot.Record
	none   bool
	miss   int64
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, calls: map[string]int{}, fail: map[string]error{}, record: snapshot.Record{
		ID: "20260304T113000Z", Time: now.Add(-30 * time.Minute), Complete: true, Epoch: 0,
		Clock: snapshot.Clock{Measured: true, Skew: 10, Error: 0.5},
	}}
	call := func(name string) error { l.calls[name]++; return l.fail[name] }
	l.Deps = Deps{
		StateDir: filepath.Join(t.TempDir(), "state"), Home: t.TempDir(), Host: "standby",
		Now: func() time.Time { return now },
		ActiveAnswers: func(context.Context) (string, bool, error) {
			return "ssh: connection refused", l.answer, call("ask")
		},
		Recover:  func(context.Context) error { return call("recover") },
		Snapshot: func(context.Context) (snapshot.Record, bool, error) { return l.record, !l.none, call("snapshot") },
		Verify:   func(context.Context) (Presence, error) { return Presence{100, l.miss}, call("verify") },
		Promote: func(context.Context) ([]dbrepl.Point, error) {
			return []dbrepl.Point{{Position: "gtid 0-1-7"}}, call("promote")
		},
		Start: Command{Argv: []string{"/bin/echo", "service", "is up"}},
	}
	return l
}

// role asserts the role and the epoch that the role file and, for an active host, the marker show.
func (l *lab) role(want role.Role, epoch uint64) {
	l.t.Helper()
	s, err := role.Load(l.StateDir)
	if err != nil || s.Role != want || s.Epoch != epoch {
		l.t.Fatalf("role %+v %v, want %s with epoch %d", s, err, want, epoch)
	}
	m, ok, err := role.LoadMarker(l.Home)
	if err != nil || want == role.Active && (!ok || m.Role != role.Active || m.Epoch != epoch || m.Host != "standby") {
		l.t.Fatalf("marker %+v %v %v", m, ok, err)
	}
	if want == role.Standby && ok {
		l.t.Fatalf("marker %+v on a standby", m)
	}
}

func TestFailover(t *testing.T) {
	l := newLab(t)
	var steps []string
	l.Event = func(e event.Event) {
		if e.Kind == event.StepDone && e.Err == nil {
			steps = append(steps, e.Step)
		}
	}
	r, err := Run(t.Context(), l.Deps, Options{Reason: "fire"})
	if err != nil {
		t.Fatal(err)
	}
	l.role(role.Active, 1)
	if r.Epoch != 1 || r.Snapshot != l.record.ID || r.Loss() != 30*time.Minute+10*time.Second || r.LossErrorSeconds != 0.5 || !r.ClockMeasured ||
		r.Service != ServiceStarted || r.Output != "service is up\n" || r.Evidence != "ssh: connection refused" || r.Resumed || r.Forced || r.Reason != "fire" ||
		len(r.Positions) != 1 || r.Presence == nil || r.Presence.Named != 100 || len(r.Warnings) != 0 {
		t.Fatalf("%+v", r)
	}
	want := []string{"ask", "recover", "snapshot", "verify", "promoting", "promote", "mark", "active", "start"}
	if !slices.Equal(steps, want) || len(r.Steps) != len(want) {
		t.Fatalf("%q %+v", steps, r.Steps)
	}
	if s, err := role.Load(l.StateDir); err != nil || s.Reason != "fire" || role.RequireStandby(s) == nil {
		t.Fatal(s, err)
	}
	if last, ok, err := Last(l.StateDir); err != nil || !ok || last.Service != ServiceStarted || last.Epoch != 1 {
		t.Fatal(last, ok, err)
	}

	// Once more: this host is the active one already.
	_, err = Run(t.Context(), l.Deps, Options{Force: true})
	if !errors.Is(err, role.ErrWrongRole) || hint.Of(err) == "" || l.calls["promote"] != 1 {
		t.Fatal(err)
	}
	if _, err := Plan(l.Deps, Options{}); !errors.Is(err, role.ErrWrongRole) {
		t.Fatal(err)
	}
}

// What refuses leaves a standby, without a marker and with the epoch it had.
func TestRefusals(t *testing.T) {
	for title, c := range map[string]struct {
		change func(l *lab)
		want   error
		forced bool // --force goes on
		hinted bool
	}{
		"the active answers":        {func(l *lab) { l.answer = true }, ErrActiveAnswers, true, true},
		"the active may answer":     {func(l *lab) { l.fail["ask"] = errBroken }, ErrActiveAnswers, true, true},
		"the publish is stuck":      {func(l *lab) { l.fail["recover"] = errBroken }, errBroken, false, false},
		"records are unreadable":    {func(l *lab) { l.fail["snapshot"] = errBroken }, errBroken, false, false},
		"nothing was published":     {func(l *lab) { l.none = true }, ErrNoSnapshot, false, true},
		"blobs are missing":         {func(l *lab) { l.miss = 1 }, ErrIncomplete, true, true},
		"blobs cannot be counted":   {func(l *lab) { l.fail["verify"] = errBroken }, errBroken, true, true},
		"more is missing than then": {func(l *lab) { l.miss = 4; l.record.BlobSets = []snapshot.BlobSet{{Missing: 1}, {Missing: 2}} }, ErrIncomplete, true, true},
	} {
		t.Run(title, func(t *testing.T) {
			l := newLab(t)
			c.change(l)
			r, err := Run(t.Context(), l.Deps, Options{})
			if !errors.Is(err, c.want) || (hint.Of(err) != "") != c.hinted {
				t.Fatalf("%v (hint %q)", err, hint.Of(err))
			}
			l.role(role.Standby, 0)
			if r.Epoch != 0 || l.calls["promote"] != 0 || r.Steps[len(r.Steps)-1].Error == "" {
				t.Fatalf("%+v %v", r, l.calls)
			}
			r, err = Run(t.Context(), l.Deps, Options{Force: true})
			if !c.forced {
				if !errors.Is(err, c.want) {
					t.Fatalf("forced: %v", err)
				}
				l.role(role.Standby, 0)
				return
			}
			if err != nil || len(r.Warnings) == 0 || !r.Forced {
				t.Fatalf("forced: %v %+v", err, r)
			}
			l.role(role.Active, 1)
		})
	}
}

func TestWhatWasMissingThenMayBeMissingNow(t *testing.T) {
	l := newLab(t)
	l.record.Complete, l.record.BlobSets, l.miss = false, []snapshot.BlobSet{{Missing: 3}}, 3
	r, err := Run(t.Context(), l.Deps, Options{})
	if err != nil || len(r.Warnings) != 1 {
		t.Fatal(r, err)
	}
}

func TestEpochIsAboveEverythingHeardOf(t *testing.T) {
	l := newLab(t)
	if err := os.MkdirAll(l.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ state, marker, snapshot, want uint64 }{{0, 0, 0, 1}, {4, 0, 0, 5}, {0, 6, 0, 7}, {2, 3, 9, 10}} {
		l := newLab(t)
		if c.state > 0 {
			if err := errors.Join(os.MkdirAll(l.StateDir, 0o755), role.Save(l.StateDir, role.State{Role: role.Standby, Epoch: c.state})); err != nil {
				t.Fatal(err)
			}
		}
		if c.marker > 0 {
			if err := role.SaveMarker(l.Home, "other", role.State{Role: role.Active, Epoch: c.marker}); err != nil {
				t.Fatal(err)
			}
		}
		l.record.Epoch = c.snapshot
		if _, err := Run(t.Context(), l.Deps, Options{}); err != nil {
			t.Fatal(i, err)
		}
		l.role(role.Active, c.want)
	}
}

// Stopped before the n-th step, for every n, and begun anew as often as it
// takes: the epoch rises once, and everything gets done.
func TestStoppedBeforeEveryStep(t *testing.T) {
	for n := 0; ; n++ {
		l := newLab(t)
		stopAt := func(n int) {
			l.before = func(string) error {
				if n--; n < 0 {
					return errBroken
				}
				return nil
			}
		}
		stopAt(n)
		_, first := Run(t.Context(), l.Deps, Options{Reason: "fire"})
		if first == nil {
			if n != 9 {
				t.Fatalf("%d steps", n)
			}
			return
		}
		for m := range 9 { // a second run that stops early must not spoil anything
			s, _ := role.Load(l.StateDir)
			stopAt(m)
			if _, err := Run(t.Context(), l.Deps, Options{}); !errors.Is(err, errBroken) {
				t.Fatalf("stopped at %d, then at %d: %v", n, m, err)
			}
			if after, _ := role.Load(l.StateDir); after.Epoch < s.Epoch || s.Role != role.Standby && after.Epoch != s.Epoch {
				t.Fatalf("stopped at %d, then at %d: %+v became %+v", n, m, s, after)
			}
		}
		l.before = nil
		r, err := Run(t.Context(), l.Deps, Options{})
		if err != nil || !r.Resumed || r.Service != ServiceStarted {
			t.Fatalf("stopped at %d: %+v %v", n, r, err)
		}
		l.role(role.Active, 1)
		if s, _ := role.Load(l.StateDir); n > 4 && s.Reason != "fire" {
			t.Fatalf("the reason is lost: %+v", s)
		}
	}
}

func TestStepsThatFailAreRepeated(t *testing.T) {
	for _, name := range []string{"promote", "start"} {
		l := newLab(t)
		l.fail["promote"] = nil
		if name == "start" {
			l.Start.Argv = []string{"/bin/sh", "-c", "echo no licence >&2; exit 3"}
		} else {
			l.fail[name] = errBroken
		}
		r, err := Run(t.Context(), l.Deps, Options{})
		if err == nil || r.Epoch != 1 {
			t.Fatal(r, err)
		}
		if name == "start" {
			l.role(role.Active, 1)
			if r.Service != ServiceFailed || r.Output != "no licence\n" || hint.Of(err) == "" || !strings.Contains(err.Error(), "exit status 3") {
				t.Fatalf("%+v %v", r, err)
			}
			l.Start.Argv = []string{"/bin/true"}
		} else {
			l.role(role.Promoting, 1)
			delete(l.fail, name)
		}
		steps, err := Plan(l.Deps, Options{})
		if err != nil || len(steps) != 9 || !strings.Contains(steps[4].Detail, "epoch 1") {
			t.Fatal(steps, err)
		}
		if r, err = Run(t.Context(), l.Deps, Options{}); err != nil || !r.Resumed || r.Service != ServiceStarted {
			t.Fatal(r, err)
		}
		l.role(role.Active, 1)
	}
}

// The active that came back meanwhile stops also a resumed failover.
func TestResumeAsksAgain(t *testing.T) {
	l := newLab(t)
	l.Start.Argv = []string{"/bin/false"}
	if _, err := Run(t.Context(), l.Deps, Options{}); err == nil {
		t.Fatal("no error")
	}
	l.answer = true
	if _, err := Run(t.Context(), l.Deps, Options{}); !errors.Is(err, ErrActiveAnswers) {
		t.Fatal(err)
	}
}

// TestMain lets the test binary be a failover that is killed by its own start command.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DRSYNC_TEST_FAILOVER"); dir != "" {
		d := Deps{StateDir: dir + "/state", Home: dir, Host: "standby", Now: time.Now,
			ActiveAnswers: func(context.Context) (string, bool, error) { return "", false, nil },
			Recover:       func(context.Context) error { return nil },
			Snapshot:      func(context.Context) (snapshot.Record, bool, error) { return snapshot.Record{Time: now}, true, nil },
			Verify:        func(context.Context) (Presence, error) { return Presence{}, nil },
			Promote:       func(context.Context) ([]dbrepl.Point, error) { return nil, nil },
			Start:         Command{Argv: []string{"/bin/sh", "-c", "kill -9 $PPID"}},
		}
		_, err := Run(context.Background(), d, Options{})
		fmt.Println("survived", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestKilledWhileStarting(t *testing.T) {
	l := newLab(t)
	l.StateDir = filepath.Join(l.Home, "state")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "DRSYNC_TEST_FAILOVER="+l.Home)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v %s", err, out)
	}
	l.role(role.Active, 1)
	r, err := Run(t.Context(), l.Deps, Options{})
	if err != nil || !r.Resumed || r.Service != ServiceStarted {
		t.Fatal(r, err)
	}
	l.role(role.Active, 1)
}

func TestNoStartCommand(t *testing.T) {
	l := newLab(t)
	l.Start.Argv = nil
	r, err := Run(t.Context(), l.Deps, Options{})
	if err != nil || r.Service != ServiceManual || len(r.Warnings) != 1 {
		t.Fatal(r, err)
	}
	if _, err := Run(t.Context(), l.Deps, Options{}); !errors.Is(err, role.ErrWrongRole) {
		t.Fatal(err)
	}
}

func TestLockedAndCancelled(t *testing.T) {
	l := newLab(t)
	lock, err := role.Acquire(l.StateDir, "now", now)
	if err != nil {
		t.Fatal(err)
	}
	var locked *role.LockedError
	if _, err := Run(t.Context(), l.Deps, Options{Force: true}); !errors.As(err, &locked) || locked.Holder.Command != "now" || hint.Of(err) == "" {
		t.Fatal(err)
	}
	if len(l.calls) != 0 {
		t.Fatal(l.calls)
	}
	lock.Release()
	for _, at := range []string{"ask", "recover", "snapshot", "verify", "promoting", "promote", "mark", "active", "start"} {
		l := newLab(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		l.before = func(step string) error {
			if step == at {
				cancel(errBroken)
			}
			return nil
		}
		if at == "start" {
			l.Start.Argv = []string{"/bin/sleep", "1000"}
		}
		l.ActiveAnswers = func(ctx context.Context) (string, bool, error) { return "", false, ctx.Err() }
		l.Verify = func(ctx context.Context) (Presence, error) { return Presence{}, ctx.Err() }
		if _, err := Run(ctx, l.Deps, Options{Force: true}); !errors.Is(err, errBroken) {
			t.Errorf("cancelled at %s: %v", at, err)
		}
		if _, held, _ := role.Held(l.StateDir); held {
			t.Error("still locked")
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	l := newLab(t)
	if err := os.MkdirAll(l.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.StateDir, "role.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), l.Deps, Options{Force: true}); err == nil || len(l.calls) != 0 {
		t.Fatal(err)
	}
	l = newLab(t)
	if _, err := Run(t.Context(), l.Deps, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"{", `{"format":9}`} {
		if err := os.WriteFile(filepath.Join(l.StateDir, fileName), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), l.Deps, Options{}); err == nil || errors.Is(err, role.ErrWrongRole) || hint.Of(err) == "" {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(l.StateDir, fileName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), l.Deps, Options{}); !errors.Is(err, role.ErrWrongRole) {
		t.Fatal(err)
	}
}

func TestLoss(t *testing.T) {
	for _, c := range []struct {
		before, skew time.Duration
		measured     bool
		want         time.Duration
	}{
		{time.Hour, 0, true, time.Hour},
		{time.Hour, time.Minute, true, 61 * time.Minute}, // the active's clock is ahead: T is of earlier than it says
		{time.Hour, -time.Minute, true, 59 * time.Minute},
		{time.Hour, time.Minute, false, time.Hour},
		{-time.Hour, 0, true, -time.Hour},
	} {
		l := newLab(t)
		l.record.Time = now.Add(-c.before)
		l.record.Clock = snapshot.Clock{Measured: c.measured, Skew: c.skew.Seconds(), Error: 2}
		r, err := Run(t.Context(), l.Deps, Options{})
		if err != nil || r.Loss() != c.want || r.ClockMeasured != c.measured || (r.LossErrorSeconds == 2) != c.measured || (len(r.Warnings) > 0) != (c.want < 0) {
			t.Errorf("%+v: %+v %v", c, r, err)
		}
	}
}

func TestCommand(t *testing.T) {
	long, err := Command{Argv: []string{"/bin/sh", "-c", "yes | head -c 200000; echo end"}}.Run(t.Context())
	if err != nil || len(long) != MaxOutput || !strings.HasSuffix(long, "end\n") {
		t.Fatal(len(long), err)
	}
	// No shell, and no expansion.
	if out, err := (Command{Argv: []string{"/bin/echo", "$HOME; ls", "*"}}).Run(t.Context()); err != nil || out != "$HOME; ls *\n" {
		t.Fatal(out, err)
	}
	if _, err := (Command{Argv: []string{"/nonexistent/program"}}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := (Command{}).Run(t.Context()); err == nil {
		t.Fatal("no error")
	}
	dir := t.TempDir()
	if out, err := (Command{Argv: []string{"/bin/pwd"}, Dir: dir}).Run(t.Context()); err != nil || out != dir+"\n" {
		t.Fatal(out, err)
	}
	// A daemon that holds the output open does not hold this process up.
	began := time.Now()
	out, err := Command{Argv: []string{"/bin/sh", "-c", "sleep 20 & echo $!"}}.Run(t.Context())
	if err != nil || time.Since(began) > 10*time.Second {
		t.Fatal(out, err)
	}
	alive := func(pid string) bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/stat")
		return err == nil && !strings.Contains(string(stat), ") Z ")
	}
	if !alive(out) {
		t.Error("the daemon was killed")
	}
	exec.Command("/bin/kill", strings.TrimSpace(out)).Run()
	// One that takes too long is killed with its children.
	out, err = Command{Argv: []string{"/bin/sh", "-c", "sleep 1000 & echo $!; wait"}, Timeout: 300 * time.Millisecond}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "longer than 300ms") || out == "" {
		t.Fatal(out, err)
	}
	for deadline := time.Now().Add(10 * time.Second); alive(out); {
		if time.Now().After(deadline) {
			t.Fatal("its child lives on")
		}
	}
}
