package mysql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

var errInvalid = errors.New("not taken")

// hostileValues are expressions as authors write them, in the bytes of their client.
var hostileValues = []string{
	`'plain'`, `REPLACE('a\\b', '\\', '/')`, `'it\'s'`, `'it''s'`, `'\\'`, `CONCAT('\\\'', 'x')`, `_latin1'\\x'`, `_latin1'it\'s'`, `'\Z\0\n\r\t\%\_'`, "'two\nlines'",
	`'é'`, `CONCAT('é', _utf8mb4'é')`, `CONCAT('é', _latin1'é', N'é')`, "'\xe9'", "CONCAT(_latin1'\xe9', 'x')", "HEX(_binary'\xff\xfe\x5c\x5c')", `'é😀'`, `CONCAT(_utf8mb4'é😀', 'x')`, "'\x95\x5c\x5c'", "'\xd5\x5c\x5c'", `'? ?? %s %[1]d'`,
	`"dq 'x' for each row"`, `CONCAT("it""s", 'x')`, "'for each row', `t`", `/* for each row */ 'a' -- it's "x` + "\n", "'a' # '\n", `CONCAT('a' /*! , 'b' */)`, `CONCAT('a' /*!99999 , 'b' */)`, `CONCAT('a' /*M! , 'b' */)`,
	`CONCAT('a' /*!50000 , 'é\\' */)`, `0x5c27`, `X'c3a9'`, `_utf8mb4 X'c3a9'`, `CONCAT('/*', '*/', '#', '-- ')`, `'DELIMITER ;;'`, `'a' 'b' "c"`,
}

// hostile makes objects of one kind with all of the values that the active takes.
type hostile struct {
	l       *lab
	n       int
	made    []string // names of objects
	clients []string
	modes   []string
}

// everyWay runs a function in all sessions with all values.
func (h *hostile) everyWay(t *testing.T, make func(c func(string) error, name, mode, value string) error) {
	t.Helper()
	c, err := h.l.active.DB(t, h.l.name).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	do := func(s string) error { _, err := c.ExecContext(context.Background(), s); return err }
	for _, client := range h.clients {
		for _, mode := range h.modes {
			for _, value := range hostileValues {
				h.n++
				name := fmt.Sprint("o", h.n)
				if err := do("SET NAMES " + client + "; SET sql_mode='" + mode + "'"); err != nil {
					t.Fatal(err)
				}
				if make(do, name, mode, value) == nil {
					h.made = append(h.made, name)
				}
			}
		}
	}
	if len(h.made) < h.n/2 {
		t.Errorf("the active takes only %d of %d", len(h.made), h.n)
	}
}

func newHostile(t *testing.T, l *lab) *hostile {
	l.onActive(t, "CREATE TABLE begun (n INT PRIMARY KEY) ENGINE=InnoDB")
	h := &hostile{l: l, clients: []string{"utf8mb4", "utf8", "latin1", "binary", "sjis", "gbk"}, modes: []string{"", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES", "ORACLE"}}
	if !l.active.IsMariaDB() {
		h.modes = h.modes[:2]
	}
	return h
}

// TestDefinitionsAsWritten copies objects with all that can stand in a text: they are shown
// alike on both sides, byte by byte, and do the same.
func TestDefinitionsAsWritten(t *testing.T) { everywhere(t, definitionsAsWritten) }

func definitionsAsWritten(t *testing.T, p product) {
	active, standby := p.start(t, "--log-bin-trust-function-creators=1"), p.start(t, "--log-bin-trust-function-creators=1")
	for name, run := range map[string]func(*testing.T, *lab){
		"triggers": hostileTriggers, "views": hostileViews, "functions": hostileFunctions, "events": hostileEvents, "refused": refusedDefinitions,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, newLab(t, active, standby))
		})
	}
}

