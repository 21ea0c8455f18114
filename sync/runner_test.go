package sync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/sqlite"
	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/demo"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/remote"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/prune"
	"github.com/drsync/drsync/rsyncx"
)

// lab is a Runner over real files and a real database on this host.
type lab struct {
	*demo.Lab
	t      *testing.T
	runner *Runner
	engine *faultyEngine
}

// faultyEngine is the SQLite engine with a publish that may fail before it begins.
type faultyEngine struct {
	dbrepl.Engine
	fail error
}

type faultyCapture struct {
	dbrepl.Captured
	engine *faultyEngine
}

func (e *faultyEngine) Capture(ctx context.Context) (dbrepl.Captured, error) {
	c, err := e.Engine.Capture(ctx)
	if err != nil {
		return nil, err
	}
	return &faultyCapture{c, e}, nil
}

func (c *faultyCapture) Publish(ctx context.Context) error {
	if c.engine.fail != nil {
		return c.engine.fail
	}
	return c.Captured.Publish(ctx)
}

func newLab(t *testing.T) *lab {
	t.Helper()
	d, err := demo.NewLab(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	snapshots := sqlite.Local(sqlite.NewSnapshotHandler([]string{filepath.Dir(d.ActiveDB)}))
	host := remote.LocalHost(nil)
	engine, err := sqlite.New(sqlite.Options{ActivePath: d.ActiveDB, StandbyPath: d.StandbyDB, Snapshot: snapshots, Clock: host.Clock})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Lab: d, t: t, engine: &faultyEngine{Engine: engine}}
	tree := rsyncx.Archive()
	tree.Delete = true
	l.runner = &Runner{
		StateDir: d.StandbyState, Home: d.StandbyHome, ActiveHome: d.ActiveHome, Version: "test",
		Connect: func(context.Context) (Active, error) { return host, nil },
		Engine:  l.engine, EngineName: "sqlite", EngineMode: "dump", DatabaseName: "art",
		Profile:   app.Artifactory,
		Tree:      tree,
		Retention: snapshot.Policy{KeepLast: 1},
		Prune:     prune.Policy{MaxFraction: 0.5, Quarantine: time.Hour},
	}
	return l
}

