package mysql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/dump"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// keepDump captures with a dump and discards the capture.
func (l *lab) keepDump(t testing.TB, e *Engine) (dir string, m dump.Manifest) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dump")
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Dump: dir})
	if err != nil {
		t.Fatal(err)
	}
	if m, err = dump.Check(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if m.Rows() != c.Counts().Rows {
		t.Errorf("the dump has %d rows, the capture %d", m.Rows(), c.Counts().Rows)
	}
	if err := c.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir, m
}

// restore restores and publishes.
func (l *lab) restore(t testing.TB, e *Engine, dir string) dbrepl.Captured {
	t.Helper()
	c, err := e.Restore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// beside is the lab with the database that RestoreAs made as its own.
func (l *lab) beside(t testing.TB, e *Engine, dir string) *lab {
	t.Helper()
	b := *l
	b.name += "_beside"
	if _, err := e.RestoreAs(t.Context(), dir, b.name); err != nil {
		t.Fatal(err)
	}
	return &b
}

// everyTypeIsKept sends the table with every type through dumps that were made
// by either way, and back by the other.
func everyTypeIsKept(t *testing.T, l *lab) {
	fillHostile(t, l)
	q := hexOf(t, l, "hostile")
	want, ddl := l.mustQuery(t, l.active, q), l.mustQuery(t, l.active, "SHOW CREATE TABLE hostile")
	load, insert := l.engine(t), l.engine(t)
	insert.neverLocal = true
	byLoad, a := l.keepDump(t, load)
	byInsert, b := l.keepDump(t, insert)
	sums := func(m dump.Manifest) (all []string) {
		for _, c := range m.Chunks {
			all = append(all, fmt.Sprint(c.Table, c.Rows, c.Bytes, c.Sum))
		}
		slices.Sort(all)
		return all
	}
	if !slices.Equal(sums(a), sums(b)) {
		t.Errorf("with LOAD DATA the dump is\n%q, with INSERT\n%q", sums(a), sums(b))
	}
	l.onActive(t, "DROP TABLE hostile")
	same := func(l *lab) {
		t.Helper()
		got := l.mustQuery(t, l.standby, q)
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("row %d is another one\n%.300s\nwant\n%.300s", i, got[min(i, len(got)-1)], want[i])
			}
		}
		if got := l.mustQuery(t, l.standby, "SHOW CREATE TABLE hostile"); !slices.Equal(got, ddl) {
			t.Errorf("definition\n%s\nwant\n%s", got, ddl)
		}
	}
	for e, dir := range map[*Engine]string{load: byInsert, insert: byLoad} {
		l.sync(t, e)
		if _, err := query(l.standby.DB(t, l.name), q); err == nil {
			t.Fatal("the table is still there")
		}
		l.restore(t, e, dir)
		same(l)
		b := l.beside(t, e, dir)
		same(b)
		l.standby.Exec(t, "", "DROP DATABASE "+b.name)
	}
}

// TestKeptObjects restores every kind of object onto a standby whose active has
// changed since, and beside it.
func TestKeptObjects(t *testing.T) { everywhere(t, keptObjects) }

