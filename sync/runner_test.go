package sync

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/sqlite"
	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/demo"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
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

// faultyEngine is the SQLite engine with a publish that may fail before it begins, here
// and in a recovery.
type faultyEngine struct {
	dbrepl.Engine
	fail error
}

type faultyCapture struct {
	dbrepl.Captured
	engine *faultyEngine
}

func (e *faultyEngine) Capture(ctx context.Context, o dbrepl.CaptureOptions) (dbrepl.Captured, error) {
	c, err := e.Engine.Capture(ctx, o)
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

func (e *faultyEngine) Recover(ctx context.Context, commit dbrepl.Token) error {
	if e.fail != nil && commit != nil {
		return e.fail
	}
	return e.Engine.Recover(ctx, commit)
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
	_, err := l.runner.Run(t.Context(), false)
	if !errors.Is(err, l.engine.fail) {
		t.Fatalf("error %v, want %v", err, l.engine.fail)
	}
	pending, perr := PublishPending(l.StandbyState)
	if perr != nil || pending == nil {
		t.Fatalf("pending: %v, %v", pending, perr)
	}
	if h := hint.Of(err); !strings.Contains(h, pending.ID+" has begun and is pending") {
		t.Errorf("the hint is %q", h)
	}
	if !strings.Contains(pending.Failure, "the server has gone away") || pending.Failed.IsZero() {
		t.Errorf("why it failed: %q at %v", pending.Failure, pending.Failed)
	}
	l.engine.fail = errors.New("its disk is full")
	if _, err := l.runner.Recover(t.Context()); !errors.Is(err, l.engine.fail) {
		t.Fatalf("error %v, want %v", err, l.engine.fail)
	}
	if again, err := PublishPending(l.StandbyState); err != nil || !strings.Contains(again.Failure, "its disk is full") {
		t.Errorf("why it failed again: %+v, %v", again, err)
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
	if _, err := os.Lstat(filepath.Join(l.StandbyState, failureName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is known of the failure stays: %v", err)
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

// at calls act once, when the given step is done.
func (l *lab) at(step string, act func()) {
	var once gosync.Once
	l.runner.Event = func(e event.Event) {
		if e.Kind == event.StepDone && e.Step == step {
			once.Do(act)
		}
	}
}

// TestVerifyLooksAtTheDisk: a blob that was copied and is gone again, or cut
// short, stops the run before anything is published.
func TestVerifyLooksAtTheDisk(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"gone": os.Remove,
		"cut":  func(path string) error { return os.Truncate(path, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.at("copy", func() {
				blobs, err := filepath.Glob(filepath.Join(l.StandbyHome, "data/filestore/[0-9a-f][0-9a-f]/*"))
				if err != nil || len(blobs) == 0 {
					t.Fatalf("no blobs: %v", err)
				}
				largest := blobs[0]
				for _, b := range blobs {
					if size(t, b) > size(t, largest) {
						largest = b
					}
				}
				if err := harm(largest); err != nil {
					t.Fatal(err)
				}
			})
			if _, err := l.runner.Run(t.Context(), false); err == nil || !strings.Contains(err.Error(), "verify: 1 blobs are absent") {
				t.Fatalf("error: %v", err)
			}
			if all, err := snapshot.Read(l.StandbyState); err != nil || len(all) > 0 {
				t.Errorf("snapshots: %v, %v", all, err)
			}
			l.run()
			l.kept(true)
		})
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestSourceThatIsNoActive is refused: a part of the home is missing, or the
// other side is itself a standby.
func TestSourceThatIsNoActive(t *testing.T) {
	l := newLab(t)
	l.run()
	if err := role.SaveMarker(l.ActiveHome, "other", role.State{Role: role.Promoting, Epoch: 2, Since: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.runner.Run(t.Context(), false); err == nil || !strings.Contains(err.Error(), "promoting") {
		t.Errorf("a source that is no active: %v", err)
	}
	if err := os.Remove(filepath.Join(l.ActiveHome, role.MarkerPath)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(l.ActiveHome, "data"), filepath.Join(l.Dir, "data")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.runner.Run(t.Context(), false); err == nil || !strings.Contains(err.Error(), "data") {
		t.Errorf("a source without data: %v", err)
	}
	l.kept(false)
}

// TestWithoutDatabase: the whole home is one tree, and T is the active's time.
func TestWithoutDatabase(t *testing.T) {
	l := newLab(t)
	l.runner.Engine = nil
	l.runner.Profile = func(func(string) (bool, error)) (app.Profile, error) { return app.Custom(), nil }
	const ahead = time.Hour
	connect := l.runner.Connect
	l.runner.Connect = func(ctx context.Context) (Active, error) {
		a, err := connect(ctx)
		return skewed{a, ahead}, err
	}
	r := l.run()
	if age := time.Since(r.Snapshot.Time) + ahead; age < 0 || age > time.Minute {
		t.Errorf("T is %v, an hour ahead of now was wanted", r.Snapshot.Time)
	}
	if len(r.Snapshot.Databases) > 0 || r.Snapshot.Trees[0].Files < 560 {
		t.Errorf("record: %+v", r.Snapshot)
	}
}

// skewed is an active whose clock goes wrong.
type skewed struct {
	Active
	ahead time.Duration
}

func (s skewed) Clock(context.Context) (skew, bound time.Duration, err error) {
	return s.ahead, time.Millisecond, nil
}

// TestEmptyHomeIsRefused: what a snapshot was published into and is empty now is the
// directory below a disk that is not mounted.
func TestEmptyHomeIsRefused(t *testing.T) {
	l := newLab(t)
	l.run()
	if err := os.Rename(l.StandbyHome, l.StandbyHome+".disk"); err != nil {
		t.Fatal(err)
	}
	for _, within := range []string{"", ".drsync", "lost+found"} {
		if err := os.MkdirAll(filepath.Join(l.StandbyHome, within), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, dry := range []bool{true, false} {
			_, err := l.runner.Run(t.Context(), dry)
			if err == nil || !strings.Contains(err.Error(), "is empty") || !strings.Contains(hint.Of(err), "mounted") {
				t.Fatalf("with %q in it: %v (%s)", within, err, hint.Of(err))
			}
		}
	}
	if entries, err := os.ReadDir(l.StandbyHome); err != nil || len(entries) != 2 {
		t.Errorf("a refused run left %v in the home, %v", entries, err)
	}
	l.runner.NewSource = true
	l.run()
	l.runner.NewSource = false
	if r := l.run(); !r.Published { // what this host had of its own there is gone with the disk, the rest is as it should be
		t.Error("nothing was published after it was accepted")
	}
	check, err := l.Check(t.Context())
	if err != nil || slices.ContainsFunc(check.Broken, func(s string) bool { return !strings.Contains(s, "the standby's own") }) || len(check.Behind) > 0 {
		t.Errorf("accepted: %+v, %v", check, err)
	}
}

// reading notes the files of the active that are read.
type reading struct {
	Active
	read map[string]int
}

type readingSource struct {
	rsyncx.Source
	read map[string]int
}

func (r *reading) Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	src, err := r.Active.Source(ctx, root, v)
	return &readingSource{src, r.read}, err
}

func (r *readingSource) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		for f, err := range r.Source.Read(ctx, want) {
			r.read[f.Path]++
			if !yield(f, err) {
				return
			}
		}
	}
}

// TestLaterStepFails: what of the tree was fetched is not fetched again by the
// next run, when a step after that failed.
func TestLaterStepFails(t *testing.T) {
	const path = "etc/long.txt"
	l := newLab(t)
	name := filepath.Join(l.ActiveHome, path)
	if err := os.WriteFile(name, bytes.Repeat([]byte("long"), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	connect, read := l.runner.Connect, map[string]int{}
	l.runner.Connect = func(ctx context.Context) (Active, error) {
		active, err := connect(ctx)
		return &reading{active, read}, err
	}
	stop := errors.New("enough")
	for range 2 {
		ctx, cancel := context.WithCancelCause(t.Context())
		l.at("stage", func() { cancel(stop) })
		if _, err := l.runner.Run(ctx, false); !errors.Is(err, stop) {
			t.Fatalf("the run ended with %v", err)
		}
		cancel(nil)
		if _, err := os.Lstat(filepath.Join(l.StandbyHome, path)); err == nil {
			t.Error("it was published")
		}
	}
	l.runner.Event = nil
	l.run()
	l.kept(true)
	if got, err := os.ReadFile(filepath.Join(l.StandbyHome, path)); err != nil || len(got) != 4000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if read[path] != 1 {
		t.Errorf("it was read %d times", read[path])
	}
}