// kept asks the laboratory, which knows nothing of drsync, for the promise.
func (l *lab) kept(current bool) {
	l.t.Helper()
	check, err := l.Check(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	if len(check.Broken) > 0 || current && len(check.Behind) > 0 {
		l.t.Fatalf("broken: %q, behind: %q", check.Broken, check.Behind)
	}
}

func (l *lab) change() {
	l.t.Helper()
	if _, err := l.Change(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) run() Report {
	l.t.Helper()
	r, err := l.runner.Run(l.t.Context(), false)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func TestRunKeepsUp(t *testing.T) {
	l := newLab(t)
	first := l.run()
	l.kept(true)
	if !first.Published || first.Incomplete() || first.Snapshot.BlobSets[0].Copied == 0 {
		t.Errorf("first run: %+v", first)
	}
	l.change()
	second := l.run()
	l.kept(true)
	if second.Snapshot.BlobSets[0].Copied != 20 || len(second.Removed) != 1 || second.Prune == nil {
		t.Errorf("second run: %+v, set %+v", second, second.Snapshot.BlobSets[0])
	}
	if v, err := l.runner.Verify(t.Context(), true); err != nil || v.Broken != 0 || v.Named != second.Snapshot.BlobSets[0].Named {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

// TestPublishFails: a publish that fails in its middle is finished by whoever
// comes next, without the active.
func TestPublishFails(t *testing.T) {
	l := newLab(t)
	l.run()
	l.change()
	l.engine.fail = errors.New("the server has gone away")
	if _, err := l.runner.Run(t.Context(), false); !errors.Is(err, l.engine.fail) {
		t.Fatalf("error %v, want %v", err, l.engine.fail)
	}
	pending, err := PublishPending(l.StandbyState)
	if err != nil || pending == nil {
		t.Fatalf("pending: %v, %v", pending, err)
	}
	if _, err := l.runner.PruneOnly(t.Context(), false, nil); err == nil || !strings.Contains(err.Error(), pending.ID) {
		t.Errorf("prune beside an interrupted publish: %v", err)
	}
	l.kept(false)
	l.engine.fail = nil
	l.runner.Connect = func(context.Context) (Active, error) {
		t.Error("recovery asked the active")
		return nil, errors.New("the active is lost")
	}
	id, err := l.runner.Recover(t.Context())
	if err != nil || id != pending.ID {
		t.Fatalf("recover: %q, %v", id, err)
	}
	l.kept(true)
	all, err := snapshot.Read(l.StandbyState)
	if err != nil || len(all) != 2 || all[0].ID != pending.ID {
		t.Errorf("snapshots: %v, %v", all, err)
	}
	if id, err := l.runner.Recover(t.Context()); err != nil || id != "" {
		t.Errorf("a second recover: %q, %v", id, err)
	}
}

// TestCancelInPublish: an interrupt that comes after the journal was written
// waits for the end of the publish.
func TestCancelInPublish(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("interrupted")
	l.runner.Event = func(e event.Event) {
		if e.Kind == event.Info && e.Step == "publish" {
			cancel(stop)
		}
	}
	r, err := l.runner.Run(ctx, false)
	if !errors.Is(err, stop) || !r.Published {
		t.Errorf("published %v, error %v", r.Published, err)
	}
	if pending, err := PublishPending(l.StandbyState); err != nil || pending != nil {
		t.Errorf("pending: %v, %v", pending, err)
	}
	l.kept(true)
}

// TestGuardsReportAll: the operator learns everything that refuses in one go.
func TestGuardsReportAll(t *testing.T) {
	l := newLab(t)
	l.run()
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(l.StandbyHome, "etc/security/master.key"), "another\n")
	if err := role.Save(l.StandbyState, role.State{Role: role.Standby, Epoch: 7}); err != nil {
		t.Fatal(err)
	}
	_, err := l.runner.Run(t.Context(), false)
	for _, want := range []string{"master.key", "epoch 7"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	results, _, err := l.runner.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	failed := ""
	for _, r := range results {
		if !r.OK {
			failed += r.Name + " "
		}
	}
	if failed != "epoch keys " {
		t.Errorf("check says that %q fail", failed)
	}
}

// TestEpochIsAdopted: a standby that follows a promoted host takes its epoch,
// and then refuses the one that was failed over from.
func TestEpochIsAdopted(t *testing.T) {
	l := newLab(t)
	if err := role.SaveMarker(l.ActiveHome, "new", role.State{Role: role.Active, Epoch: 3, Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	l.run()
	s, err := role.Load(l.StandbyState)
	if err != nil || s.Epoch != 3 || s.Role != role.Standby {
		t.Fatalf("role: %+v, %v", s, err)
	}
	if _, err := os.Lstat(filepath.Join(l.StandbyHome, role.MarkerPath)); err == nil {
		t.Error("the marker travelled")
	}
	if err := os.Remove(filepath.Join(l.ActiveHome, role.MarkerPath)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.runner.Run(t.Context(), false); err == nil || !strings.Contains(err.Error(), "epoch 0") {
		t.Errorf("an active of epoch 0: %v", err)
	}
}

// TestEmptyFilestore: a filestore that is not mounted is not taken for one that
// lost everything.
func TestEmptyFilestore(t *testing.T) {
	l := newLab(t)
	l.run()
	store := filepath.Join(l.ActiveHome, "data/filestore")
	if err := os.Rename(store, store+".away"); err != nil {
		t.Fatal(err)
	}
	_, err := l.runner.Run(t.Context(), false)
	if err == nil || !strings.Contains(err.Error(), "empty or absent") {
		t.Errorf("error: %v", err)
	}
	if err := os.Rename(store+".away", store); err != nil {
		t.Fatal(err)
	}
	l.kept(true)
}

// TestJournalOfAnotherVersion is an error, never a guess.
func TestJournalOfAnotherVersion(t *testing.T) {
	l := newLab(t)
	l.run()
	for _, text := range []string{`{"format":2}`, `{"format":1`, ``} {
		if err := os.WriteFile(filepath.Join(l.StandbyState, journalName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.runner.Run(t.Context(), false); err == nil || !strings.Contains(err.Error(), "journal") {
			t.Errorf("journal %q: %v", text, err)
		}
	}
}