func keptObjects(t *testing.T, p product) {
	l := startLab(t, p)
	richSchema(t, l)
	acceptObjects(t, l)
	l.onActive(t, fmt.Sprintf("CREATE FUNCTION named() RETURNS INT RETURN (SELECT COUNT(*) FROM %[1]s.child c JOIN `%[1]s` . parent ON parent.id = c.p WHERE '%[1]s.x' <> '')", l.name))
	e := l.engine(t)
	dir, _ := l.keepDump(t, e)
	want := definitions(t, l, l.active)
	delete(want, "view broken")
	rows := func(l *lab, m *testenv.MariaDBServer) (all []string) {
		for _, table := range []string{"parent", "child", "parts"} {
			all = append(all, l.mustQuery(t, m, "SELECT * FROM "+table+" ORDER BY 1")...)
		}
		if !m.IsMariaDB() {
			return all
		}
		all = append(all, l.mustQuery(t, m, "SELECT * FROM numbered ORDER BY 1")...)
		return append(all, l.mustQuery(t, m, "SELECT next_not_cached_value, cycle_count FROM seq")...)
	}
	wantRows := rows(l, l.active)
	l.onActive(t, `DROP VIEW m; DROP TABLE IF EXISTS numbered; DROP SEQUENCE seq; DROP TRIGGER first; ALTER TABLE child ADD COLUMN more INT; DROP EVENT tick;
		DROP FUNCTION twice; CREATE FUNCTION twice(x INT) RETURNS INT RETURN 3 * x; CREATE TABLE other (id INT); ALTER DATABASE CHARACTER SET utf8mb4`)
	l.sync(t, e)

	b := l.beside(t, e, dir)
	same := func(l *lab, what string, from, to string) {
		t.Helper()
		got := definitions(t, l, l.standby)
		for name, w := range want {
			w = strings.ReplaceAll(strings.ReplaceAll(w, "`"+from+"`", "`"+to+"`"), "FROM "+from+".", "FROM `"+to+"`.")
			if strings.HasPrefix(name, "event ") {
				w = strings.Replace(w, "Enabled:true}", "Enabled:false}", 1)
			}
			if name == "table parts" && from == to && p.name == mariaDB.name {
				w = withoutPartitions(w)
			}
			if from == to {
				w = strings.ReplaceAll(w, "FROM `"+to+"`.", "FROM "+to+".")
			}
			if got[name] != w {
				t.Errorf("%s: %s is\n%s\nwant\n%s", what, name, got[name], w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s has %d definitions, want %d", what, len(got), len(want))
		}
		if got := rows(l, l.standby); !slices.Equal(got, wantRows) {
			t.Errorf("%s has the rows %s, want %s", what, got, wantRows)
		}
		if n := l.mustQuery(t, l.standby, "SELECT named()"); n[0] != "3" {
			t.Errorf("%s: named() is %s", what, n)
		}
	}
	same(b, "beside", l.name, b.name)
	if n := l.mustQuery(t, l.standby, "SELECT twice(4)"); n[0] != "12" {
		t.Errorf("the visible database has changed: twice(4) is %s", n)
	}
	b.standbyWorks(t)
	l.restore(t, e, dir)
	same(l, "restored", l.name, l.name)
	l.standbyWorks(t)
	if p.name == mariaDB.name {
		b.standbyCounts(t)
		l.standbyCounts(t)
	}
	if _, err := e.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := definitions(t, l, l.standby); got["event tick"] != want["event tick"] {
		t.Errorf("promoted, the event is\n%s\nwant\n%s", got["event tick"], want["event tick"])
	}
	if got := b.mustQuery(t, b.standby, "SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA=DATABASE() AND STATUS='ENABLED'"); got[0] != "0" {
		t.Error("an event of the database beside is enabled")
	}
}

// keptInParts keeps a table in several chunks while money moves in it and, once,
// its definition changes.
func keptInParts(t *testing.T, l *lab) {
	l.onActive(t, `CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, n BIGINT NOT NULL, pad CHAR(100) NOT NULL, KEY (n)) ENGINE=InnoDB;
		INSERT INTO big SELECT seq, 100, REPEAT('x', 100) FROM seq_1_to_10000;
		CREATE TABLE nothing (id INT PRIMARY KEY) ENGINE=InnoDB; ANALYZE TABLE big`)
	heard, adjust := collect()
	e := l.engine(t, adjust)
	e.workers, e.chunkBytes = 3, 1
	changed := false
	e.during = func(table string) {
		if table == "big" && !changed {
			changed = true
			l.onActive(t, "SET lock_wait_timeout=5; ALTER TABLE nothing ADD COLUMN later INT")
		}
	}
	stop := l.transfer(t, "big", 10000)
	dir, m := l.keepDump(t, e)
	stop()
	if got := heard.all(); !strings.Contains(got, "begins anew") {
		t.Errorf("the capture did not begin anew: %q", got)
	}
	if len(m.Chunks) < 3 {
		t.Errorf("the dump has %d chunks", len(m.Chunks))
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != len(m.Chunks)+1 {
		t.Errorf("the dump has %d files for %d chunks, %v", len(files), len(m.Chunks), err)
	}
	if c := l.restore(t, e, dir).Counts(); c.Tables != 2 || c.Rows != 10000 {
		t.Errorf("counts %+v", c)
	}
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*), SUM(n), COUNT(DISTINCT id) FROM big"); got[0] != "10000|1000000|10000" {
		t.Errorf("the standby has %s", got)
	}
	if got, want := l.mustQuery(t, l.standby, "SHOW CREATE TABLE nothing"), l.mustQuery(t, l.active, "SHOW CREATE TABLE nothing"); !slices.Equal(got, want) {
		t.Errorf("the standby has %s, the active %s", got, want)
	}
}

// failedCapturesKeepNothing: neither an error nor an interrupt leaves a dump, and
// what is in the way is left alone.
func failedCapturesKeepNothing(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, pad CHAR(250)) ENGINE=InnoDB; INSERT INTO t SELECT seq, REPEAT('x', 250) FROM seq_1_to_20000")
	e := l.engine(t)
	dir := filepath.Join(t.TempDir(), "dump")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the operator said stop")
	e.during = func(table string) {
		if table == "t" {
			cancel(cause)
		}
	}
	if _, err := e.Capture(ctx, dbrepl.CaptureOptions{Dump: dir}); !errors.Is(err, cause) {
		t.Fatalf("capture: %v", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an interrupted capture leaves a dump: %v", err)
	}
	e.during = func(table string) {
		if table == "t" {
			os.RemoveAll(dir) // so that the dump cannot be sealed
		}
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Dump: dir}); err == nil || !strings.Contains(err.Error(), "dump") {
		t.Errorf("capture: %v", err)
	}
	if left := l.mustStandbySchemas(t); len(left) != 0 {
		t.Errorf("the capture left %s", left)
	}
	e.during = nil
	in := t.TempDir()
	if err := os.WriteFile(filepath.Join(in, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Dump: in}); !errors.Is(err, os.ErrExist) {
		t.Errorf("capture into a directory that exists: %v", err)
	}
	if _, err := os.Stat(filepath.Join(in, "file")); err != nil {
		t.Error(err)
	}
}

