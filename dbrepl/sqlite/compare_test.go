package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

// rowsEngine compares row by row, also where the pages are the same.
func (l *lab) rowsEngine() *Engine {
	e := l.engine()
	e.rowsAlways = true
	return e
}

func (l *lab) compare(e *Engine) dbrepl.Comparison {
	l.t.Helper()
	c, err := e.Compare(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// told returns the differences as lines.
func told(c dbrepl.Comparison) string {
	var lines []string
	for _, d := range c.Differences {
		lines = append(lines, d.String())
	}
	return strings.Join(lines, "\n")
}

// onStandby executes statements on the visible database.
func (l *lab) onStandby(statements ...string) {
	l.t.Helper()
	db := openApp(l.t, l.standby, "delete")
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			l.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (l *lab) wantTold(e *Engine, want ...string) dbrepl.Comparison {
	l.t.Helper()
	c := l.compare(e)
	if got := told(c); got != strings.Join(want, "\n") || c.Different != int64(len(want)) {
		l.t.Fatalf("%d differences:\n%s\nwant\n%s", c.Different, got, strings.Join(want, "\n"))
	}
	return c
}

func TestCompareSame(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t, mode, 300)
			e := l.engine()
			if _, err := e.Compare(t.Context()); !errors.Is(err, dbrepl.ErrNoDatabase) {
				t.Fatalf("before the first publish: %v", err)
			}
			l.publish(e)
			var steps []string
			for _, rowsAlways := range []bool{false, true} {
				e.rowsAlways = rowsAlways
				e.o.Event = func(v event.Event) {
					if v.Step != "" {
						steps = append(steps, v.Step)
					}
				}
				c := l.wantTold(e)
				if c.Tables != 2 || c.Rows != 600 || c.Chunks != 2 || c.Active.Time.IsZero() || !strings.HasPrefix(c.Active.Position, "sha256 ") {
					t.Fatalf("rows always %v: %+v", rowsAlways, c)
				}
			}
			for _, s := range steps {
				if s != "compare" {
					t.Fatalf("told of step %q", s)
				}
			}
			wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
			l.add(300, 310) // goes on
			wantVisible(t, e, 300)
		})
	}
}

