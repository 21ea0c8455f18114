package mysql

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// lives are the states of a database with an object of each kind: as it is made,
// with all of them changed, and with none. A package is changed and its body is not.
func lives(mariaDB bool) []string {
	const gone = "SET sql_mode=''; DROP FUNCTION IF EXISTS f; DROP PROCEDURE IF EXISTS p; DROP TRIGGER IF EXISTS tr; DROP VIEW IF EXISTS v; DROP EVENT IF EXISTS ev"
	const made = "; CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN %[1]d; CREATE PROCEDURE p() SELECT %[1]d; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.n = REPLACE(NEW.n, '\\\\', %[1]d); " +
		"CREATE VIEW v AS SELECT n + %[1]d AS n FROM t; CREATE EVENT ev ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01 00:00:00' DISABLE DO DELETE FROM t WHERE n = %[1]d"
	if !mariaDB {
		return []string{fmt.Sprintf(gone+made, 1), fmt.Sprintf(gone+made, 2), gone}
	}
	const goneToo = gone + "; DROP SEQUENCE IF EXISTS sq; SET sql_mode=ORACLE; DROP PACKAGE IF EXISTS pk; DROP PACKAGE IF EXISTS pl; SET sql_mode=''"
	const madeToo = made + "; CREATE SEQUENCE sq INCREMENT BY %[1]d; SET sql_mode=ORACLE; CREATE PACKAGE pk AS FUNCTION f RETURN INT; FUNCTION g%[1]d RETURN INT; END; " +
		"CREATE PACKAGE pl AS FUNCTION f RETURN INT; END; CREATE PACKAGE BODY pl AS FUNCTION f RETURN INT AS BEGIN RETURN %[1]d; END; END"
	const body = "; CREATE PACKAGE BODY pk AS FUNCTION f RETURN INT AS BEGIN RETURN 1; END; FUNCTION g1 RETURN INT AS BEGIN RETURN 1; END; FUNCTION g2 RETURN INT AS BEGIN RETURN 1; END; END"
	return []string{fmt.Sprintf(goneToo+madeToo, 1) + body, fmt.Sprintf(goneToo+madeToo, 2) + body, goneToo}
}

func acceptBlind(t testing.TB, l *lab) {
	t.Helper()
	more := ""
	if l.standby.IsMariaDB() {
		more = ", SET USER, BINLOG ADMIN, READ_ONLY ADMIN"
	}
	l.standby.Exec(t, "", "CREATE USER IF NOT EXISTS blind@localhost; GRANT ALL ON `"+l.name+"%`.* TO blind@localhost; GRANT SUPER, PROCESS"+more+" ON *.* TO blind@localhost; SET GLOBAL local_infile=1")
}

// sameDefinitions compares all that the two sides define.
func (l *lab) sameDefinitions(t testing.TB, when string) {
	t.Helper()
	want, got := definitions(t, l, l.active), definitions(t, l, l.standby)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: %s is\n%s\nwant\n%s", when, name, got[name], want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %s is only on the standby", when, name)
		}
	}
}

// TestEveryKindIsPublishedAgain publishes objects of each kind as they are, changed and
// dropped, and stops each publish before each of its statements.
func TestEveryKindIsPublishedAgain(t *testing.T) { everywhere(t, everyKindIsPublishedAgain) }

func everyKindIsPublishedAgain(t *testing.T, p product) {
	active, standby := p.start(t, "--log-bin-trust-function-creators=1"), p.start(t, "--log-bin-trust-function-creators=1")
	for account, step := range map[string]int{"root": 1, "blind": 2} {
		t.Run(account, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, active, standby)
			acceptBlind(t, l)
			l.onActive(t, "CREATE TABLE t (n INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")
			for n, stopped := 1, true; stopped && !t.Failed(); n += step {
				stopped = false
				t.Run(fmt.Sprint("statement ", n), func(t *testing.T) { stopped = l.livesEndedAt(t, account, n) })
			}
		})
	}
}

