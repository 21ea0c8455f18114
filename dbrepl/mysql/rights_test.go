package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// right is one right of an account: on "*" or on the schemas of a lab.
type right struct {
	active bool
	name   string
	on     string
}

// rightsOf are the rights of both accounts, each one that README grants: what ALL is on
// a schema is spelled out.
func (l *lab) rightsOf() (all []right) {
	add := func(active bool, on string, names ...string) {
		for _, n := range names {
			all = append(all, right{active, n, on})
		}
	}
	name := asPattern(l.name)
	beside := "`" + strings.ReplaceAll(l.name, "_", `\_`) + "%`.*"
	add(true, name+".*", "SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "LOCK TABLES")
	add(false, beside, append(slices.Clone(standbyRights), "CREATE TEMPORARY TABLES")...)
	if l.active.IsMariaDB() {
		add(true, "*.*", "RELOAD", "BINLOG MONITOR")
		add(true, "mysql.proc", "SELECT")
		add(false, beside, "DELETE HISTORY")
		add(false, "*.*", "SUPER", "PROCESS", "SET USER", "BINLOG ADMIN", "READ_ONLY ADMIN")
	} else {
		add(true, "*.*", "SELECT", "RELOAD", "PROCESS", "REPLICATION CLIENT") // SHOW_ROUTINE is of 8.0
		add(false, "*.*", "SUPER", "PROCESS")
	}
	return all
}

func (l *lab) serverOf(r right) *testenv.MySQLServer {
	if r.active {
		return l.active
	}
	return l.standby
}

// TestEachRightIsAskedForOrNotNeeded takes every right of both accounts away, one at a
// time: either Check says that a run would be refused, or it comes to its end.
func TestEachRightIsAskedForOrNotNeeded(t *testing.T) { everywhere(t, eachRight) }

func eachRight(t *testing.T, p product) {
	active := p.start(t, "--log-bin-trust-function-creators=1")
	for name, start := range map[string]func() *lab{
		"Logged":   func() *lab { return newLab(t, active, p.start(t)) },
		"Unlogged": func() *lab { return newLab(t, p.unlogged(t), p.unlogged(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachRightOf(t, start())
		})
	}
}

func eachRightOf(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE, FOREIGN KEY (u) REFERENCES t (id)) ENGINE=InnoDB; INSERT INTO t VALUES (1, NULL); "+
		"CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1; CREATE PROCEDURE p() SELECT 1; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.u = NULL; "+
		"CREATE VIEW v AS SELECT id, f() AS n FROM t; CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM t WHERE id = 7")
	if l.active.IsMariaDB() {
		l.onActive(t, "CREATE SEQUENCE s")
	}
	const account = " TO 'drs-ync'@'%'"
	for _, m := range []*testenv.MySQLServer{l.active, l.standby} {
		m.Exec(t, "", "CREATE USER 'drs-ync'@'%'")
	}
	all := l.rightsOf()
	for _, r := range all {
		l.serverOf(r).Exec(t, "", "GRANT "+r.name+" ON "+r.on+account)
	}
	run := func(what string) (fatal bool) {
		l.standby.Exec(t, "", "SET GLOBAL read_only=1")
		e := l.engine(t, func(o *Options) { o.Active.User, o.Standby.User = "drs-ync", "drs-ync" })
		defer l.end(t, e)
		findings, err := e.Check(t.Context())
		if err != nil {
			t.Errorf("%s: check: %v", what, err)
			return false
		}
		var problems []string
		for _, f := range findings {
			if f.Fatal {
				problems = append(problems, f.Problem)
			}
		}
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
		if problems != nil {
			if err == nil {
				t.Errorf("%s: check says %s, and the capture is made", what, problems)
				_ = c.Discard(t.Context())
			}
			return true
		}
		if err == nil {
			err = c.Publish(t.Context())
		}
		if err == nil {
			_, err = e.Promote(t.Context())
		}
		if err != nil {
			t.Errorf("%s: check says nothing of it: %v", what, err)
		}
		return false
	}
	if run("with all") {
		t.Fatal("with all rights of README a run is refused")
	}
	needed := 0
	for _, r := range all {
		m := l.serverOf(r)
		m.Exec(t, "", "REVOKE "+r.name+" ON "+r.on+" FROM 'drs-ync'@'%'")
		if run(fmt.Sprintf("without %+v", r)) {
			needed++
		}
		m.Exec(t, "", "GRANT "+r.name+" ON "+r.on+account)
	}
	if needed < 20 {
		t.Errorf("only %d of %d rights are needed", needed, len(all))
	}
	t.Logf("%d of %d rights are needed", needed, len(all))
	if run("with all again") {
		t.Error("with all rights a run is refused")
	}
}
