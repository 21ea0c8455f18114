package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

const tablesOf = 15

// generationOf says which generation the standby shows: in each table, one
// of them partitioned, every row has its number. A mix ends the test.
func (l *lab) generationOf(t testing.TB) string {
	t.Helper()
	var parts []string
	for i := range tablesOf {
		parts = append(parts, fmt.Sprintf("SELECT n FROM t%d", i))
	}
	got := l.mustQuery(t, l.standby, strings.Join(parts, " UNION "))
	if len(got) != 1 {
		t.Fatalf("the standby shows a mix of generations %s", got)
	}
	return got[0]
}

func (l *lab) makeGeneration(t testing.TB, n int) {
	t.Helper()
	var all strings.Builder
	for i := range tablesOf {
		if n == 1 {
			partitions := ""
			if i == 5 {
				partitions = " PARTITION BY HASH (n) PARTITIONS 3"
			}
			fmt.Fprintf(&all, "CREATE TABLE t%d (n INT) ENGINE=InnoDB%s; INSERT INTO t%d VALUES (1);", i, partitions, i)
			continue
		}
		fmt.Fprintf(&all, "UPDATE t%d SET n = %d;", i, n)
	}
	if n == 1 {
		all.WriteString("CREATE SEQUENCE sq; CREATE TABLE parent (id INT PRIMARY KEY) ENGINE=InnoDB; CREATE TABLE child (p INT, FOREIGN KEY (p) REFERENCES parent (id), FULLTEXT KEY (x), x TEXT) ENGINE=InnoDB; INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 'x'); CREATE VIEW v AS SELECT n FROM t0; CREATE TRIGGER tr BEFORE INSERT ON t1 FOR EACH ROW SET NEW.n = 1; CREATE TRIGGER tr2 BEFORE INSERT ON t2 FOR EACH ROW SET NEW.n = 1")
	}
	l.onActive(t, all.String())
}

// TestServerKilledDuringPublish kills the standby's server at every statement of
// a publish, and once in the middle of it.
func TestServerKilledDuringPublish(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	l.makeGeneration(t, 1)
	l.sync(t, l.engine(t))
	shown := 1
	for n := 1; ; n++ {
		e := l.engine(t)
		next := n + 1
		l.makeGeneration(t, next)
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		seen, reached := 0, false
		e.before = func(statement string) error {
			if seen++; seen != n {
				return nil
			}
			reached = true
			if !strings.HasPrefix(statement, "RENAME") {
				l.standby.Kill()
				return nil
			}
			started := make(chan struct{})
			killed := l.standby.PID()
			go func() { // somewhere in the statement, or around it
				close(started)
				time.Sleep(time.Duration(n*700) * time.Microsecond)
				killPID(killed)
			}()
			<-started
			return nil
		}
		err = c.Publish(t.Context())
		if !reached {
			if err != nil {
				t.Fatal(err)
			}
			if n < 5 {
				t.Errorf("a publish has only %d statements", n-1)
			}
			break
		}
		l.standby.Kill()
		l.standby.Start()
		if got := l.generationOf(t); got != fmt.Sprint(shown) && got != fmt.Sprint(next) {
			t.Fatalf("after kill %d the standby shows generation %s, want %d or %d", n, got, shown, next)
		}
		again := l.engine(t)
		for range 2 {
			if err := again.Recover(t.Context(), c.Token()); err != nil {
				t.Fatalf("recover after kill %d: %v", n, err)
			}
			if got := l.generationOf(t); got != fmt.Sprint(next) {
				t.Fatalf("after kill %d and recovery the standby shows generation %s, want %d", n, got, next)
			}
		}
		if v := l.mustQuery(t, l.standby, "SELECT n FROM v"); v[0] != fmt.Sprint(next) {
			t.Errorf("after kill %d the view shows %s", n, v)
		}
		if tr := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA=DATABASE()"); tr[0] != "2" {
			t.Errorf("after kill %d there are %s triggers", n, tr)
		}
		shown = next
	}
}