// shownRaw is a column of SHOW CREATE without any conversion.
func shownRaw(t *testing.T, l *lab, m *testenv.MySQLServer, kind, column string, names []string) map[string]string {
	t.Helper()
	c, err := m.DB(t, l.name).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ExecContext(t.Context(), "SET character_set_results=NULL"); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, name := range names {
		r, err := one(t.Context(), c, "SHOW CREATE "+kind+" "+quote(name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = r.get(column)
	}
	return all
}

// sameShown compares what both sides show.
func (h *hostile) sameShown(t *testing.T, kind, column string) {
	t.Helper()
	want, got := shownRaw(t, h.l, h.l.active, kind, column, h.made), shownRaw(t, h.l, h.l.standby, kind, column, h.made)
	for name, w := range want {
		if w == "" || got[name] != w {
			t.Errorf("%s is\n%q\nwant\n%q", name, got[name], w)
		}
	}
}

// sameResults compares what both sides answer.
func (h *hostile) sameResults(t *testing.T, q func(name string) string) {
	t.Helper()
	active, standby := h.l.active.DB(t, h.l.name), h.l.standby.DB(t, h.l.name)
	for _, name := range h.made {
		want, err := query(active, q(name))
		got, err2 := query(standby, q(name))
		if fmt.Sprint(want, err) != fmt.Sprint(got, err2) {
			t.Errorf("%s gives %q, %v, want %q, %v", name, got, err2, want, err)
		}
	}
}

func (h *hostile) publish(t *testing.T) {
	t.Helper()
	e := h.l.engine(t)
	h.l.sync(t, e)
	h.l.sameDefinitions(t, "published")
	remade := 0
	e.before = func(s string) error {
		if strings.HasPrefix(s, "CREATE ") && !strings.Contains(s, " TRIGGER ") && !strings.Contains(s, "DATABASE") && !strings.Contains(s, "drsync_") {
			remade++
		}
		return nil
	}
	h.l.sync(t, e)
	if h.l.sameDefinitions(t, "published again"); remade > 0 {
		t.Errorf("%d objects that were right were made again", remade)
	}
}

func hostileViews(t *testing.T, l *lab) {
	h := newHostile(t, l)
	h.everyWay(t, func(do func(string) error, name, _, value string) error {
		err := do("CREATE VIEW " + name + " AS SELECT CONCAT(" + value + ") AS x")
		if err == nil && do("SHOW CREATE VIEW "+name) != nil { // MySQL makes some that it cannot read
			_ = do("DROP VIEW " + name)
			err = errInvalid
		}
		return err
	})
	h.publish(t)
	h.sameShown(t, "VIEW", "create view")
	h.sameResults(t, func(name string) string { return "SELECT HEX(x), COLLATION(x) FROM " + name })
}

func hostileFunctions(t *testing.T, l *lab) {
	h := newHostile(t, l)
	h.everyWay(t, func(do func(string) error, name, mode, value string) error {
		if mode == "ORACLE" {
			return do("CREATE FUNCTION " + name + "(a VARCHAR(9)) RETURN VARCHAR(99) CHARACTER SET utf8mb4 AS BEGIN RETURN CONCAT(" + value + "); END")
		}
		return do("CREATE FUNCTION " + name + "(`a` INT) RETURNS VARCHAR(99) CHARSET utf8mb4 RETURN CONCAT(" + value + ")")
	})
	h.publish(t)
	h.sameShown(t, "FUNCTION", "create function")
	answer := func(name string) string { return "SELECT HEX(" + name + "(1))" }
	h.sameResults(t, answer)
	e := l.engine(t)
	dir, _ := l.keepDump(t, e)
	l.onStandby(t, "DROP FUNCTION "+h.made[0])
	l.restore(t, e, dir)
	l.sameDefinitions(t, "restored")
	h.sameResults(t, answer)
	b := l.beside(t, e, dir)
	there, here := l.standby.DB(t, l.name), b.standby.DB(t, b.name)
	for _, name := range h.made {
		want, err := query(there, answer(name))
		got, err2 := query(here, answer(name))
		if fmt.Sprint(want, err) != fmt.Sprint(got, err2) {
			t.Errorf("restored beside, %s gives %q, %v, want %q, %v", name, got, err2, want, err)
		}
	}
}

func hostileEvents(t *testing.T, l *lab) {
	h := newHostile(t, l)
	h.everyWay(t, func(do func(string) error, name, _, value string) error {
		return do("CREATE EVENT " + name + " ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01 00:00:00' DISABLE DO SET @x = CONCAT(" + value + ")")
	})
	h.publish(t)
	h.sameShown(t, "EVENT", "create event")
}

// hostileTriggers has all values in all sessions, behind all heads.
func hostileTriggers(t *testing.T, l *lab) {
	h := newHostile(t, l)
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	h.everyWay(t, func(do func(string) error, name, mode, value string) error {
		gap := func() string {
			return pick(" ", "\n\t", "/**/ ", " /* for each row ' */ ", " # for each row \"\n", " -- it's\n", " /*! */ ", " /*!99999 for each row */ ", "/*!40000 */ ")
		}
		quoted := quote
		if strings.Contains(mode, "ANSI_QUOTES") && r.IntN(2) == 0 {
			quoted = func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
		}
		table, odd := name, pick("", "for each row ", "row", "`", `"`, "on")
		if odd != "" {
			table = name + odd
		}
		if do("CREATE TABLE "+quote(table)+" (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(99) CHARACTER SET utf8mb4) ENGINE=InnoDB") != nil {
			return errInvalid
		}
		before := ""
		if r.IntN(3) == 0 {
			before = gap() + pick("precedes", "FOLLOWS") + gap() + quoted(name+"first")
			if err := do("CREATE TRIGGER " + quote(name+"first") + " BEFORE INSERT ON " + quote(table) + " FOR EACH ROW SET NEW.v = CONCAT(NEW.v, 'first')"); err != nil {
				return err
			}
		}
		create, exists := "CREATE"+gap(), ""
		if l.active.IsMariaDB() {
			create += pick("", "OR"+gap()+"REPLACE"+gap())
			if !strings.Contains(create, "OR") {
				exists = pick("", "IF NOT"+gap()+"EXISTS"+gap())
			}
		}
		create += pick("", "DEFINER"+gap()+"="+gap()+"root@localhost"+gap(), "/*!50017 DEFINER=`root`@`localhost`*/ ") + "trigger" + gap() + exists
		schema := pick("", quoted(l.name)+pick("", gap())+"."+pick("", gap()))
		body := pick("SET NEW.v=", "BEGIN SET NEW.v=", "follows: BEGIN SET NEW.v=", "`for`: BEGIN SET NEW.v=")
		end := ""
		if strings.Contains(body, "BEGIN") {
			end = "; END"
			if mode == "ORACLE" {
				body = "BEGIN :NEW.v := "
			}
		}
		return do(create + schema + quoted(name) + gap() + "BEFORE" + gap() + "insert" + gap() + "ON" + gap() + schema + quoted(table) + gap() +
			"FOR" + gap() + "each" + gap() + "Row" + before + gap() + body + " CONCAT(NEW.v, " + value + ")" + end)
	})
	h.publish(t)
	const column = "sql original statement"
	want, got := shownRaw(t, l, l.active, "TRIGGER", column, h.made), shownRaw(t, l, l.standby, "TRIGGER", column, h.made)
	for name, w := range want {
		_, body, ok := strings.Cut(got[name], " FOR EACH ROW ")
		if !ok || body == "" || !strings.HasSuffix(w, body) {
			t.Errorf("%s is\n%q\nof\n%q", name, got[name], w)
		}
	}
	tables := l.mustQuery(t, l.active, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA=DATABASE() AND TABLE_NAME LIKE 'o%'")
	for _, m := range []*testenv.MySQLServer{l.active, l.standby} {
		db := m.DB(t, l.name)
		for _, table := range tables {
			_, _ = db.ExecContext(t.Context(), "INSERT INTO "+quote(table)+" (v) VALUES ('a\\\\b')") // a wrong text is wrong on both
		}
	}
	h.made = tables
	h.sameResults(t, func(table string) string { return "SELECT id, HEX(v) FROM " + quote(table) })
}

// refusedDefinitions cannot be told as they were written, and stop a capture with what would help.
func refusedDefinitions(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (v VARCHAR(99)) ENGINE=InnoDB; CREATE TABLE `é` (v VARCHAR(99)) ENGINE=InnoDB")
	for drop, create := range map[string]string{
		"PROCEDURE p": "CREATE PROCEDURE p() COMMENT '\xe9' SELECT 1",
		"EVENT ev":    "CREATE EVENT `ev` ON SCHEDULE EVERY 1 DAY COMMENT '\xe9' DO SELECT 1",
		"VIEW v":      "CREATE VIEW v AS SELECT '\xe9' AS `\xe9`",
		"TRIGGER tr":  "CREATE TRIGGER tr BEFORE INSERT ON `\xe9` FOR EACH ROW SET NEW.v = _latin1'\xe9'",
	} {
		l.onActive(t, "SET NAMES latin1; "+create)
		kind, name, _ := strings.Cut(strings.ToLower(drop), " ")
		e := l.engine(t)
		_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err == nil || !strings.Contains(err.Error(), kind+" "+name+" was made by a client of the character set latin1") || !strings.Contains(hint.Of(err), "SET NAMES utf8mb4") {
			t.Errorf("%s: %v (hint: %s)", create, err, hint.Of(err))
		}
		l.end(t, e)
		l.onActive(t, "DROP "+drop)
	}
	if !l.active.IsMariaDB() {
		l.onActive(t, "SET NAMES sjis; SET sql_mode=NO_BACKSLASH_ESCAPES; CREATE VIEW v AS SELECT CONCAT('\x95\x5c\x5c') AS x")
		e := l.engine(t)
		if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "view v is one that the server cannot read") {
			t.Errorf("a view that MySQL cannot read: %v", err)
		}
		l.end(t, e)
		l.onActive(t, "DROP VIEW v")
	}
	l.onActive(t, "SET NAMES latin1; CREATE TRIGGER tr BEFORE INSERT ON `\xe9` FOR EACH ROW SET NEW.v = '\xe9'")
	// 4-byte characters from a client of three, in the head and in the body.
	l.onActive(t, "SET NAMES utf8; CREATE TRIGGER /* 😀 */ tr2 AFTER INSERT ON `é` FOR EACH ROW INSERT INTO t VALUES (HEX(_utf8mb4'😀'))")
	e := l.engine(t)
	l.sync(t, e)
	// What stands on the standby and cannot be read makes way.
	l.onStandby(t, "SET NAMES latin1; CREATE VIEW strange AS SELECT 1 AS `\xe9`; CREATE TRIGGER strange BEFORE UPDATE ON `\xe9` FOR EACH ROW SET NEW.v = _latin1'\xe9'; CREATE EVENT strange ON SCHEDULE EVERY 1 DAY COMMENT '\xe9' DO SELECT 1")
	l.sync(t, e)
	if left := strings.Join(l.visibleObjects(t), "\n"); strings.Contains(left, "strange") {
		t.Errorf("after what cannot be read there is\n%s", left)
	}
	for _, m := range []*testenv.MySQLServer{l.active, l.standby} {
		m.Exec(t, l.name, "INSERT INTO `é` VALUES ('x')")
		if got := l.mustQuery(t, m, "SELECT HEX(v) FROM `é`"); got[0] != l.mustQuery(t, l.active, "SELECT HEX(v) FROM `é`")[0] {
			t.Errorf("the trigger makes %s", got)
		}
		if got := l.mustQuery(t, m, "SELECT v FROM t"); got[0] != "F09F9880" {
			t.Errorf("the trigger writes %s", got)
		}
	}
}

// TestViewOfAnotherClient: names are shown as they are, whatever the character set of who
// made them.
func TestViewOfAnotherClient(t *testing.T) { everywhere(t, viewOfAnotherClient) }

func viewOfAnotherClient(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE t1 (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t1 VALUES (7); SET NAMES latin1; CREATE VIEW v AS SELECT id AS `Gr\xf6\xdfe` FROM t1")
	l.sync(t, l.engine(t))
	if got := l.mustQuery(t, l.standby, "SELECT `Größe` FROM v"); len(got) != 1 || got[0] != "7" {
		t.Errorf("the view shows %q", got)
	}
	if r := l.compare(t); r.Different != 0 || r.Uncompared != nil {
		t.Errorf("%+v", r)
	}
}
