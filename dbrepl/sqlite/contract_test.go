package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/enginetest"
)

func TestContract(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			enginetest.Run(t, func(t testing.TB) enginetest.Fixture { return newFixture(t, mode) })
		})
	}
}

func newFixture(t testing.TB, mode string) enginetest.Fixture {
	t.Setenv("TMPDIR", t.TempDir())
	active, standby := filepath.Join(t.TempDir(), "app.db"), filepath.Join(t.TempDir(), "app.db")
	app, err := open(active, "mode=rwc&_pragma=journal_mode("+mode+")&_pragma=busy_timeout(5000)&_pragma=synchronous(OFF)")
	if err == nil {
		err = app.Ping()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	handler := NewSnapshotHandler([]string{filepath.Dir(active)})
	newEngine := func(t testing.TB) *Engine {
		e, err := New(Options{ActivePath: active, StandbyPath: standby, Snapshot: Local(handler),
			Clock: func(context.Context) (time.Duration, time.Duration, error) { return 0, 0, nil }})
		if err != nil {
			t.Fatal(err)
		}
		e.least = 0 // small as they are: what changed, where there is something before
		t.Cleanup(func() { e.Close() })
		return e
	}
	return enginetest.Fixture{
		Engine: newEngine(t),
		Active: func(t testing.TB, statement string) {
			if _, err := app.Exec(statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		},
		Standby: func(query string) ([]string, error) { return askStandby(standby, query) },
		Write: func(statement string) error {
			db, err := open(standby, "mode=rw")
			if err != nil {
				return err
			}
			_, err = db.Exec(statement)
			return errors.Join(err, db.Close())
		},
		Beside: func(t testing.TB) string { return filepath.Join(t.TempDir(), "beside.db") },
		Look:   askStandby,
		Open:   func(t testing.TB) dbrepl.Engine { return newEngine(t) },
		Crash: func(t testing.TB, n int) (dbrepl.Engine, func() bool) {
			e := newEngine(t)
			reached := false
			e.step = func(string) error {
				if n--; n > 0 {
					return nil
				}
				reached = true
				return errors.New("crash")
			}
			return e, func() bool { return reached }
		},
		Watched: func(t testing.TB, at func()) dbrepl.Engine {
			e := newEngine(t)
			e.step = func(string) error { at(); return nil }
			return e
		},
	}
}

func askStandby(path, query string) (lines []string, err error) {
	db, err := open(path, "mode=ro")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		values, texts := make([]any, len(columns)), make([]sql.NullString, len(columns))
		for i := range values {
			values[i] = &texts[i]
		}
		if err := rows.Scan(values...); err != nil {
			return nil, err
		}
		var line []string
		for _, t := range texts {
			line = append(line, t.String)
		}
		lines = append(lines, strings.Join(line, "|"))
	}
	return lines, rows.Err()
}