// Each change makes its own difference, and no other.
func TestCompareNamesWhatDiffers(t *testing.T) {
	for name, c := range map[string]struct{ standby, want string }{
		"update":         {"UPDATE t SET v = 'other' WHERE id = 17", "t from 17 to before 18: 1 rows, on the active 1"},
		"delete":         {"DELETE FROM t WHERE id = 17", "t from 17 to before 18: 0 rows, on the active 1"},
		"insert":         {"INSERT INTO t VALUES (1000, 'x')", "t from 1000: 1 rows, on the active 0"},
		"first":          {"INSERT INTO t VALUES (-5, 'x')", "t from -5 to before 1: 1 rows, on the active 0"},
		"last":           {"UPDATE t SET v = NULL WHERE id = 900", "t from 900: 1 rows, on the active 1"},
		"near":           {"UPDATE t SET v = 0 WHERE id IN (20, 70)", "t from 20 to before 71: 51 rows, on the active 51"},
		"far":            {"UPDATE t SET v = 0 WHERE id IN (20, 700)", "t from 20 to before 21: 1 rows, on the active 1\nt from 700 to before 701: 1 rows, on the active 1"},
		"many":           {"DELETE FROM t WHERE id >= 100", "t from 100: 0 rows, on the active 801"},
		"all":            {"DELETE FROM t", "t from 1: 0 rows, on the active 900"},
		"no key":         {"DELETE FROM plain WHERE v = 2", "plain from 2 to before 3: 0 rows, on the active 1"},
		"new table":      {"CREATE TABLE extra (a)", "extra: only the standby has it"},
		"lost table":     {"DROP TABLE plain", "index by_v: the standby lacks it\nplain: the standby lacks it"},
		"lost index":     {"DROP INDEX by_v", "index by_v: the standby lacks it"},
		"other index":    {"DROP INDEX by_v; CREATE INDEX by_v ON plain (v DESC)", "index by_v: defined differently: CREATE INDEX by_v ON plain (v DESC), on the active CREATE INDEX by_v ON plain (v)"},
		"lost view":      {"DROP VIEW seen", "view seen: the standby lacks it"},
		"new trigger":    {"CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END", "trigger tr: only the standby has it"},
		"new column":     {"ALTER TABLE plain ADD COLUMN w", "plain: defined differently: CREATE TABLE plain (v, w), on the active CREATE TABLE plain (v)\nplain: its columns or its key are others: the rows are not compared"},
		"spaces":         {"DROP VIEW seen; CREATE VIEW seen AS   SELECT * -- all\n FROM t", ""},
		"user version":   {"PRAGMA user_version = 8", "user_version is 8, on the active 7"},
		"application":    {"PRAGMA application_id = 8", "application_id is 8, on the active 9"},
		"counter":        {"UPDATE sqlite_sequence SET seq = 77", "sqlite_sequence from 1: 1 rows, on the active 1"},
		"statistics":     {"ANALYZE", ""},
		"full text":      {"INSERT INTO ft VALUES ('more')", "ft_content from 2"},
		"vacuum":         {"VACUUM", ""},
		"page size":      {"PRAGMA page_size = 8192; VACUUM", ""},
		"auto vacuum":    {"PRAGMA auto_vacuum = 1; VACUUM", ""},
		"into and out":   {"INSERT INTO t VALUES (1001, 1); DELETE FROM t WHERE id = 1001", ""},
		"exchanged":      {"UPDATE t SET v = 'value ' || (7 - id) WHERE id IN (3, 4)", "t from 3 to before 5: 2 rows, on the active 2"},
		"without rowid":  {"DELETE FROM wr WHERE a = 'b'", "wr from ('b', 5) to before ('B', 3): 0 rows, on the active 1"},
		"key with index": {"DELETE FROM q WHERE id = 4", "q from 2 to before 3: 0 rows, on the active 1"},
		"named rowid":    {"DELETE FROM named WHERE v = 2", "named from 2: 0 rows, on the active 1"},
		"its other half": {"UPDATE wr SET c = 0 WHERE a = 'A' AND b = 2", "wr from ('A', 2) to before ('b', 5): 1 rows, on the active 1"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "wal", 3)
			l.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
			l.exec("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < 900) INSERT INTO t SELECT i, 'value ' || i FROM c")
			l.exec("CREATE TABLE plain (v)")
			l.exec("INSERT INTO plain VALUES (1), (2), (3)")
			l.exec("CREATE INDEX by_v ON plain (v)")
			l.exec("CREATE VIEW seen AS SELECT * FROM t")
			l.exec("CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT)")
			l.exec("INSERT INTO counted VALUES (5)")
			l.exec("CREATE VIRTUAL TABLE ft USING fts5(x)")
			l.exec("INSERT INTO ft VALUES ('hello')")
			l.exec("CREATE TABLE wr (a TEXT, b INT, c, PRIMARY KEY (a COLLATE NOCASE, b DESC)) WITHOUT ROWID")
			l.exec("INSERT INTO wr VALUES ('A', 2, 1), ('a', 7, 1), ('b', 5, 1), ('B', 3, 1), ('c', 1, 1)")
			l.exec("CREATE TABLE q (id INTEGER PRIMARY KEY DESC)")
			l.exec("INSERT INTO q VALUES (9), (4), (7)")
			l.exec("CREATE TABLE named (rowid TEXT, v INT, twice AS (v * 2))")
			l.exec("INSERT INTO named VALUES ('x', 1), ('x', 2)")
			l.exec("PRAGMA user_version = 7")
			l.exec("PRAGMA application_id = 9")
			e := l.rowsEngine()
			l.publish(e)
			l.wantTold(e)
			l.onStandby(c.standby)
			got := l.compare(e)
			if name == "full text" {
				if !strings.Contains(told(got), c.want) {
					t.Fatalf("told\n%s", told(got))
				}
			} else if told(got) != c.want {
				t.Fatalf("told\n%s\nwant\n%s", told(got), c.want)
			}
			wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
		})
	}
}

