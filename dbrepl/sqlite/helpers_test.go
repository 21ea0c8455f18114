package sqlite

import (
	"context"
	"crypto/sha1"
	"database/sql"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
)

const refsQuery = "SELECT sha1, bin_length FROM binaries WHERE sha1 NOT LIKE '##%';"

// lab is an active's database with the application's connection open, and an empty standby.
type lab struct {
	t               *testing.T
	active, standby string
	app             *sql.DB
	handler         func(context.Context, string, io.Writer) error
}

func newLab(t *testing.T, journalMode string, rows int) *lab {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	l := &lab{t: t, active: filepath.Join(t.TempDir(), "app.db"), standby: filepath.Join(t.TempDir(), "app.db")}
	l.handler = NewSnapshotHandler([]string{filepath.Dir(l.active)})
	l.app = openApp(t, l.active, journalMode)
	l.exec("CREATE TABLE binaries (sha1 CHAR(40) PRIMARY KEY COLLATE NOCASE, bin_length BIGINT)")
	l.exec("CREATE TABLE nodes (repo TEXT, node_path TEXT, node_name TEXT, sha1_actual TEXT)")
	l.add(0, rows)
	return l
}

func openApp(t *testing.T, path, journalMode string) *sql.DB {
	t.Helper()
	db, err := open(path, "mode=rwc&_pragma=journal_mode("+journalMode+")&_pragma=busy_timeout(5000)&_pragma=synchronous(OFF)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	return db
}

func (l *lab) exec(query string, args ...any) {
	l.t.Helper()
	if _, err := l.app.Exec(query, args...); err != nil {
		l.t.Fatalf("%s: %v", query, err)
	}
}

func sumOf(i int) blob.Sum { s := sha1.Sum(fmt.Append(nil, i)); return blob.Of(s[:]) }

// add inserts blobs from..to-1.
func (l *lab) add(from, to int) {
	l.t.Helper()
	tx, err := l.app.Begin()
	if err != nil {
		l.t.Fatal(err)
	}
	for i := from; i < to; i++ {
		if _, err := tx.Exec("INSERT INTO binaries VALUES (?, ?)", string(sumOf(i)), i); err != nil {
			l.t.Fatal(err)
		}
		if _, err := tx.Exec("INSERT INTO nodes VALUES ('libs', 'a/b', ?, ?)", fmt.Sprintf("f%d.jar", i), string(sumOf(i))); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) options() Options {
	return Options{
		ActivePath: l.active, StandbyPath: l.standby, Snapshot: Local(l.handler),
		Clock: func(context.Context) (time.Duration, time.Duration, error) { return time.Second, time.Millisecond, nil },
	}
}

func (l *lab) engine() *Engine {
	l.t.Helper()
	e, err := New(l.options())
	if err != nil {
		l.t.Fatal(err)
	}
	e.least = 0 // small as the tests' databases are, what changed is fetched
	return e
}

func (l *lab) capture(e *Engine) *captured {
	l.t.Helper()
	c, err := e.Capture(l.t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c.(*captured)
}

func (l *lab) publish(e *Engine) {
	l.t.Helper()
	if err := l.capture(e).Publish(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// expect says which blobs rows 0..n-1 are, in the order Refs promises.
func expect(n int) []blob.Ref {
	var all []blob.Ref
	for i := range n {
		all = append(all, blob.Ref{Sum: sumOf(i), Size: int64(i)})
	}
	slices.SortFunc(all, func(a, b blob.Ref) int {
		switch {
		case a.Sum < b.Sum:
			return -1
		case a.Sum > b.Sum:
			return 1
		}
		return 0
	})
	return all
}

func refsOf(t *testing.T, v dbrepl.View) []blob.Ref {
	t.Helper()
	var all []blob.Ref
	for r, err := range v.Refs(t.Context(), refsQuery) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// wantVisible asserts that the visible database is whole and has the first n rows.
func wantVisible(t *testing.T, e *Engine, n int) {
	t.Helper()
	v, err := e.Visible(t.Context())
	if err != nil {
		t.Fatalf("visible: %v", err)
	}
	defer v.Close()
	if err := v.(*view).quickCheck(t.Context()); err != nil {
		t.Fatalf("visible database: %v", err)
	}
	if got := refsOf(t, v); !slices.Equal(got, expect(n)) {
		t.Fatalf("visible database names %d blobs, want the first %d", len(got), n)
	}
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%s holds %q, want %q", dir, got, want)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
