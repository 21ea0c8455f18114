package sync

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/snapshot"
)

// Restorer is what the faulty engine passes on.
func (e *faultyEngine) Restore(ctx context.Context, dir string) (dbrepl.Captured, error) {
	c, err := e.Engine.(dbrepl.Restorer).Restore(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &faultyCapture{c, e}, nil
}

func (e *faultyEngine) RestoreAs(ctx context.Context, dir, name string) (dbrepl.Counts, error) {
	return e.Engine.(dbrepl.Restorer).RestoreAs(ctx, dir, name)
}

// restorable is a laboratory with two snapshots that are kept whole.
func restorable(t *testing.T) (l *lab, first, second snapshot.Record) {
	t.Helper()
	l = newLab(t)
	l.runner.KeepDumps = true
	l.runner.Retention = snapshot.Policy{KeepLast: 5}
	a := l.run()
	l.change()
	b := l.run()
	l.runner.Connect = func(context.Context) (Active, error) {
		t.Error("restore asked the active")
		return nil, errors.New("the active is lost")
	}
	return l, *a.Snapshot, *b.Snapshot
}

func TestRestore(t *testing.T) {
	l, first, second := restorable(t)
	if first.Databases[0].Dump == nil || first.Databases[0].Dump.Bytes == 0 {
		t.Fatalf("the record says nothing of a dump: %+v", first.Databases[0])
	}
	r, err := l.runner.Restore(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	s := r.Snapshot
	if !r.Published || r.Incomplete() || s.RestoredFrom != first.ID || !s.Time.Equal(first.Time) || s.BlobSets[0].Named != first.BlobSets[0].Named {
		t.Errorf("report: %+v, snapshot %+v", r, s)
	}
	l.kept(false)
	if v, err := l.runner.Verify(t.Context(), true); err != nil || v.Broken != 0 || v.Named != first.BlobSets[0].Named {
		t.Errorf("verify: %+v, %v", v, err)
	}
	if s.Databases[0].Position != first.Databases[0].Position {
		t.Errorf("position %q, want %q", s.Databases[0].Position, first.Databases[0].Position)
	}
	// The restored snapshot is one like any other: it can be restored again.
	if _, err := l.runner.Restore(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	l.kept(true)
	if _, err := l.runner.Restore(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	all, err := snapshot.Read(l.StandbyState)
	if err != nil || len(all) != 5 {
		t.Errorf("%d snapshots, %v", len(all), err)
	}
}

// TestRestoreFails: a restore whose publish fails is finished by whoever comes next.
func TestRestoreFails(t *testing.T) {
	l, first, second := restorable(t)
	l.engine.fail = errors.New("the server has gone away")
	if _, err := l.runner.Restore(t.Context(), first.ID); !errors.Is(err, l.engine.fail) {
		t.Fatal(err)
	}
	l.engine.fail = nil
	pending, err := PublishPending(l.StandbyState)
	if err != nil || pending == nil {
		t.Fatalf("pending: %v, %v", pending, err)
	}
	if id, err := l.runner.Recover(t.Context()); err != nil || id != pending.ID {
		t.Fatalf("recover: %q, %v", id, err)
	}
	all, err := snapshot.Read(l.StandbyState)
	if err != nil || all[0].RestoredFrom != first.ID || all[1].ID != second.ID {
		t.Errorf("snapshots: %+v, %v", all, err)
	}
	if v, err := l.runner.Verify(t.Context(), true); err != nil || v.Broken != 0 || v.Named != first.BlobSets[0].Named {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

// TestRestoreRefused: what cannot be restored leaves everything as it is.
func TestRestoreRefused(t *testing.T) {
	l, first, second := restorable(t)
	refused := func(id, why string) {
		t.Helper()
		if _, err := l.runner.Restore(t.Context(), id); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("restore %s: %v, want %q", id, err, why)
		}
		l.kept(false)
		all, err := snapshot.Read(l.StandbyState)
		if err != nil || len(all) != 2 || all[0].ID != second.ID {
			t.Errorf("snapshots: %v, %v", all, err)
		}
	}
	refused("20010101T000000Z", "there is no snapshot")
	refused("../"+first.ID, "there is no snapshot")
	chunk := filepath.Join(l.StandbyState, "snapshots", first.ID, "database", "0001.zst")
	content, err := os.ReadFile(chunk)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(chunk, content[:len(content)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	refused(first.ID, "damaged")
	lock := filepath.Join(l.StandbyHome, "var/data/artifactory/.lock")
	if err := os.MkdirAll(filepath.Dir(lock), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	refused(second.ID, "is running")
}

// TestExchangedDumps: the dump and the lists of another snapshot are whole, and
// are not taken for this one's, by nobody. Older records say nothing of them.
func TestExchangedDumps(t *testing.T) {
	l, first, second := restorable(t)
	at := func(r snapshot.Record, name string) string {
		return filepath.Join(l.StandbyState, "snapshots", r.ID, name)
	}
	exchange := func(name string) {
		t.Helper()
		if err := unix.Renameat2(unix.AT_FDCWD, at(first, name), unix.AT_FDCWD, at(second, name), unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
	}
	exchange("database")
	var last event.Event
	l.runner.Event = func(e event.Event) { last = e }
	if _, err := l.runner.Restore(t.Context(), first.ID); err == nil || !strings.Contains(err.Error(), "not the one that was kept with it") {
		t.Errorf("restore: %v", err)
	}
	if last.Kind != event.StepDone || last.Err == nil || last.Text != "" {
		t.Errorf("a step that failed says %q, %v", last.Text, last.Err)
	}
	if _, err := l.runner.RestoreAs(t.Context(), first.ID, filepath.Join(t.TempDir(), "beside.db")); err == nil || !strings.Contains(err.Error(), "not the one that was kept with it") {
		t.Errorf("restore beside: %v", err)
	}
	exchange("database")
	list := "refs-" + first.BlobSets[0].Name + ".zst"
	exchange(list)
	const why = "is not the one that was written with it"
	if _, err := l.runner.Restore(t.Context(), second.ID); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("restore: %v", err)
	}
	if _, err := l.runner.PruneOnly(t.Context(), true, nil); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("prune: %v", err)
	}
	exchange(list)
	l.kept(false)
	text, err := os.ReadFile(at(first, "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	older := regexp.MustCompile(`,\s*"(list|manifest)_sha256": "[0-9a-f]{64}"`).ReplaceAll(text, nil)
	if len(text)-len(older) < 2*64 {
		t.Fatalf("the record has no sums: %s", text)
	}
	if err := os.WriteFile(at(first, "record.json"), older, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := l.runner.Restore(t.Context(), first.ID); err != nil {
		t.Errorf("an older record: %v", err)
	}
}

// TestNoDump: without the option there is none, and restore says what to do.
func TestNoDump(t *testing.T) {
	l := newLab(t)
	id := l.run().Snapshot.ID
	_, err := l.runner.Restore(t.Context(), id)
	if err == nil || !strings.Contains(err.Error(), "no dump was kept") {
		t.Error(err)
	}
}

// TestMissingBlobOfRestored: a blob that is gone is counted and said.
func TestMissingBlobOfRestored(t *testing.T) {
	l, first, _ := restorable(t)
	snaps, err := snapshot.Open(l.StandbyState)
	if err != nil {
		t.Fatal(err)
	}
	for ref, err := range snaps.Refs(first.ID, first.BlobSets[0].Name) {
		if err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(l.StandbyHome, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == string(ref.Sum) {
				err = os.Remove(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	r, err := l.runner.Restore(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Incomplete() || r.Snapshot.BlobSets[0].Missing != 1 || len(r.Snapshot.Missing) != 1 {
		t.Errorf("report %+v", r.Snapshot)
	}
}