// TestRenameIsAllOrNothing kills the server at random moments of the swap.
func TestRenameIsAllOrNothing(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	l.makeGeneration(t, 1)
	l.sync(t, l.engine(t))
	before, after := 0, 0
	for n := 2; n < 12; n++ {
		l.makeGeneration(t, n)
		e := l.engine(t)
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		e.before = func(statement string) error {
			if strings.HasPrefix(statement, "RENAME") {
				pid := l.standby.PID()
				time.AfterFunc(time.Duration(n-2)*12*time.Millisecond, func() { killPID(pid) })
			}
			return nil
		}
		_ = c.Publish(t.Context()) // it may be faster
		l.standby.Kill()
		l.standby.Start()
		switch got := l.generationOf(t); got {
		case fmt.Sprint(n - 1):
			before++
		case fmt.Sprint(n):
			after++
		default:
			t.Fatalf("the standby shows generation %s, want %d or %d", got, n-1, n)
		}
		if err := l.engine(t).Recover(t.Context(), c.Token()); err != nil {
			t.Fatal(err)
		}
		if got := l.generationOf(t); got != fmt.Sprint(n) {
			t.Fatalf("after recovery the standby shows generation %s, want %d", got, n)
		}
	}
	t.Logf("%d kills before the swap, %d after", before, after)
}

// TestServerKilledDuringCapture kills either server while rows flow.
func TestServerKilledDuringCapture(t *testing.T) { everywhere(t, serverKilledDuringCapture) }

func serverKilledDuringCapture(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, pad CHAR(250)) ENGINE=InnoDB; INSERT INTO t SELECT seq, REPEAT('x', 250) FROM seq_1_to_100000")
	l.sync(t, l.engine(t))
	for _, m := range []*testenv.MariaDBServer{l.standby, l.active} {
		e := l.engine(t)
		rows := 0
		e.workers = 1 // one table after the other
		e.during = func(string) {
			if rows++; rows == 20 {
				m.Kill()
			}
		}
		_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err == nil {
			t.Fatal("a capture survived the end of a server")
		}
		if strings.Contains(err.Error(), "invalid connection") && !errors.Is(err, errLost) {
			t.Errorf("the error does not say what happened: %v", err)
		}
		m.Start()
		if err := l.engine(t).Recover(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := l.mustStandbySchemas(t); !slices.Equal(got, []string{l.name, l.name + prevSuffix}) {
			t.Errorf("recovery leaves %s", got)
		}
		if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM t"); got[0] != "100000" {
			t.Errorf("the visible table has %s rows", got)
		}
	}
	l.sync(t, l.engine(t))
}

// TestServerKilledDuringRestoreAs leaves half of a schema beside the visible one:
// it says that it is not whole, and the next restore takes its place.
func TestServerKilledDuringRestoreAs(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, pad CHAR(250)) ENGINE=InnoDB; INSERT INTO t SELECT seq, SHA2(seq, 512) FROM seq_1_to_30000; CREATE TABLE u (id INT) ENGINE=InnoDB; INSERT INTO u VALUES (1); CREATE VIEW v AS SELECT id FROM t")
	e := l.engine(t)
	dir, _ := l.keepDump(t, e)
	e.workers = 1
	rows := 0
	e.during = func(string) {
		if rows++; rows == 20 {
			l.standby.Kill()
		}
	}
	if _, err := e.RestoreAs(t.Context(), dir, "beside"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Fatalf("restored without a server: %v", err)
	}
	l.standby.Start()
	marked := "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'beside' AND TABLE_NAME = '" + unfinishedTable + "'"
	if got, err := query(l.standby.DB(t, ""), marked); err != nil || got[0] != "1" {
		t.Errorf("half of a schema does not say that it is: %s, %v", got, err)
	}
	heard, adjust := collect()
	next := l.engine(t, adjust)
	n, err := next.RestoreAs(t.Context(), dir, "beside")
	if err != nil || n.Tables != 2 || n.Rows != 30001 {
		t.Errorf("restored again: %+v, %v", n, err)
	}
	if got := heard.all(); !strings.Contains(got, "did not come to its end") {
		t.Errorf("it warned %q", got)
	}
	if got, err := query(l.standby.DB(t, "beside"), "SELECT (SELECT COUNT(*) FROM v), ("+marked+")"); err != nil || got[0] != "30000|0" {
		t.Errorf("the schema has %s, %v", got, err)
	}
	if _, err := next.RestoreAs(t.Context(), dir, "beside"); err == nil || !strings.Contains(err.Error(), "it exists") {
		t.Errorf("into one that is whole: %v", err)
	}
}