// Values that are equal to SQLite's own operators, or to a driver, differ when they are not the same.
func TestCompareValues(t *testing.T) {
	values := []string{"NULL", "0", "1", "'1'", "x'31'", "1.0", "'1.0'", "''", "x''", "'a'", "'A'", "'a '", "'a' || char(0)", "'a' || char(0) || 'b'",
		"CAST(x'ff' AS TEXT)", "CAST(x'fe' AS TEXT)", "CAST(x'00d84100' AS TEXT)", "CAST(x'00d841dc' AS TEXT)", "CAST(x'd8000041' AS TEXT)", "CAST(x'd800dc41' AS TEXT)", "'é'", "'e' || char(769)", "9007199254740993", "9007199254740992.0", "9e999", "-9e999",
		"5e-324", "0.1", "0.1 + 0.2", "0.3", "9223372036854775807", "-9223372036854775808", "'2026-01-01'", "zeroblob(3)", "x'00'", "'true'"}
	for _, encoding := range []string{"UTF-8", "UTF-16le", "UTF-16be"} {
		for _, kind := range []string{"", "DATETIME"} {
			if underRace && (encoding != "UTF-16le" || kind != "") {
				continue // it takes minutes in SQLite itself
			}
			t.Run(encoding+kind, func(t *testing.T) {
				l := newLab(t, "wal", 0)
				l.app.Close()
				if err := os.Remove(l.active); err != nil {
					t.Fatal(err)
				}
				l.app = openApp(t, l.active, "delete")
				l.exec("PRAGMA encoding = '" + encoding + "'")
				l.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v " + kind + ")")
				for _, v := range values {
					l.exec("INSERT INTO t (v) VALUES (" + v + ")")
				}
				e := l.rowsEngine()
				l.publish(e)
				l.wantTold(e)
				differ := 0
				for i, v := range values {
					for j, other := range values {
						if (i+j)%11 != 0 && j != i+1 {
							continue
						}
						l.onStandby(fmt.Sprintf("UPDATE t SET v = %s WHERE id = %d", other, i+1))
						// What a column's affinity has made of both may be the same.
						same := kept(t, l.active, i+1) == kept(t, l.standby, i+1)
						if c := l.compare(e); (c.Different == 0) != same || c.Different > 1 {
							t.Errorf("%s and %s: %d differences, %q and %q", v, other, c.Different, kept(t, l.active, i+1), kept(t, l.standby, i+1))
						}
						differ += btoi(!same)
						l.onStandby(fmt.Sprintf("UPDATE t SET v = %s WHERE id = %d", v, i+1))
					}
				}
				if differ < 100 {
					t.Errorf("only %d pairs differ", differ)
				}
			})
		}
	}
}

// Rows are read in the order in which they lie: nothing is sorted, and no index is read instead.
func TestPlansReadInOrder(t *testing.T) {
	l := newLab(t, "wal", 0)
	l.exec("CREATE TABLE ipk (id INTEGER PRIMARY KEY, v INT)")
	l.exec("CREATE INDEX of_ipk ON ipk (id, v)")
	l.exec("CREATE TABLE plain (v INT)")
	l.exec("CREATE INDEX of_plain ON plain (v)")
	l.exec("CREATE TABLE q (id INTEGER PRIMARY KEY DESC)")
	l.exec("CREATE TABLE taken (rowid, oid, _rowid_)")
	l.exec("CREATE INDEX of_taken ON taken (rowid, oid, _rowid_)")
	l.exec(`CREATE TABLE "w""r" (a TEXT, b INT, c, PRIMARY KEY (a COLLATE NOCASE, b DESC)) WITHOUT ROWID`)
	l.exec(`CREATE INDEX of_wr ON "w""r" (b, c)`)
	s, err := openSide(t.Context(), "the active", candidate{l.active, readLive})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, table := range []string{"ipk", "plain", "q", "taken", `w"r`} {
		p, err := s.plan(t.Context(), table)
		if err != nil {
			t.Fatal(err)
		}
		if (p.key == nil) != (table == "taken") {
			t.Errorf("%s has the key %v", table, p.key)
		}
		var how string
		rows, err := s.c.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+p.query)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var n any
			var line string
			if err := rows.Scan(&n, &n, &n, &line); err != nil {
				t.Fatal(err)
			}
			how += line + "\n"
		}
		rows.Close()
		if how != "SCAN main."+table+"\n" {
			t.Errorf("%s: %s is read by %s", table, p.query, how)
		}
	}
}