// crashedRestores stops the publish of a restore at each of its statements.
func crashedRestores(t *testing.T, l *lab) {
	l.makeGeneration(t, 1)
	e, next := l.engine(t), l.engine(t)
	dir, _ := l.keepDump(t, e)
	l.makeGeneration(t, 2)
	for n := 1; ; n++ {
		l.sync(t, next)
		e.before = nil
		c, err := e.Restore(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		reached := crashAt(e, n)
		err = c.Publish(t.Context())
		if !reached() {
			if err != nil || n < 5 {
				t.Errorf("after %d statements: %v", n-1, err)
			}
			return
		}
		if err == nil {
			t.Fatalf("a publish that crashed at %d says it is done", n)
		}
		if got := l.generationOf(t); got != "1" && got != "2" {
			t.Fatalf("after crash %d the standby shows generation %s", n, got)
		}
		if err := next.Recover(t.Context(), c.Token()); err != nil {
			t.Fatalf("recover after crash %d: %v", n, err)
		}
		if got := l.generationOf(t); got != "1" {
			t.Fatalf("after crash %d and recovery the standby shows generation %s", n, got)
		}
	}
}

// brokenRestores cuts the connections to the standby, interrupts, and damages the
// dump: what was visible stays, and nothing new is left.
func brokenRestores(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, pad CHAR(250)) ENGINE=InnoDB; INSERT INTO t SELECT seq, SHA2(seq, 512) FROM seq_1_to_20000")
	l.sync(t, l.engine(t))
	l.onActive(t, "DELETE FROM t WHERE id > 10000")
	e := l.engine(t)
	dir, m := l.keepDump(t, e)
	next := l.engine(t)
	schemas := l.mustStandbySchemas(t)
	name := l.name + "_beside"
	check := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s: no error", what)
		}
		if err := next.Recover(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := l.mustStandbySchemas(t); !slices.Equal(got, schemas) {
			t.Errorf("%s leaves %s", what, got)
		}
		if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM t"); got[0] != "20000" {
			t.Errorf("%s: the visible table has %s rows", what, got)
		}
	}
	both := func(what string, ctx func() context.Context, cause error) {
		t.Helper()
		_, err := e.Restore(ctx(), dir)
		check(what, err)
		if cause != nil && !errors.Is(err, cause) {
			t.Errorf("%s: %v", what, err)
		}
		_, err = e.RestoreAs(ctx(), dir, name)
		check(what+", beside", err)
		if cause != nil && !errors.Is(err, cause) {
			t.Errorf("%s, beside: %v", what, err)
		}
	}
	admin := l.standby.DB(t, "")
	e.during = func(string) {
		ids, err := query(admin, "SELECT ID FROM information_schema.PROCESSLIST WHERE DB IN ('"+name+"', '"+l.name+newSuffix+"')")
		if err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			_, _ = admin.Exec("KILL " + id) // it may be over
		}
		l.gone(t, admin, ids)
	}
	both("a killed connection", t.Context, nil)
	cause := errors.New("the operator said stop")
	var cancel context.CancelCauseFunc
	e.during = func(string) { cancel(cause) }
	both("an interrupt", func() (ctx context.Context) {
		ctx, cancel = context.WithCancelCause(t.Context())
		return ctx
	}, cause)
	e.during = nil
	path := filepath.Join(dir, m.Chunks[0].File)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-5] ^= 1 // near the end: nearly all has been sent by then
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	both("a damaged chunk", t.Context, dump.ErrDamaged)
	e.neverLocal = true
	both("a damaged chunk by INSERT", t.Context, dump.ErrDamaged)
}

