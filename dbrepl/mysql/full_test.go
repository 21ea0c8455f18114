package mysql

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/room"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// fullLab is a lab whose standby's server keeps its data in little room.
type fullLab struct {
	*lab
	room  *testenv.Room
	dump  string // of a captured database with many rows
	shown string // how many rows the visible table has
}

const plenty = 512 << 20

// TestStandbyIsFull fills the disk of the standby's server in the middle of
// captures and restores.
func TestStandbyIsFull(t *testing.T) {
	t.Parallel()
	l := &fullLab{lab: startLab(t, mariaDB), shown: "100", dump: filepath.Join(t.TempDir(), "dump")}
	l.standby.Stop()
	l.room = testenv.LimitRoom(t, l.standby.Datadir, plenty, l.standby.Kill)
	l.standby.Start()
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, pad CHAR(250), KEY (pad)) ENGINE=InnoDB; INSERT INTO t SELECT seq, REPEAT('x', 250) FROM seq_1_to_100; CREATE VIEW v AS SELECT id FROM t")
	l.sync(t, l.engine(t))
	l.onActive(t, "INSERT INTO t SELECT seq, REPEAT(MD5(seq), 7) FROM seq_101_to_20000")
	c, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{Dump: l.dump})
	if err == nil {
		err = c.Discard(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, load := range map[string]func(e *Engine) error{
		"capture": func(e *Engine) error { _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); return err },
		"restore": func(e *Engine) error { _, err := e.Restore(t.Context(), l.dump); return err },
		"beside":  func(e *Engine) error { _, err := e.RestoreAs(t.Context(), l.dump, "beside"); return err },
	} {
		l.nearlyFull(t, name, load)
		l.full(t, name, load, 0)
		l.full(t, name, load, 8<<20)
	}
	l.fullInPublish(t)
	l.sync(t, l.engine(t))
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM t"); got[0] != "20000" {
		t.Errorf("with room again the standby has %s rows", got)
	}
	if _, err := l.engine(t).RestoreAs(t.Context(), l.dump, "beside"); err != nil {
		t.Error(err)
	}
}

// nearlyFull takes the room away while rows flow, and waits until the engine
// has seen it.
func (l *fullLab) nearlyFull(t *testing.T, name string, load func(e *Engine) error) {
	t.Helper()
	e := l.engine(t)
	var taken atomic.Bool
	seen := make(chan struct{}, 1)
	e.free = func(dir string) (int64, bool) {
		was := taken.Load()
		n, ok := room.Free(dir)
		if was {
			select {
			case seen <- struct{}{}:
			default:
			}
		}
		return n, ok
	}
	e.during = func(table string) {
		if table != "" && !taken.Load() {
			l.room.Leave(room.Reserve - 1<<20)
			taken.Store(true)
			<-seen
		}
	}
	err := load(e)
	if !errors.Is(err, room.ErrShort) {
		t.Errorf("%s on a nearly full disk: %v", name, err)
	}
	l.unchanged(t, name, err)
}

// full takes all room but some away, where drsync cannot see it: the server
// says so, or ends.
func (l *fullLab) full(t *testing.T, name string, load func(e *Engine) error, leave int64) {
	t.Helper()
	e := l.engine(t)
	e.free = func(string) (int64, bool) { return 0, false }
	taken := false
	e.during = func(table string) {
		if taken = taken || table != ""; taken {
			e.during = nil
			l.room.Leave(leave)
		}
	}
	err := load(e)
	if err == nil {
		t.Fatalf("%s: a load into no room went well", name)
	}
	if _, alive := query(l.standby.DB(t, ""), "SELECT 1"); alive != nil {
		t.Logf("%s: the server did not survive %d bytes: %v", name, leave, err)
		l.standby.Kill()
		l.room.Leave(plenty)
		l.standby.Start()
	} else if !isServerError(err) || !strings.Contains(hint.Of(err), "make room") {
		t.Errorf("%s with %d bytes: %v (%s)", name, leave, err, hint.Of(err))
	}
	l.unchanged(t, name, err)
}

func (l *fullLab) unchanged(t *testing.T, name string, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: more than one line: %v", name, err)
	}
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM t"); got[0] != l.shown {
		t.Errorf("%s: the standby shows %s rows, want %s", name, got, l.shown)
	}
	l.room.Leave(plenty)
	if err := l.engine(t).Recover(t.Context(), nil); err != nil {
		t.Errorf("%s: recover: %v", name, err)
	}
	if got := l.mustStandbySchemas(t); slices.Contains(got, l.name+newSuffix) || slices.Contains(got, "beside") {
		t.Errorf("%s leaves %s", name, got)
	}
}

// fullInPublish has no room for a publish at each of its statements.
func (l *fullLab) fullInPublish(t *testing.T) {
	t.Helper()
	for n := 1; ; n++ {
		e := l.engine(t)
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		e.before = func(string) error {
			if seen++; seen == n {
				l.room.Leave(0)
			}
			return nil
		}
		err = c.Publish(t.Context())
		if seen < n {
			return
		}
		if err != nil && (strings.Contains(err.Error(), "\n") || !strings.Contains(hint.Of(err), "make room")) {
			t.Errorf("statement %d: %v (%s)", n, err, hint.Of(err))
		}
		if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM t")[0]; got != l.shown && got != "20000" {
			t.Errorf("statement %d: the standby shows %s rows", n, got)
		}
		l.room.Leave(plenty)
		if err := l.engine(t).Recover(t.Context(), c.Token()); err != nil {
			t.Errorf("statement %d: recover: %v", n, err)
		}
		l.shown = "20000"
		if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM v")[0]; got != l.shown {
			t.Errorf("statement %d: after recovery the standby shows %s rows", n, got)
		}
	}
}