// No literal makes a negative zero, but a program can.
func TestCompareNegativeZero(t *testing.T) {
	l := newLab(t, "wal", 0)
	l.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
	l.exec("INSERT INTO t VALUES (1, 0.0), (2, ?)", math.Copysign(0, -1))
	e := l.rowsEngine()
	l.publish(e)
	l.wantTold(e)
	l.onStandby("UPDATE t SET v = 0.0 WHERE id = 2")
	l.wantTold(e, "t from 2: 1 rows, on the active 1")
}

// Where this program does not know the order of a key, the rows are compared as they lie,
// and a difference is one of the whole table.
func TestCompareWithoutAKnownOrder(t *testing.T) {
	l := newLab(t, "delete", 0)
	l.app.Close()
	if err := os.Remove(l.active); err != nil {
		t.Fatal(err)
	}
	l.app = openApp(t, l.active, "delete")
	l.exec("PRAGMA encoding = 'UTF-16le'")
	l.exec("CREATE TABLE wr (a TEXT PRIMARY KEY, b INT) WITHOUT ROWID")
	l.exec("CREATE TABLE all_taken (rowid, oid, _rowid_)")
	for _, table := range []string{"wr (a, b)", "all_taken (rowid, oid)"} {
		l.exec("INSERT INTO " + table + " VALUES ('a', 1), ('Ā', 2), ('b', 3), ('ā', 4)")
	}
	e := l.rowsEngine()
	l.publish(e)
	l.wantTold(e)
	l.onStandby("UPDATE wr SET b = 9 WHERE a = 'b'", "DELETE FROM all_taken WHERE oid = 2")
	l.wantTold(e, "all_taken: 3 rows, on the active 4", "wr: 4 rows, on the active 4")
	l.onStandby("DELETE FROM wr")
	l.wantTold(e, "all_taken: 3 rows, on the active 4", "wr: 0 rows, on the active 4")
}

// A database that was made anew in another encoding has no value that is as it was.
func TestCompareEncodings(t *testing.T) {
	l := newLab(t, "delete", 10)
	e := l.rowsEngine()
	l.publish(e)
	l.app.Close()
	if err := os.Remove(l.active); err != nil {
		t.Fatal(err)
	}
	l.app = openApp(t, l.active, "delete")
	l.exec("PRAGMA encoding = 'UTF-16be'")
	l.exec("CREATE TABLE t (a)")
	l.wantTold(e, "the texts are in UTF-8, on the active in UTF-16be: no row is as it is there")
}