// refusedDumps changes what a dump says of itself.
func refusedDumps(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1), (2)")
	e := l.engine(t)
	dir, m := l.keepDump(t, e)
	here := "MySQL 5.7."
	if l.standby.IsMariaDB() {
		here = "MariaDB 10.11."
	}
	for what, change := range map[string]struct {
		do   func(m *dump.Manifest, d *definition)
		want []string
		as   bool // is refused beside too
	}{
		"version": {func(_ *dump.Manifest, d *definition) { d.MariaDB, d.Version = true, "10.6.12-MariaDB" }, []string{"MariaDB 10.6.12", here}, true},
		"product": {func(_ *dump.Manifest, d *definition) { d.MariaDB, d.Version = false, "8.0.36" }, []string{"MySQL 8.0.36", here}, true},
		"case":    {func(_ *dump.Manifest, d *definition) { d.LowerCase = "1" }, []string{"lower_case_table_names is 0"}, true},
		"format":  {func(_ *dump.Manifest, d *definition) { d.Format = 2 }, []string{"format 2"}, true},
		"engine":  {func(m *dump.Manifest, _ *definition) { m.Engine = "sqlite" }, []string{"engine sqlite"}, true},
		"name":    {func(m *dump.Manifest, _ *definition) { m.Name = "elsewhere" }, []string{"database elsewhere"}, false},
		"table":   {func(_ *dump.Manifest, d *definition) { d.Tables[0].Name = "u" }, []string{`table "t"`}, true},
		"columns": {func(_ *dump.Manifest, d *definition) {
			d.Tables[0].Columns = append(d.Tables[0].Columns, d.Tables[0].Columns[0])
		}, []string{"fields"}, true},
		"type":    {func(_ *dump.Manifest, d *definition) { d.Tables[0].Columns[0].Kind = "cube" }, []string{"cube"}, true},
		"charset": {func(_ *dump.Manifest, d *definition) { d.Charset = "" }, []string{"incomplete"}, true},
	} {
		altered := filepath.Join(t.TempDir(), "dump")
		w, err := dump.Create(altered)
		if err != nil {
			t.Fatal(err)
		}
		c, err := w.Chunk("t")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("1\n2\n")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(2); err != nil {
			t.Fatal(err)
		}
		n := m
		var d definition
		if err := json.Unmarshal(m.Definition, &d); err != nil {
			t.Fatal(err)
		}
		change.do(&n, &d)
		if n.Definition, err = json.Marshal(d); err != nil {
			t.Fatal(err)
		}
		if err := w.Seal(n); err != nil {
			t.Fatal(err)
		}
		_, err = e.Restore(t.Context(), altered)
		for _, part := range change.want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err = e.RestoreAs(t.Context(), altered, l.name+"_beside"); (err != nil) != change.as {
			t.Errorf("%s, beside: %v", what, err)
		}
		l.standby.Exec(t, "", "DROP DATABASE IF EXISTS "+l.name+"_beside")
		if left := l.mustStandbySchemas(t); len(left) != 0 {
			t.Errorf("%s leaves %s", what, left)
		}
	}
	l.standby.Exec(t, "", "CREATE DATABASE "+l.name+"_there; CREATE TABLE "+l.name+"_there.x (id INT)")
	for name, want := range map[string]string{l.name + "_there": "exists", l.name: "the standby's own", "mysql": "belongs to the server", l.name + newSuffix: "one of drsync's own"} {
		if _, err := e.RestoreAs(t.Context(), dir, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("into %s: %v", name, err)
		}
	}
	if got, err := query(l.standby.DB(t, l.name+"_there"), "SELECT COUNT(*) FROM x"); err != nil || got[0] != "0" {
		t.Errorf("what was there: %s, %v", got, err)
	}
	l.standby.Exec(t, "", "CREATE USER IF NOT EXISTS restorer@localhost; GRANT ALL ON `"+l.name+"`.* TO restorer@localhost")
	l.end(t, e)
	weak := l.engine(t, func(o *Options) { o.Standby.User = "restorer" })
	if _, err := weak.RestoreAs(t.Context(), dir, l.name+"_beside"); err == nil || !strings.Contains(hint.Of(err), "GRANT ALL PRIVILEGES ON `"+strings.ReplaceAll(l.name, "_", `\_`)+`\_beside`) {
		t.Errorf("without the right: %v (hint: %s)", err, hint.Of(err))
	}
}
