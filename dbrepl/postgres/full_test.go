package postgres

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/room"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

const plenty = 512 << 20

// fullLab is a lab whose standby's server keeps its data in little room.
type fullLab struct {
	*lab
	room *testenv.Room
	dump string // of a database with many rows
}

// TestStandbyIsFull fills the disk of the standby's server in the middle of
// captures and restores.
func TestStandbyIsFull(t *testing.T) {
	t.Parallel()
	l := &fullLab{lab: startLab(t), dump: filepath.Join(t.TempDir(), "dump")}
	l.standby.Stop()
	l.room = testenv.LimitRoom(t, l.standby.Datadir, plenty, l.standby.Kill)
	l.standby.Start()
	l.onActive(t, "CREATE TABLE t (id int PRIMARY KEY, pad text); INSERT INTO t SELECT g, repeat('x', 250) FROM generate_series(1, 100) g; CREATE INDEX ON t (pad)")
	l.sync(t, l.engine(t))
	l.onActive(t, "INSERT INTO t SELECT g, repeat(md5(g::text), 30) FROM generate_series(101, 60000) g")
	c, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{Dump: l.dump})
	must(t, err)
	must(t, c.Discard(t.Context()))
	for name, load := range map[string]func(e *Engine) error{
		"capture": func(e *Engine) error { _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); return err },
		"restore": func(e *Engine) error { _, err := e.Restore(t.Context(), l.dump); return err },
		"beside":  func(e *Engine) error { _, err := e.RestoreAs(t.Context(), l.dump, "beside"); return err },
	} {
		l.nearlyFull(t, name, load)
		l.full(t, name, load, 0)
		l.full(t, name, load, 4<<20)
	}
	l.sync(t, l.engine(t))
	if got := l.mustQuery(t, l.standby, "SELECT count(*) FROM t"); got[0] != "60000" {
		t.Errorf("with room again the standby has %s rows", got)
	}
	_, err = l.engine(t).RestoreAs(t.Context(), l.dump, "beside")
	must(t, err)
}

// scratchIsFull has the active dump into a full directory.
func scratchIsFull(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id int PRIMARY KEY, pad text); INSERT INTO t VALUES (1, 'x')")
	l.sync(t, l.engine(t))
	l.onActive(t, "INSERT INTO t SELECT g, repeat(md5(g::text), 8) FROM generate_series(2, 20000) g")
	in := filepath.Dir(l.scratch)
	small := testenv.LimitRoom(t, in, plenty, func() {})
	for _, kept := range []string{"", filepath.Join(in, "kept")} {
		e := l.engine(t)
		e.during = func(what string) {
			if what == "snapshot" {
				small.Leave(100 << 10)
			}
		}
		_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Dump: kept})
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "No space left") || !strings.Contains(hint.Of(err), "make room in "+l.scratch) {
			t.Errorf("%v (%s)", err, hint.Of(err))
		}
		if _, err := os.Lstat(kept); kept != "" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a dump is left: %v", err)
		}
		if rows := l.mustQuery(t, l.standby, "SELECT count(*) FROM t"); rows[0] != "1" {
			t.Errorf("the standby shows %q rows", rows)
		}
		l.nothingLeft(t)
		small.Leave(plenty)
	}
	l.sync(t, l.engine(t))
	l.sameDatabases(t)
}

// nearlyFull takes the room away while drsync looks on.
func (l *fullLab) nearlyFull(t *testing.T, name string, load func(e *Engine) error) {
	t.Helper()
	e := l.engine(t)
	var looks atomic.Int64
	loading := false
	e.free = func(dir string) (int64, bool) {
		if rows, _ := l.standby.Query("postgres", "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY %'"); !loading && rows != nil {
			loading = true
			l.room.Leave(room.Reserve - 1<<20)
		}
		looks.Add(1)
		return room.Free(dir)
	}
	err := load(e)
	if !errors.Is(err, room.ErrShort) {
		t.Errorf("%s on a nearly full disk, looked at %d times: %v", name, looks.Load(), err)
	}
	l.unchanged(t, name, err)
}

// full takes all room but some away, where drsync cannot see it: the server
// says so, or ends.
func (l *fullLab) full(t *testing.T, name string, load func(e *Engine) error, leave int64) {
	t.Helper()
	e := l.engine(t)
	looks := 0
	e.free = func(string) (int64, bool) {
		if looks++; looks == 2 || name != "capture" { // a capture has checked before
			l.room.Leave(leave)
			return 0, false
		}
		return plenty, true
	}
	err := load(e)
	if err == nil {
		t.Fatalf("%s: a load into no room went well", name)
	}
	if _, alive := l.standby.Query("postgres", "SELECT 1"); alive != nil {
		t.Logf("%s: with %d bytes the server takes no more sessions: %v", name, leave, err)
		l.standby.Kill()
		l.room.Leave(plenty)
		l.standby.Start()
	} else if !strings.Contains(hint.Of(err), "make room") {
		t.Errorf("%s with %d bytes: %v (%s)", name, leave, err, hint.Of(err))
	}
	l.unchanged(t, name, err)
}

func (l *fullLab) unchanged(t *testing.T, name string, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: more than one line: %v", name, err)
	}
	if got := l.mustQuery(t, l.standby, "SELECT count(*) FROM t"); got[0] != "100" {
		t.Errorf("%s: the standby shows %s rows", name, got)
	}
	l.room.Leave(plenty)
	must(t, l.engine(t).Recover(t.Context(), nil))
	rows, err := l.standby.Query("postgres", "SELECT datname FROM pg_database WHERE datname IN ('beside', '"+l.name+newSuffix+"', '"+l.name+draftSuffix+"')")
	if err != nil || rows != nil {
		t.Errorf("%s leaves %q, %v", name, rows, err)
	}
}
