package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// bank keeps moving money between accounts of two tables until stop.
func bank(t *testing.T, l *lab) (stop func() (transfers int)) {
	t.Helper()
	l.onActive(t, `CREATE TABLE a (id int PRIMARY KEY, n bigint); CREATE TABLE b (id int PRIMARY KEY, n bigint); CREATE TABLE log (n bigserial, x text);
		INSERT INTO a SELECT g, 1000 FROM generate_series(1, 100) g; INSERT INTO b SELECT g, 1000 FROM generate_series(1, 100) g`)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	counts := make([]int, 3)
	for w := range counts {
		c, err := l.active.Conn(ctx, l.name)
		if err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			defer c.Close(context.Background())
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for ctx.Err() == nil {
				from, to, much := random.IntN(100)+1, random.IntN(100)+1, random.IntN(50)
				_, err := c.PgConn().Exec(context.Background(), fmt.Sprintf("BEGIN; UPDATE a SET n = n - %d WHERE id = %d; INSERT INTO log (x) VALUES ('t'); UPDATE b SET n = n + %d WHERE id = %d; COMMIT", much, from, much, to)).ReadAll()
				if err != nil {
					t.Errorf("transfer: %v", err)
					return
				}
				counts[w]++
			}
		})
	}
	return func() (n int) {
		cancel()
		writers.Wait()
		for _, k := range counts {
			n += k
		}
		return n
	}
}

// sumsAreExact captures several times while the bank works.
func sumsAreExact(t *testing.T, l *lab) {
	stop := bank(t, l)
	e := l.engine(t)
	last := ""
	for i := range 4 {
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: i%2 == 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		rows := l.mustQuery(t, l.standby, "SELECT (SELECT sum(n) FROM a) + (SELECT sum(n) FROM b), (SELECT sum(n) FROM b) - 100000, (SELECT count(*) FROM log), (SELECT max(n) FROM log) <= (SELECT last_value FROM log_n_seq)")
		if !strings.HasPrefix(rows[0], "200000|") || !strings.HasSuffix(rows[0], "|t") {
			t.Fatalf("the standby has %q", rows)
		}
		if rows[0] == last {
			t.Error("the bank did not work")
		}
		last = rows[0]
	}
	if n := stop(); n < 20 {
		t.Errorf("only %d transfers", n)
	}
}