// kept is what a file has in a row: storage class and bytes, of a number more digits than it can have.
func kept(t *testing.T, path string, id int) (text string) {
	t.Helper()
	db, err := open(path, "mode=ro")
	if err == nil {
		defer db.Close()
		err = db.QueryRow("SELECT typeof(v) || CASE typeof(v) WHEN 'real' THEN format('%!.26e', v) ELSE ifnull(hex(CAST(v AS BLOB)), '') END FROM t WHERE id = ?", id).Scan(&text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestCompareListsInBounds(t *testing.T) {
	l := newLab(t, "wal", 0)
	for i := range 15 {
		l.exec(fmt.Sprintf("CREATE TABLE t%02d (id INTEGER PRIMARY KEY, v)", i))
		l.exec(fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < 330) INSERT INTO t%02d SELECT i, i FROM c", i))
	}
	e := l.rowsEngine()
	e.chunk = 3
	l.publish(e)
	for i := range 15 {
		l.onStandby(fmt.Sprintf("UPDATE t%02d SET v = -1", i))
	}
	c := l.compare(e)
	if c.Different != 15*110 || len(c.Differences) > dbrepl.MaxDifferences || c.Chunks != 15*110+2 {
		t.Fatalf("%d differences, %d told, %d ranges", c.Different, len(c.Differences), c.Chunks)
	}
	tables := make(map[string]int)
	next := make(map[string]string)
	for _, d := range c.Differences {
		tables[d.Table]++
		if d.Active > 3 || d.Standby > 3 || next[d.Table] != "" && next[d.Table] != d.From {
			t.Fatalf("%s after %q", d, next[d.Table])
		}
		next[d.Table] = d.To
	}
	if len(tables) != 15 {
		t.Fatalf("only %v are told of", tables)
	}
}

// Nothing is left of a comparison, however it ends, and the next one or a Recover
// clears up after one that was killed.
func TestCompareLeavesNothing(t *testing.T) {
	l := newLab(t, "wal", 300)
	line := &line{cut: -1}
	e := l.on(line)
	l.publish(e)
	l.add(300, 400)
	for _, only := range []string{"sums", "ranges", "whole"} {
		line.cut, line.only = 10, only
		if only == "whole" {
			e.least = 1 << 40
		}
		_, err := e.Compare(t.Context())
		if only == "whole" && !errors.Is(err, errCut) || only != "whole" && err != nil {
			t.Fatalf("%s cut: %v", only, err)
		}
		wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	}
	if line.held != 0 {
		t.Fatalf("%d streams are open", line.held)
	}
	e = l.engine()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	e.o.Event = func(event.Event) { cancel(why) }
	if _, err := e.Compare(ctx); !errors.Is(err, why) {
		t.Fatal(err)
	}
	e.o.Event = nil
	wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	for name, next := range map[string]func() error{
		"compare": func() error { _, err := e.Compare(t.Context()); return err },
		"recover": func() error { return e.Recover(t.Context(), nil) },
	} {
		if err := os.WriteFile(e.f.asked, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := next(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantFiles(t, e.f.dir, "app.db", ".app.db.drsync.json")
	}
	wantVisible(t, e, 300)
}

func TestCompareKeyOrder(t *testing.T) {
	l := newLab(t, "wal", 0)
	values := []datum{nil, int64(-1 << 63), -1e300, int64(-1), -0.5, int64(0), 0.5, int64(1<<53 + 1), 9007199254740992.0, 9007199254740994.0, 9223372036854775807.0, int64(1<<63 - 1),
		"", " ", "a", "A", "a ", "A b", "a\x00B", "a\x00a", "a\x00", "b", "É", "é", "\xff", []byte{}, []byte("a"), []byte{0xff}}
	for _, collation := range []string{"BINARY", "NOCASE", "RTRIM"} {
		for i, a := range values {
			for j, b := range values {
				if a == nil || b == nil {
					continue // which SQL does not order
				}
				var want int
				if err := l.app.QueryRow("SELECT (?1 COLLATE "+collation+" > ?2) - (?1 COLLATE "+collation+" < ?2)", a, b).Scan(&want); err != nil {
					t.Fatal(err)
				}
				if got := compareData(a, b, collation); got != want {
					t.Errorf("%s: %#v (%d) and %#v (%d): %d, SQLite says %d", collation, a, i, b, j, got, want)
				}
			}
		}
	}
}

func TestListed(t *testing.T) {
	var all []dbrepl.Difference
	for i := range dbrepl.MaxDifferences + 7 {
		all = append(all, dbrepl.Difference{Table: fmt.Sprint(i)})
	}
	if got := listed(all); len(got) != dbrepl.MaxDifferences {
		t.Fatalf("%d are listed", len(got))
	}
	if got := listed(all[:5]); !reflect.DeepEqual(got, all[:5]) {
		t.Fatalf("%v", got)
	}
}
