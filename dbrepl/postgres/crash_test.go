package postgres

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/dump"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// TestServerKilled kills the standby's server at every statement of a publish,
// before it and right after it, and the server that captures load into.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.onActive(t, "CREATE TABLE a (n int); CREATE TABLE b (n int); INSERT INTO a VALUES (0); INSERT INTO b VALUES (0)")
	visible := func() string {
		t.Helper()
		rows, err := l.standby.Query(l.name, "SELECT a.n, b.n FROM a, b")
		if err != nil {
			return err.Error()
		}
		return strings.Join(rows, " ")
	}
	n := 0
	generation := func() (dbrepl.Captured, *Engine) {
		t.Helper()
		n++
		l.onActive(t, fmt.Sprintf("UPDATE a SET n = %d; UPDATE b SET n = %d", n, n))
		e := l.engine(t)
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		must(t, err)
		return c, e
	}
	c, _ := generation()
	must(t, c.Publish(t.Context()))
	c, _ = generation()
	must(t, c.Publish(t.Context())) // from now on there is one to drop
	for at := 1; ; at++ {
		old := fmt.Sprintf("%d|%d", n, n)
		c, e := generation()
		seen := 0
		e.before = func(statement string) error {
			if seen++; seen == at {
				l.standby.Kill()
			}
			return nil
		}
		err := c.Publish(t.Context())
		if seen < at {
			must(t, err)
			if at < 4 {
				t.Errorf("a publish has only %d statements", at-1)
			}
			break
		}
		if err == nil {
			t.Errorf("statement %d: no error", at)
		}
		l.standby.Start()
		if got := visible(); got != old {
			t.Errorf("statement %d: the standby shows %q, want %q", at, got, old)
		}
		l.active.Stop() // a publish that had begun is finished without it
		must(t, l.engine(t).Recover(t.Context(), c.Token()))
		l.active.Start()
		if got, want := visible(), fmt.Sprintf("%d|%d", n, n); got != want {
			t.Errorf("statement %d: after recovery the standby shows %q, want %q", at, got, want)
		}
	}
	// Killed right after the commit, before anybody heard of it.
	c, e := generation()
	must(t, c.Publish(t.Context()))
	l.standby.Kill()
	l.standby.Start()
	must(t, e.Recover(t.Context(), c.Token()))
	// Killed while a capture loads.
	old := visible()
	e.during = func(what string) {
		if what == "load" {
			l.standby.Kill()
		}
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || strings.Contains(err.Error(), "\n") && !strings.Contains(err.Error(), "connect to") {
		t.Errorf("%v", err)
	}
	l.standby.Start()
	if got := visible(); got != old {
		t.Errorf("the standby shows %q, want %q", got, old)
	}
	e.during = nil
	must(t, e.Recover(t.Context(), nil))
	l.nothingLeft(t)
	l.sync(t, e)
}

// captureGone drops a capture whose publish was to begin.
func captureGone(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int)")
	e := l.engine(t)
	l.sync(t, e)
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	must(t, err)
	must(t, l.engine(t).Recover(t.Context(), nil))
	if err := e.Recover(t.Context(), c.Token()); !errors.Is(err, dbrepl.ErrCaptureGone) || hint.Of(err) == "" {
		t.Errorf("%v", err)
	}
	if _, err := e.Visible(t.Context()); err != nil {
		t.Errorf("the visible database: %v", err)
	}
}

// publishNamesWhoIsInTheWay has somebody connected to the visible database.
func publishNamesWhoIsInTheWay(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int)")
	e := l.engine(t)
	l.sync(t, e)
	somebody, err := l.standby.Conn(t.Context(), l.name)
	must(t, err)
	defer somebody.Close(context.Background())
	_, err = somebody.Exec(t.Context(), "SET application_name = 'artifactory'")
	must(t, err)
	l.onActive(t, "INSERT INTO t VALUES (1)")
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	must(t, err)
	err = c.Publish(t.Context())
	if err == nil || !strings.Contains(err.Error(), "of postgres (artifactory") || !strings.Contains(hint.Of(err), "stop the application") {
		t.Errorf("%v", err)
	}
	var n int
	must(t, somebody.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n))
	if n != 0 {
		t.Errorf("the visible database has %d rows", n)
	}
	somebody.Close(context.Background())
	must(t, e.Recover(t.Context(), c.Token()))
	if rows := l.mustQuery(t, l.standby, "SELECT n FROM t"); len(rows) != 1 {
		t.Errorf("%q", rows)
	}
}

// promotionOpensTheDatabase shows that a published database is read only until
// it is promoted, and has then the setting that the active's has.
func promotionOpensTheDatabase(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int)")
	for _, setting := range []string{"", "off", "on"} {
		if setting != "" {
			l.active.Exec(t, "postgres", "ALTER DATABASE "+l.name+" SET default_transaction_read_only = "+setting)
		}
		e := l.engine(t)
		l.sync(t, e)
		if _, err := l.standby.Query(l.name, "INSERT INTO t VALUES (1)"); err == nil {
			t.Errorf("%q: a database that was not promoted took a row", setting)
		}
		_, err := e.Promote(t.Context())
		must(t, err)
		rows, err := l.standby.Query("postgres", "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = '"+l.name+"'")
		must(t, err)
		if want := map[string]string{"": "", "off": "{default_transaction_read_only=off}", "on": "{default_transaction_read_only=on}"}[setting]; strings.Join(rows, " ") != want {
			t.Errorf("%q: settings are %q, want %q", setting, rows, want)
		}
	}
}

