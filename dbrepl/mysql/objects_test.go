package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// richSchema has every kind of object, written as a careless author would.
func richSchema(t testing.TB, l *lab) {
	t.Helper()
	l.active.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1; CREATE USER IF NOT EXISTS 'o''wner'@'%'; GRANT ALL ON *.* TO 'o''wner'@'%'; CREATE USER IF NOT EXISTS gone@nowhere")
	l.onActive(t, `CREATE TABLE parent (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES parent (id)) ENGINE=InnoDB;
		CREATE TABLE child (id INT PRIMARY KEY AUTO_INCREMENT, p INT, note VARCHAR(100) CHARACTER SET utf8mb4, CONSTRAINT fk1 FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE, CHECK (p < 1000)) ENGINE=InnoDB;
		CREATE TABLE cycle (id INT PRIMARY KEY, c INT) ENGINE=InnoDB;
		INSERT INTO parent VALUES (1, NULL), (2, 1); INSERT INTO child (p, note) VALUES (1, 'a'), (2, 'b');
		CREATE TABLE parts (id INT PRIMARY KEY, v INT) ENGINE=InnoDB PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE);
		INSERT INTO parts VALUES (1, 1), (100, 2);
		`+map[bool]string{true: "SET check_constraint_checks=0;"}[l.active.IsMariaDB()]+` INSERT INTO parent VALUES (2000, NULL); INSERT INTO child (p) VALUES (2000)`)
	for _, s := range []string{
		"CREATE FULLTEXT INDEX words ON child (note) /*!50700 WITH PARSER ngram */",
		"CREATE DEFINER=`o'wner`@`%` FUNCTION twice(x INT) RETURNS INT RETURN 2 * x",
		"CREATE FUNCTION greet() RETURNS VARCHAR(20) CHARSET utf8mb4 NO SQL RETURN 'é😀'",
		"SET sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT'; CREATE PROCEDURE shout(IN a TEXT, OUT b TEXT) BEGIN DECLARE \"odd name\" TEXT; SET b = a || '!é'; END",
		"SET sql_mode=ORACLE; CREATE PACKAGE pkg AS FUNCTION one RETURN INT; END; CREATE PACKAGE BODY pkg AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END",
		"CREATE DEFINER=gone@nowhere TRIGGER " + l.name + ".second BEFORE INSERT ON " + l.name + ".child FOR EACH ROW SET NEW.note = CONCAT(NEW.note, ' 2 for each row é😀')",
		"CREATE trigger first\n before insert on child FOR each /* x */ ROW precedes second SET NEW.note = CONCAT(NEW.note, ' 1')",
		"CREATE TRIGGER after_it AFTER DELETE ON parent FOR EACH ROW BEGIN DELETE FROM parts WHERE id = OLD.id; END",
		"CREATE VIEW a_on_z AS SELECT * FROM z_base WHERE id > 0",
		"SELECT 1",
	} {
		if strings.Contains(s, "PACKAGE") && !l.active.IsMariaDB() {
			continue
		}
		if strings.HasPrefix(s, "CREATE VIEW a_on_z") {
			l.onActive(t, "CREATE VIEW z_base AS SELECT id, twice(id) AS d, 'lit é😀' AS lit FROM child")
		}
		l.onActive(t, "SET NAMES utf8mb4; "+s)
	}
	l.onActive(t, "CREATE ALGORITHM=MERGE DEFINER=gone@nowhere SQL SECURITY INVOKER VIEW "+l.name+".m AS SELECT p FROM child WHERE p > 0 WITH CASCADED CHECK OPTION")
	l.onActive(t, "SET NAMES latin1; CREATE VIEW latin AS SELECT 'x' AS x; SET NAMES utf8mb4; CREATE TABLE broken_base (x INT); CREATE VIEW broken AS SELECT x FROM broken_base; DROP TABLE broken_base")
	l.onActive(t, "SET NAMES utf8mb4; SET time_zone='+05:00'; SET sql_mode='ANSI_QUOTES'; CREATE DEFINER=gone@nowhere EVENT tick ON SCHEDULE EVERY 1 HOUR STARTS '2020-01-01 10:00:00' ON COMPLETION PRESERVE ENABLE COMMENT 'ON COMPLETION PRESERVE ENABLE é😀' DO DELETE FROM parts WHERE id = -1")
	l.onActive(t, "CREATE DEFINER=gone@nowhere EVENT `od``d ENABLE` ON SCHEDULE AT '2037-01-01 10:00:00' DISABLE DO BEGIN SELECT 'ENABLE'; END")
	if !l.active.IsMariaDB() {
		return
	}
	l.onActive(t, `CREATE SEQUENCE seq START WITH 5 MINVALUE -10 MAXVALUE 100000 INCREMENT BY 3 CACHE 7 CYCLE;
		CREATE TABLE numbered (id BIGINT NOT NULL DEFAULT NEXTVAL(seq) PRIMARY KEY, x INT NOT NULL DEFAULT (1+1), d DATETIME DEFAULT NOW()) ENGINE=InnoDB;
		INSERT INTO numbered (x) VALUES (1), (2)`)
}