// theTimeIsBeforeTheSnapshot shows that whatever was committed before T is in
// the snapshot: a row holds the time at which it was committed at the latest.
func theTimeIsBeforeTheSnapshot(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE ticks (at timestamptz)")
	e := l.engine(t)
	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	var after []time.Time // times right after each commit
	writer.Go(func() {
		c, err := l.active.Conn(context.Background(), l.name)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(context.Background())
		for ctx.Err() == nil {
			if _, err := c.Exec(context.Background(), "INSERT INTO ticks VALUES (clock_timestamp())"); err != nil {
				t.Error(err)
				return
			}
			var at time.Time
			if err := c.QueryRow(context.Background(), "SELECT clock_timestamp()").Scan(&at); err != nil {
				t.Error(err)
				return
			}
			after = append(after, at)
		}
	})
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	cancel()
	writer.Wait()
	if err != nil {
		t.Fatal(err)
	}
	committed := 0
	for _, at := range after {
		if at.Before(c.Point().Time) {
			committed++
		}
	}
	if rows := c.Counts().Rows; rows < int64(committed) || rows > int64(committed)+20 {
		t.Errorf("%d rows, %d were committed before T", rows, committed)
	}
	if err := c.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// whatIsNotTheSameStopsTheCapture alters the dump between the two sides.
func whatIsNotTheSameStopsTheCapture(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t SELECT g, 'value' FROM generate_series(1, 100) g")
	e := l.engine(t)
	alter := func(from, to string) {
		e.during = func(what string) {
			if what != "load" {
				return
			}
			files, err := filepath.Glob(filepath.Join(e.dumpDir(), "*.dat"))
			if err != nil || len(files) == 0 {
				t.Fatalf("%q, %v", files, err)
			}
			for _, f := range files {
				content, err := os.ReadFile(f)
				if err == nil {
					err = os.WriteFile(f, bytes.Replace(content, []byte(from), []byte(to), 1), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	want := func(o dbrepl.CaptureOptions, text string) {
		t.Helper()
		c, err := e.Capture(t.Context(), o)
		if err == nil {
			c.Close()
			t.Fatal("it was not noticed")
		}
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v", err)
		}
		l.nothingLeft(t)
	}
	alter("50\tvalue\n", "")
	want(dbrepl.CaptureOptions{}, "public.t has 100 rows on the active and 99 on the standby")
	alter("50\tvalue\n", "50\tvakue\n")
	want(dbrepl.CaptureOptions{Verify: true}, "public.t has other contents")
	alter("50\tvalue\n", "x\tvalue\n")
	want(dbrepl.CaptureOptions{}, "invalid input syntax for type integer")
	e.during = func(what string) {
		if what == "load" {
			must(t, os.Truncate(filepath.Join(e.dumpDir(), "toc.dat"), 100))
		}
	}
	kept := filepath.Join(t.TempDir(), "dump")
	want(dbrepl.CaptureOptions{Dump: kept}, "pg_restore: ")
	if _, err := os.Stat(kept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dump is left: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// nothingLeft says that a capture that failed has left nothing on the standby.
func (l *lab) nothingLeft(t testing.TB) {
	t.Helper()
	rows, err := l.standby.Query("postgres", "SELECT datname FROM pg_database WHERE datname = '"+l.name+newSuffix+"'")
	if err != nil || len(rows) > 0 {
		t.Errorf("left: %q, %v", rows, err)
	}
	if _, err := os.Stat(l.scratch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scratch directory is left: %v", err)
	}
	if left, err := os.ReadDir(l.private); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// compareNamesTheTable changes one of several tables of the standby.
func compareNamesTheTable(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t VALUES (1, 'a'), (2, 'b'); CREATE TABLE u (n int); CREATE TABLE v (n int)")
	e := l.engine(t)
	l.sync(t, e)
	l.standby.Exec(t, l.name, "SET default_transaction_read_only = off; BEGIN READ WRITE; UPDATE t SET x = CASE x WHEN 'a' THEN 'b' ELSE 'a' END; DROP TABLE u; CREATE TABLE w (n int); COMMIT")
	l.onActive(t, "INSERT INTO v VALUES (5)")
	c, err := e.Compare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range c.Differences {
		names = append(names, fmt.Sprintf("%s %d %d %s", d.Table, d.Active, d.Standby, d.Text))
	}
	want := []string{"public.t 2 2 ", "public.u 0 0 the standby lacks the table", "public.v 1 0 ", "public.w 0 0 only the standby has the table"}
	if !slices.Equal(names, want) || c.Different != 4 || c.Tables != 3 || c.Rows != 3 || c.Active.Time.IsZero() {
		t.Errorf("%+v", c)
	}
}

// captureMakesWay has somebody wait for the capture with what no lock lets
// through: it begins anew, and is of the database as it is then.
func captureMakesWay(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int); INSERT INTO t VALUES (1); CREATE TABLE u (n int); CREATE INDEX i ON t (n)")
	for _, statement := range []string{"ALTER TABLE t ADD COLUMN x int", "TRUNCATE t", "TRUNCATE t, u", "DROP INDEX i", "ALTER TABLE t RENAME TO v", "DROP TABLE v"} {
		warnings, adjust := collect()
		e := l.engine(t, adjust, func(o *Options) { o.Lock = 200 * time.Millisecond })
		altered := make(chan error, 1)
		times := 0
		e.during = func(what string) {
			if what != "snapshot" {
				return
			}
			if times++; times > 1 {
				return
			}
			// A dump that takes long: a table that its session has to wait for.
			blocker, err := l.active.Conn(t.Context(), l.name)
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				defer blocker.Close(context.Background())
				_, err := blocker.Exec(context.Background(), statement)
				altered <- err
			}()
			for {
				rows, err := l.active.Query(l.name, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = '"+statement+"'")
				if err != nil || len(rows) > 0 {
					break
				}
			}
		}
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-altered; err != nil {
			t.Fatal(err)
		}
		if times != 2 {
			t.Errorf("%s: %d snapshots", statement, times)
		}
		select {
		case w := <-warnings:
			if !strings.Contains(w, "the capture begins anew") {
				t.Error(w)
			}
		default:
			t.Errorf("%s: no warning", statement)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.sameDatabases(t)
	}
}

// definitionsThatChange alters what no lock protects, before the tables are
// locked and between the snapshot and the dump.
func definitionsThatChange(t *testing.T, l *lab) {
	l.onActive(t, `CREATE TABLE t (n int); INSERT INTO t VALUES (1); CREATE TABLE u (n int); INSERT INTO u VALUES (1); CREATE TABLE p (n int) PARTITION BY LIST (n);
		CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); INSERT INTO p VALUES (1); CREATE SCHEMA s; CREATE TABLE s.t (n int); INSERT INTO s.t VALUES (7);
		CREATE VIEW v AS SELECT n FROM t; CREATE VIEW s.w AS SELECT n AS m FROM t; CREATE MATERIALIZED VIEW mv AS SELECT n FROM t;
		CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SEQUENCE sq; CREATE SEQUENCE sr;
		CREATE TYPE e AS ENUM ('a'); CREATE DOMAIN d AS int`)
	for _, c := range []struct {
		at, statement string
		snapshots     int
	}{
		{"tables", "CREATE TABLE new (n int); INSERT INTO new VALUES (1)", 2},
		{"tables", "DROP TABLE new", 2},
		{"tables", "ALTER TABLE u RENAME TO uu", 2},
		{"tables", "ALTER SCHEMA s RENAME TO ss", 2},
		{"tables", "TRUNCATE t", 1},
		{"tables", "ALTER TABLE t ADD COLUMN x int DEFAULT 5; INSERT INTO t VALUES (2)", 1},
		{"snapshot", "CREATE OR REPLACE VIEW v AS SELECT n + 1 AS n FROM t", 2},
		{"snapshot", "ALTER VIEW ss.w RENAME COLUMN m TO k", 2},
		{"snapshot", "ALTER VIEW v RENAME TO vv", 2},
		{"snapshot", "DROP VIEW vv", 2},
		{"snapshot", "ALTER SCHEMA ss RENAME TO s", 2},
		{"snapshot", "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'", 2},
		{"snapshot", "DROP FUNCTION g()", 2},
		{"snapshot", "ALTER SEQUENCE sq INCREMENT 3", 2},
		{"snapshot", "DROP SEQUENCE sr", 2},
		{"snapshot", "ALTER TYPE e RENAME VALUE 'a' TO 'b'; ALTER TYPE e RENAME TO ee", 2},
		{"snapshot", "DROP DOMAIN d", 2},
		{"snapshot", "DROP MATERIALIZED VIEW mv", 2},
		{"snapshot", "GRANT SELECT ON s.w TO PUBLIC", 2},
	} {
		_, adjust := collect()
		e := l.engine(t, adjust)
		times := 0
		e.during = func(what string) {
			if what == "snapshot" {
				times++
			}
			if what == c.at && times <= 1 && c.statement != "" {
				l.onActive(t, c.statement)
				c.statement = ""
			}
		}
		name := c.at + ": " + c.statement
		captured, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.at == "tables" && c.snapshots == 2 {
			times++ // the first attempt has come to none
		}
		if times != c.snapshots {
			t.Errorf("%s: %d snapshots, want %d", name, times, c.snapshots)
		}
		must(t, captured.Publish(t.Context()))
		l.sameDatabases(t)
		if t.Failed() {
			t.Fatalf("after %s", name)
		}
	}
	// What comes after the snapshot is not part of it, and what only looks like a change is none.
	l.onActive(t, "CREATE MATERIALIZED VIEW mv AS SELECT n FROM t")
	e := l.engine(t)
	e.during = func(what string) {
		if what == "snapshot" {
			l.onActive(t, "REFRESH MATERIALIZED VIEW mv; SELECT nextval('sq'); CREATE TABLE later (n int); CREATE VIEW later_view AS SELECT 1; INSERT INTO t VALUES (9); ANALYZE; CREATE INDEX ON t (n)")
		}
	}
	before := definitions(t, l.active, l.name)
	l.sync(t, e)
	if got := definitions(t, l.standby, l.name); got != before {
		t.Errorf("%s", firstDifference(before, got))
	}
	// One that never rests.
	e.during = func(what string) {
		if what == "snapshot" {
			l.onActive(t, "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT "+fmt.Sprint(time.Now().UnixNano()%1e9)+"'")
		}
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); !errors.Is(err, errChanged) || !strings.Contains(err.Error(), "f(), each of 3 times") || strings.Contains(err.Error(), "\n") || hint.Of(err) == "" {
		t.Errorf("%v", err)
	}
	l.nothingLeft(t)
}

// lockedTableStopsTheCapture has somebody hold a table for good.
func lockedTableStopsTheCapture(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int)")
	c, err := l.active.Conn(t.Context(), l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	e := l.engine(t, func(o *Options) { o.Lock = 100 * time.Millisecond })
	_, err = e.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err == nil || !strings.Contains(err.Error(), "lock timeout") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	l.nothingLeft(t)
}

// sessionsThatAreKilled ends the capture's sessions on either side.
func sessionsThatAreKilled(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g")
	e := l.engine(t)
	l.sync(t, e)
	l.onActive(t, "UPDATE t SET n = n + 1 WHERE n = 1")
	const rows, counts, all = "state = 'active' AND query LIKE 'COPY %'", "query LIKE 'SELECT count(*)%'", "application_name LIKE 'drsync%'"
	for _, test := range []struct{ step, which string }{{"snapshot", rows}, {"snapshot", counts}, {"snapshot", all}, {"load", rows}, {"load", all}} {
		step := test.step
		killing, stop := context.WithCancel(t.Context())
		var killer sync.WaitGroup
		e.during = func(what string) {
			if what != step {
				return
			}
			server := l.active
			if step == "load" {
				server = l.standby
			}
			c, err := server.Conn(t.Context(), "postgres")
			must(t, err)
			killer.Go(func() {
				defer c.Close(context.Background())
				for killing.Err() == nil { // one that is in the middle of the rows
					tag, err := c.Exec(context.Background(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "+test.which+" AND datname LIKE '"+l.name+"%'")
					if err != nil || tag.RowsAffected() > 0 {
						return
					}
				}
			})
		}
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		stop()
		killer.Wait()
		if err == nil {
			t.Errorf("%+v: a capture whose session was killed succeeded", test)
			if err := c.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: not one line: %v", test, err)
		}
		l.nothingLeft(t)
		if rows := l.mustQuery(t, l.standby, "SELECT count(*) FROM t WHERE n = 1"); rows[0] != "1" {
			t.Errorf("%s: the visible database changed: %q", step, rows)
		}
	}
	e.during = nil
	l.sync(t, e)
	l.sameDatabases(t)
}

// cancelledInTheMiddle interrupts a capture while its programs run.
func cancelledInTheMiddle(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 50000) g")
	e := l.engine(t)
	cause := errors.New("the operator said stop")
	for _, step := range []string{"snapshot", "load"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		e.during = func(what string) {
			if what == step {
				time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
			}
		}
		if _, err := e.Capture(ctx, dbrepl.CaptureOptions{}); !errors.Is(err, cause) {
			t.Errorf("%s: %v", step, err)
		}
		cancel(nil)
		if err := e.Recover(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		l.nothingLeft(t)
		rows, err := l.active.Query(l.name, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'drsync%' AND datname = '"+l.name+"'")
		if err != nil || rows[0] != "0" {
			t.Errorf("%s: sessions are left on the active: %q, %v", step, rows, err)
		}
	}
}