// livesEndedAt publishes one state after the other and stops each publish before its n-th
// statement, if there are that many.
func (l *lab) livesEndedAt(t *testing.T, account string, n int) (stopped bool) {
	as := func(o *Options) { o.Standby.User = account }
	all := lives(l.active.IsMariaDB())
	if n == 1 {
		all = append(all, "SELECT 1") // as it was
	}
	for i, life := range all {
		when := fmt.Sprint("state ", i)
		l.onActive(t, life)
		e := l.engine(t, as)
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(when, err)
		}
		reached := crashAt(e, n)
		crash := e.before
		e.before = func(s string) error {
			if strings.HasPrefix(s, "SET ") && !reached() { // it is over with the session
				return nil
			}
			return crash(s)
		}
		err = c.Publish(t.Context())
		if (err != nil) != reached() {
			t.Fatal(when, err)
		}
		l.end(t, e)
		if !reached() {
			l.sameDefinitions(t, when)
		}
		again := l.engine(t, as)
		for round := range 2 {
			if err := again.Recover(t.Context(), c.Token()); err != nil {
				t.Fatal(when, err)
			}
			if round == 0 { // the second one would mend what the first one left
				l.sameDefinitions(t, when+", recovered")
			}
		}
		l.end(t, again)
		stopped = stopped || reached()
	}
	return stopped
}

// TestPackagesAreRestored brings back dumps with packages, and copies a replica whole,
// over what was there.
func TestPackagesAreRestored(t *testing.T) {
	t.Parallel()
	l := replicaLab(t, mariaDB)
	for _, s := range []*testenv.MySQLServer{l.active, l.standby} {
		s.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1")
	}
	acceptBlind(t, l)
	l.standby.Exec(t, "", "GRANT REPLICATION SLAVE ADMIN, SLAVE MONITOR, RELOAD ON *.* TO blind@localhost")
	l.onActive(t, "CREATE TABLE t (n INT PRIMARY KEY) ENGINE=InnoDB")
	as := func(o *Options) { o.Standby.User = "blind" }
	var dirs []string
	for _, life := range lives(true) {
		l.onActive(t, life)
		e := l.engine(t, as)
		dir, _ := l.keepDump(t, e)
		dirs = append(dirs, dir)
		l.end(t, e)
	}
	for i, dir := range append(dirs, dirs...) {
		l.onActive(t, lives(true)[i%len(dirs)])
		e := l.engine(t, as)
		l.restore(t, e, dir)
		l.sameDefinitions(t, fmt.Sprint("restored ", i))
		l.end(t, e)
	}
	r := l.replica(t, func(o *ReplicaOptions) { o.Standby.User = "blind" })
	for i, life := range append(lives(true), lives(true)...) {
		l.onActive(t, life)
		c, err := r.seed(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.sameDefinitions(t, fmt.Sprint("copied ", i))
	}
}

// TestDropsAreRehearsed: a publish may drop what the visible schema has, so an object of each
// kind of that is dropped in a capture.
func TestDropsAreRehearsed(t *testing.T) { everywhere(t, dropsAreRehearsed) }

func dropsAreRehearsed(t *testing.T, p product) {
	l := startLab(t, p)
	e := l.engine(t)
	c, err := l.standby.DB(t, "").Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.standby.Exec(t, "", "CREATE DATABASE staging")
	if err := execAll(t.Context(), c, "USE staging"); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	l.standby.Exec(t, "", "CREATE DATABASE "+l.name)
	objects := "CREATE TABLE t (id INT); CREATE VIEW v AS SELECT 1; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1; " +
		"CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1; CREATE PROCEDURE p() SELECT 1; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET @x = 1"
	if p.name == mariaDB.name {
		objects += "; SET sql_mode=ORACLE; CREATE PACKAGE pk AS FUNCTION g RETURN INT; END; CREATE PACKAGE BODY pk AS FUNCTION g RETURN INT AS BEGIN RETURN 1; END; END"
	}
	none := &copier{Engine: l.engine(t), staging: c, g: &generation{}}
	if err := none.rehearseDrops(t.Context(), func(string) error { return refused }); err != nil {
		t.Errorf("of an empty schema: %v", err)
	}
	l.onStandby(t, objects)
	for _, kind := range kinds {
		k := &copier{Engine: e, staging: c, g: &generation{}}
		err := k.rehearseDrops(t.Context(), func(s string) error {
			if strings.HasPrefix(s, "DROP "+kind+" IF") {
				return refused
			}
			return execAll(t.Context(), c, s)
		})
		if known := p.name == mariaDB.name || !strings.HasPrefix(kind, "PACKAGE"); errors.Is(err, refused) != known {
			t.Errorf("a %s: %v", kind, err)
		}
	}
}