// acceptObjects makes the standby take what richSchema has.
func acceptObjects(t testing.TB, l *lab) {
	t.Helper()
	l.standby.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1; CREATE USER IF NOT EXISTS 'o''wner'@'%'; GRANT ALL ON *.* TO 'o''wner'@'%'; CREATE USER IF NOT EXISTS gone@nowhere; GRANT ALL ON *.* TO gone@nowhere")
}

// definitions shows everything that a schema has besides rows.
func definitions(t testing.TB, l *lab, m *testenv.MariaDBServer) map[string]string {
	t.Helper()
	c, err := m.DB(t, l.name).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ExecContext(t.Context(), "SET NAMES utf8mb4"); err != nil {
		t.Fatal(err)
	}
	s, err := readSchema(t.Context(), c, l.name)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"schema": s.charset + " " + s.collation}
	for _, x := range s.tables {
		all["table "+x.name] = x.ddl
	}
	for _, o := range s.objects {
		if o.Kind != "EVENT" {
			o.Enabled = false
		}
		all[o.String()] = o.fingerprint()
	}
	return all
}

func TestObjectsArriveUnchanged(t *testing.T) { everywhere(t, objectsArriveUnchanged) }

func objectsArriveUnchanged(t *testing.T, p product) {
	l := startLab(t, p)
	richSchema(t, l)
	acceptObjects(t, l)
	heard, adjust := collect()
	e := l.engine(t, adjust)

	for round := range 3 { // onto nothing, onto itself, and onto something else
		if round == 2 {
			l.standby.Exec(t, l.name, `DROP VIEW m; DROP TRIGGER first; DROP FUNCTION twice; CREATE FUNCTION twice(x INT) RETURNS INT RETURN 3 * x;
				CREATE VIEW m AS SELECT 1; CREATE PROCEDURE more() SELECT 1; ALTER EVENT tick ENABLE; CREATE EVENT more ON SCHEDULE EVERY 1 DAY DO SELECT 1;
				CREATE TRIGGER more BEFORE UPDATE ON child FOR EACH ROW SET NEW.p = 1; ALTER DATABASE CHARACTER SET latin1; CREATE VIEW more AS SELECT 1`)
			l.onActive(t, "CREATE TABLE more (x INT) ENGINE=InnoDB; ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
		}
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := heard.all(); !strings.Contains(got, "view broken is broken") || strings.Contains(got, "in one piece: parts") != l.active.IsMariaDB() {
			t.Errorf("round %d warned %q", round, got)
		}
		if lines, err := stringsOf(t, c, "SELECT lit, d FROM a_on_z"); err != nil || len(lines) != 3 {
			t.Errorf("round %d, a view in a capture: %q, %v", round, lines, err)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		want, got := definitions(t, l, l.active), definitions(t, l, l.standby)
		delete(want, "view broken")
		for name, w := range want {
			if strings.HasPrefix(name, "event ") {
				w = strings.Replace(w, "Enabled:true}", "Enabled:false}", 1)
			}
			if name == "table parts" && p.name == mariaDB.name {
				w = withoutPartitions(w)
			}
			if got[name] != w {
				t.Errorf("round %d: %s is\n%s\nwant\n%s", round, name, got[name], w)
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				t.Errorf("round %d: %s is only on the standby", round, name)
			}
		}
	}
	for _, table := range []string{"parent", "child", "parts"} {
		l.sameRows(t, table)
	}
	if l.active.IsMariaDB() {
		l.sameRows(t, "numbered")
		l.standbyCounts(t)
	}
	l.standbyWorks(t)
}

// standbyCounts goes on with a sequence.
func (l *lab) standbyCounts(t *testing.T) {
	t.Helper()
	l.standby.Exec(t, l.name, "INSERT INTO numbered (x) VALUES (3)")
	last := l.mustQuery(t, l.standby, "SELECT COUNT(*), COUNT(DISTINCT id), MAX(id) > 8 FROM numbered")
	if last[0] != "3|3|1" {
		t.Errorf("the sequence gave the ids %s", last)
	}
}

// standbyWorks uses what was copied as the application would.
func (l *lab) standbyWorks(t *testing.T) {
	t.Helper()
	foreign := l.mustQuery(t, l.standby, "SELECT DISTINCT CONSTRAINT_NAME, REFERENCED_TABLE_SCHEMA FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA=DATABASE() AND REFERENCED_TABLE_NAME IS NOT NULL ORDER BY 1")
	if want := []string{"fk1|" + l.name, "parent_ibfk_1|" + l.name}; !slices.Equal(foreign, want) {
		t.Errorf("foreign keys are %s, want %s", foreign, want)
	}
	if _, err := query(l.standby.DB(t, l.name), "INSERT INTO child (p) VALUES (77)"); err == nil {
		t.Error("a foreign key does not hold")
	}
	l.standby.Exec(t, l.name, "INSERT INTO child (p, note) VALUES (1, 'n')")
	if got := l.mustQuery(t, l.standby, "SELECT note FROM child ORDER BY id DESC LIMIT 1"); got[0] != "n 1 2 for each row é😀" {
		t.Errorf("the triggers made %q", got)
	}
	for q, want := range map[string]string{
		"SELECT twice(4), greet()":                      "8|é😀",
		"SELECT COUNT(*), MIN(d), MAX(lit) FROM a_on_z": "4|2|lit é😀",
		"SELECT COUNT(*) FROM m":                        "4",
		"SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA=DATABASE() AND STATUS='ENABLED'": "0",
	} {
		if got := l.mustQuery(t, l.standby, q); got[0] != want {
			t.Errorf("%s gives %s, want %s", q, got, want)
		}
	}
	l.standby.Exec(t, l.name, "DELETE FROM parent WHERE id = 2000")
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM child WHERE p = 2000"); got[0] != "0" {
		t.Error("ON DELETE CASCADE does not")
	}
}

func TestPromoteEnablesEvents(t *testing.T) { everywhere(t, promoteEnablesEvents) }

func promoteEnablesEvents(t *testing.T, p product) {
	l := startLab(t, p)
	richSchema(t, l)
	acceptObjects(t, l)
	l.standby.Exec(t, "", "SET GLOBAL read_only=1")
	heard, adjust := collect()
	e := l.engine(t, adjust)
	l.sync(t, e)
	heard.all()
	for range 2 {
		if _, err := e.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := heard.all(); !strings.Contains(got, "event_scheduler is OFF") {
		t.Errorf("promote warned %q", got)
	}
	want, got := definitions(t, l, l.active), definitions(t, l, l.standby)
	for _, name := range []string{"event tick", "event od`d ENABLE"} {
		if want[name] == "" || got[name] != want[name] {
			t.Errorf("%s is\n%s\nwant\n%s", name, got[name], want[name])
		}
	}
	if ro := l.mustQuery(t, l.standby, "SELECT @@global.read_only"); ro[0] != "0" {
		t.Error("the standby is still read_only")
	}
}

func TestObjectsThatTheStandbyWillNotHaveStopTheCapture(t *testing.T) {
	everywhere(t, objectsThatTheStandbyWillNotHaveStopTheCapture)
}

func objectsThatTheStandbyWillNotHaveStopTheCapture(t *testing.T, p product) {
	l := startLab(t, p)
	richSchema(t, l)
	_, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{})
	if err == nil || !strings.Contains(err.Error(), "function twice") || !strings.Contains(hint.Of(err), "log_bin_trust_function_creators") {
		t.Errorf("capture: %v (hint: %s)", err, hint.Of(err))
	}
	if left := l.mustStandbySchemas(t); len(left) != 0 {
		t.Errorf("the capture left %s", left)
	}
}

func (l *lab) mustStandbySchemas(t testing.TB) []string {
	t.Helper()
	rows, err := query(l.standby.DB(t, ""), "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '"+l.name+"%' ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func stringsOf(t testing.TB, v dbrepl.View, q string) ([]string, error) {
	var lines []string
	for line, err := range v.Strings(t.Context(), q+" WHERE '' = ?", "") {
		if err != nil {
			return lines, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// TestViewNamesItsOwnSchema: such a view arrives as it is written.
func TestViewNamesItsOwnSchema(t *testing.T) { everywhere(t, viewNamesItsOwnSchema) }

func viewNamesItsOwnSchema(t *testing.T, p product) {
	l := startLab(t, p)
	acceptObjects(t, l)
	l.active.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1; CREATE DATABASE other; CREATE TABLE other.x (a INT)")
	l.standby.Exec(t, "", "CREATE DATABASE other; CREATE TABLE other.x (a INT)")
	l.onActive(t, "CREATE TABLE a (x INT PRIMARY KEY); INSERT INTO a VALUES (1), (5); CREATE FUNCTION f1(x INT) RETURNS INT DETERMINISTIC RETURN x+1; CREATE VIEW far AS SELECT a FROM other.x")
	l.onActive(t, "CREATE VIEW vf AS SELECT "+l.name+".f1(b.x) y FROM "+l.name+".a b")
	e := l.engine(t)
	for range 2 {
		l.sync(t, e)
		if got := l.mustQuery(t, l.standby, "SELECT y FROM vf ORDER BY y"); !slices.Equal(got, []string{"2", "6"}) {
			t.Errorf("the view says %q", got)
		}
		want, got := definitions(t, l, l.active), definitions(t, l, l.standby)
		for name, w := range want {
			if got[name] != w {
				t.Errorf("%s is %s, want %s", name, got[name], w)
			}
		}
		l.onActive(t, "DELETE FROM a WHERE x = 9")
	}
}

// TestObjectsOfRoles belong to the role on the standby, also when an event was enabled there.
func TestObjectsOfRoles(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	for _, m := range []*testenv.MySQLServer{l.active, l.standby} {
		m.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1; CREATE ROLE keeper; CREATE ROLE `the keeper`; GRANT ALL ON *.* TO keeper; GRANT ALL ON *.* TO `the keeper`")
	}
	l.onActive(t, "CREATE TABLE t (n INT) ENGINE=InnoDB")
	for i, role := range []string{"keeper", "`the keeper`"} {
		l.onActive(t, fmt.Sprintf("CREATE DEFINER=%[1]s TRIGGER tr%[2]d BEFORE INSERT ON t FOR EACH ROW SET NEW.n = NEW.n + 1; CREATE DEFINER=%[1]s PROCEDURE p%[2]d() SELECT 1; "+
			"CREATE DEFINER=%[1]s VIEW v%[2]d AS SELECT n FROM t; CREATE DEFINER=%[1]s EVENT ev%[2]d ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO DELETE FROM t", role, i))
	}
	e := l.engine(t)
	l.sync(t, e)
	l.sync(t, e)
	if _, err := e.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.sameDefinitions(t, "promoted")
	for kind, column := range map[string]string{"TRIGGER tr": "sql original statement", "PROCEDURE p": "create procedure", "VIEW v": "create view", "EVENT ev": "create event"} {
		for i, role := range []string{"keeper", "the keeper"} {
			r, err := one(t.Context(), l.standby.DB(t, l.name), fmt.Sprint("SHOW CREATE ", kind, i))
			if err != nil || !strings.Contains(r.get(column), " DEFINER="+quote(role)+" ") {
				t.Errorf("%s%d is %s, %v", kind, i, r.get(column), err)
			}
		}
	}
	l.onStandby(t, "INSERT INTO t VALUES (1)")
	if got := l.mustQuery(t, l.standby, "SELECT v0.n, v1.n FROM v0 JOIN v1"); got[0] != "3|3" {
		t.Errorf("the triggers and views give %s", got)
	}
}
