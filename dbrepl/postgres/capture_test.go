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

// captureMakesWay lets somebody alter a table while the capture holds it.
func captureMakesWay(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
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
			_, err := blocker.Exec(context.Background(), "ALTER TABLE t ADD COLUMN x int")
			altered <- err
		}()
		for {
			rows, err := l.active.Query(l.name, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE t%'")
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
		t.Errorf("%d snapshots", times)
	}
	select {
	case w := <-warnings:
		if !strings.Contains(w, "the capture begins anew") {
			t.Error(w)
		}
	default:
		t.Error("no warning")
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.sameDatabases(t)
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
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g")
	e := l.engine(t)
	l.sync(t, e)
	l.onActive(t, "UPDATE t SET n = n + 1 WHERE n = 1")
	for _, step := range []string{"snapshot", "load"} {
		killing, stop := context.WithCancel(t.Context())
		var killer sync.WaitGroup
		e.during = func(what string) {
			if what != step {
				return
			}
			server, name := l.active, "drsync _%" // those that hold the snapshot
			if step == "load" {
				server, name = l.standby, "drsync%"
			}
			killer.Go(func() {
				for killing.Err() == nil {
					if rows, err := server.Query("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '"+name+"' AND datname LIKE '"+l.name+"%' LIMIT 1"); err != nil || len(rows) > 0 {
						return
					}
				}
			})
		}
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		stop()
		killer.Wait()
		if err == nil {
			t.Errorf("%s: a capture whose session was killed succeeded", step)
			if err := c.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: not one line: %v", step, err)
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