func definitionsThatChangeDuringACapture(t *testing.T, l *lab) {
	active, standby := l.active, l.standby
	for name, ddl := range map[string]string{
		"add column":    "ALTER TABLE z ADD COLUMN extra INT DEFAULT 5",
		"rebuild":       "ALTER TABLE z FORCE",
		"truncate":      "TRUNCATE z",
		"drop":          "DROP TABLE z",
		"rename":        "RENAME TABLE z TO y",
		"recreate":      "DROP TABLE z; CREATE TABLE z (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO z VALUES (1)",
		"change type":   "ALTER TABLE z MODIFY id BIGINT NOT NULL",
		"early drop":    "DROP TABLE z",
		"early table":   "CREATE TABLE y (id INT) ENGINE=InnoDB; INSERT INTO y VALUES (1)",
		"early column":  "ALTER TABLE z ADD COLUMN extra INT DEFAULT 5",
		"early view":    "ALTER VIEW v AS SELECT 2 AS two",
		"early trigger": "DROP TRIGGER tr",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, active, standby)
			l.onActive(t, "CREATE TABLE a (id INT PRIMARY KEY, pad CHAR(200)) ENGINE=InnoDB; INSERT INTO a SELECT seq, 'x' FROM seq_1_to_5000; CREATE TABLE z (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO z VALUES (1), (2); CREATE VIEW v AS SELECT 1 AS one; CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET NEW.pad = 'y'")
			heard, adjust := collect()
			e := l.engine(t, adjust)
			changed := false
			e.workers = 1 // one table after the other
			e.during = func(table string) {
				at := "a"
				if strings.HasPrefix(name, "early") {
					at = ""
				}
				if table == at && !changed {
					changed = true
					l.onActive(t, "SET lock_wait_timeout=5; "+ddl)
				}
			}
			l.sync(t, e)
			if got := heard.all(); !strings.Contains(got, "begins anew") {
				t.Errorf("the capture did not begin anew; it warned %q", got)
			}
			if want, got := definitions(t, l, l.active), definitions(t, l, l.standby); fmt.Sprint(want) != fmt.Sprint(got) {
				t.Errorf("the standby has\n%s\nthe active\n%s", got, want)
			}
			q := "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME IN ('z','y','a') ORDER BY 1"
			for _, table := range l.mustQuery(t, l.active, q) {
				q := "SELECT * FROM " + table + " ORDER BY 1"
				if want, got := l.mustQuery(t, l.active, q), l.mustQuery(t, l.standby, q); !slices.Equal(want, got) {
					t.Errorf("table %s: %d rows, the active has %d", table, len(got), len(want))
				}
			}
		})
	}
}