// foreignDatabaseIsPutAside meets a database of the same name that drsync did not make.
func foreignDatabaseIsPutAside(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int)")
	l.standby.Exec(t, "postgres", "CREATE DATABASE "+l.name)
	l.standby.Exec(t, l.name, "CREATE TABLE precious (n int)")
	e := l.engine(t)
	if _, err := e.Visible(t.Context()); !errors.Is(err, dbrepl.ErrNoDatabase) {
		t.Errorf("%v", err)
	}
	findings, err := e.Check(t.Context())
	must(t, err)
	wantFinding(t, findings, false, "drsync did not make it")
	l.sync(t, e)
	if rows, err := l.standby.Query(l.name+prevSuffix, "SELECT count(*) FROM precious"); err != nil || rows[0] != "0" {
		t.Errorf("%q, %v", rows, err)
	}
}

func wantFinding(t testing.TB, findings []dbrepl.Finding, fatal bool, text string) {
	t.Helper()
	for _, f := range findings {
		if f.Fatal == fatal && strings.Contains(f.Problem, text) && (f.Fix != "" || !fatal) && !strings.Contains(f.Problem, "\n") {
			return
		}
	}
	t.Errorf("no finding (fatal: %v) says %q: %+v", fatal, text, findings)
}

// TestKeptDumpsNeedNoActive restores onto a server that never saw the active.
func TestKeptDumpsNeedNoActive(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.active.Exec(t, "postgres", "CREATE ROLE arty")
	l.onActive(t, hostileTable+"; ALTER TABLE hostile OWNER TO arty")
	for _, s := range hostileRows {
		l.onActive(t, s)
	}
	l.standby.Exec(t, "postgres", "CREATE ROLE arty")
	dir := filepath.Join(t.TempDir(), "dump")
	e := l.engine(t)
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Dump: dir, Verify: true})
	must(t, err)
	must(t, c.Discard(t.Context()))
	m, err := dump.Check(t.Context(), dir)
	must(t, err)
	if m.Rows() != c.Counts().Rows {
		t.Errorf("%d rows, captured were %d", m.Rows(), c.Counts().Rows)
	}
	l.onActive(t, "SELECT 1")
	want := everything(t, l.active, l.name)
	definition := definitions(t, l.active, l.name)
	l.active.Stop()
	elsewhere := testenv.Postgres(t)
	away := l.engine(t, func(o *Options) { o.Standby.Address = elsewhere.Socket })
	if _, err := away.Restore(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no role arty") {
		t.Errorf("without the role: %v", err)
	}
	elsewhere.Exec(t, "postgres", "CREATE ROLE arty")
	r, err := away.Restore(t.Context(), dir)
	must(t, err)
	must(t, r.Publish(t.Context()))
	if got := everything(t, elsewhere, l.name); got != want {
		t.Errorf("the rows differ:\n%s", firstDifference(want, got))
	}
	if got := definitions(t, elsewhere, l.name); got != definition {
		t.Errorf("the definitions differ:\n%s", firstDifference(definition, got))
	}
	if r.Point() != c.Point() {
		t.Errorf("%+v, was %+v", r.Point(), c.Point())
	}
	// A database that cannot be filled is not left.
	elsewhere.Exec(t, "postgres", "DROP DATABASE "+l.name+"; ")
	elsewhere.Exec(t, "postgres", "DROP ROLE arty")
	if _, err := away.RestoreAs(t.Context(), dir, "other"); err == nil {
		t.Error("restored without the role")
	}
	if rows, err := elsewhere.Query("postgres", "SELECT datname FROM pg_database WHERE datname = 'other'"); err != nil || len(rows) > 0 {
		t.Errorf("%q, %v", rows, err)
	}
	// One that is cut short in the middle has not got the name, and the next takes its place.
	elsewhere.Exec(t, "postgres", "CREATE ROLE arty")
	looks := 0
	away.free = func(string) (int64, bool) {
		if looks++; looks == 1 {
			elsewhere.Kill()
		}
		return plenty, true
	}
	if _, err := away.RestoreAs(t.Context(), dir, "other"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("restored without a server: %v", err)
	}
	elsewhere.Start()
	rows, err := elsewhere.Query("postgres", "SELECT datname FROM pg_database WHERE datname IN ('other', '"+away.draftName()+"')")
	if err != nil || strings.Join(rows, " ") != away.draftName() {
		t.Errorf("%q, %v", rows, err)
	}
	if n, err := away.RestoreAs(t.Context(), dir, "other"); err != nil || n.Rows != m.Rows() {
		t.Errorf("%+v, %v, want %d rows", n, err, m.Rows())
	}
	if got := everything(t, elsewhere, "other"); got != want {
		t.Errorf("the rows differ:\n%s", firstDifference(want, got))
	}
	if rows, err := elsewhere.Query("postgres", "SELECT datname FROM pg_database WHERE datname = '"+away.draftName()+"'"); err != nil || rows != nil {
		t.Errorf("%q, %v", rows, err)
	}
}