// copiedTablesAreFree alters a table that has been copied while another one
// is: whoever does that must not wait for the end of the capture.
func copiedTablesAreFree(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE a (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO a VALUES (1); CREATE TABLE b LIKE a; INSERT INTO b VALUES (1)")
	heard, adjust := collect()
	e := l.engine(t, adjust)
	altered := false
	e.workers = 1 // one table after the other
	e.during = func(table string) {
		if table == "b" && !altered {
			altered = true
			l.onActive(t, "SET lock_wait_timeout=1; ALTER TABLE a ADD COLUMN later INT; INSERT INTO a VALUES (2, 2)")
		}
	}
	l.sync(t, e)
	if got := l.mustQuery(t, l.standby, "SELECT * FROM a"); !slices.Equal(got, []string{"1"}) || heard.all() != "" {
		t.Errorf("the standby has %s", got)
	}
}

func definitionsThatNeverRest(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE a (id INT PRIMARY KEY) ENGINE=InnoDB; CREATE TABLE z LIKE a")
	e := l.engine(t)
	times := 0
	e.workers = 1 // one table after the other
	e.during = func(table string) {
		if table == "a" {
			times++
			l.onActive(t, fmt.Sprintf("SET lock_wait_timeout=5; ALTER TABLE z ADD COLUMN c%d INT", times))
		}
	}
	_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	if !errors.Is(err, errChanged) || hint.Of(err) == "" || times != captures {
		t.Errorf("after %d captures: %v", times, err)
	}
	if left := l.mustStandbySchemas(t); len(left) != 0 {
		t.Errorf("the capture left %s", left)
	}
}

func publishNamesWhoIsInTheWay(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE a (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO a VALUES (1)")
	e := l.engine(t)
	l.sync(t, e)
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := l.standby.DB(t, l.name).Begin()
	if err != nil {
		t.Fatal(err)
	}
	var id, n int
	if err := tx.QueryRow("SELECT CONNECTION_ID(), id FROM a").Scan(&id, &n); err != nil {
		t.Fatal(err)
	}
	err = c.Publish(t.Context())
	if err == nil || !strings.Contains(err.Error(), "something uses the standby database "+l.name) || !strings.Contains(err.Error(), fmt.Sprintf("connection %d of root", id)) || hint.Of(err) == "" {
		t.Errorf("publish: %v (hint: %s)", err, hint.Of(err))
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := e.Recover(t.Context(), c.Token()); err != nil {
		t.Error(err)
	}
}

// busy lists what the sessions of a server are doing.
func busy(t testing.TB, db *sql.DB) []string {
	t.Helper()
	rows, err := query(db, "SELECT CONCAT(COMMAND, ' ', COALESCE(INFO, '')) FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND NOT IN ('Sleep', 'Daemon', 'Binlog Dump')")
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestCancelLeavesNothingRunning(t *testing.T) { everywhere(t, cancelLeavesNothingRunning) }

func cancelLeavesNothingRunning(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, pad CHAR(250)) ENGINE=InnoDB; INSERT INTO t SELECT seq, REPEAT('x', 250) FROM seq_1_to_30000")
	e := l.engine(t)
	c := l.sync(t, e)
	cause := errors.New("the operator said stop")
	active, standby := l.active.DB(t, ""), l.standby.DB(t, "")

	cancelled := func(what string, do func(ctx context.Context, stop func()) error) {
		t.Helper()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		var at time.Time
		err := do(ctx, func() {
			if at.IsZero() {
				at = time.Now()
				cancel(cause)
			}
		})
		if !errors.Is(err, cause) {
			t.Errorf("%s: %v, want the cause", what, err)
		}
		if took := time.Since(at); took > 2*time.Second {
			t.Errorf("%s took %v to stop", what, took)
		}
		e.settle()
		// A session that was killed undoes its work before it is gone.
		for end := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			left := append(busy(t, active), busy(t, standby)...)
			if len(left) == 0 {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%s leaves %s", what, left)
				break
			}
		}
	}
	cancelled("capture", func(ctx context.Context, stop func()) error {
		n := 0
		e.workers = 1 // one table after the other
		e.during = func(string) {
			if n++; n == 10 {
				stop()
			}
		}
		defer func() { e.during = nil }()
		_, err := e.Capture(ctx, dbrepl.CaptureOptions{})
		return err
	})
	cancelled("a long query", func(ctx context.Context, stop func()) error {
		time.AfterFunc(200*time.Millisecond, stop)
		for _, err := range c.Refs(ctx, "SELECT BENCHMARK(1000000000000, SHA2('a', 512)), 1") {
			return err
		}
		return nil
	})
	cancelled("publish", func(ctx context.Context, stop func()) error {
		tx, err := l.standby.DB(t, l.name).Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		var n int
		if err := tx.QueryRow("SELECT COUNT(*) FROM t").Scan(&n); err != nil {
			t.Fatal(err)
		}
		waiting := l.engine(t, func(o *Options) { o.Lock = time.Minute })
		next, err := waiting.Capture(ctx, dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		waiting.before = func(s string) error {
			if strings.HasPrefix(s, "LOCK TABLES") {
				time.AfterFunc(200*time.Millisecond, stop)
			}
			return nil
		}
		return next.Publish(ctx)
	})
}

// TestReaderBlocksPublish: a transaction that has only read from a visible
// table makes the publish fail, and nothing changes, not even the triggers.
func TestReaderBlocksPublish(t *testing.T) { everywhere(t, readerBlocksPublish) }

func readerBlocksPublish(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1); CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.id = NEW.id")
	e := l.engine(t, func(o *Options) { o.Lock = time.Second })
	l.sync(t, e)
	l.onActive(t, "INSERT INTO t VALUES (2)")
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tx, err := l.standby.DB(t, l.name).Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var n int
	if err := tx.QueryRow("SELECT COUNT(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context()); err == nil || !strings.Contains(err.Error(), "something uses the standby database") {
		t.Fatalf("publish beside a reader: %v", err)
	}
	var triggers, rows int
	db := l.standby.DB(t, l.name)
	if err := db.QueryRow("SELECT (SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()), (SELECT COUNT(*) FROM t)").Scan(&triggers, &rows); err != nil {
		t.Fatal(err)
	}
	if triggers != 1 || rows != 1 {
		t.Errorf("%d triggers and %d rows are visible, want 1 and 1", triggers, rows)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := e.Recover(t.Context(), c.Token()); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRow("SELECT COUNT(*) FROM t").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows after the recovery: %v", rows, err)
	}
}
