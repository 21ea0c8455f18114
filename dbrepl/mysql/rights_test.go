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
		add(true, "*.*", "RELOAD", "BINLOG MONITOR", "BINLOG ADMIN", "PROCESS")
		add(true, "mysql.proc", "SELECT")
		add(false, beside, "DELETE HISTORY")
		add(false, "*.*", "SUPER", "PROCESS", "SET USER", "BINLOG ADMIN", "READ_ONLY ADMIN")
		add(false, "mysql.proc", "SELECT")
	} else {
		add(true, "*.*", "SELECT", "RELOAD", "PROCESS", "REPLICATION CLIENT") // SHOW_ROUTINE is of 8.0
		add(false, "*.*", "SUPER", "PROCESS")
	}
	add(false, "mysql.user", "SELECT")
	return all
}

func (l *lab) serverOf(r right) *testenv.MySQLServer {
	if r.active {
		return l.active
	}
	return l.standby
}

const grantee = "'drs-ync'@'%'"

// TestEachRightIsAskedForOrNotNeeded takes every right of both accounts away, one at a
// time: either Check says that a run would be refused, or it comes to its end.
func TestEachRightIsAskedForOrNotNeeded(t *testing.T) { everywhere(t, eachRight) }

func eachRight(t *testing.T, p product) {
	const trust = "--log-bin-trust-function-creators=1"
	as := func(o *Options) { o.Active.User, o.Standby.User = "drs-ync", "drs-ync" }
	for name, start := range map[string]func() *walk{
		"Logged":   func() *walk { return &walk{lab: newLab(t, p.start(t, trust), p.start(t))} },
		"Unlogged": func() *walk { return &walk{lab: newLab(t, p.unlogged(t), p.unlogged(t))} },
		"Replica": func() *walk {
			l := replicaLab(t, p)
			l.active.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1")
			return &walk{lab: l, replica: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start()
			w.open = func(t testing.TB) dbrepl.Engine { return w.engine(t, as) }
			if w.replica {
				w.open = func(t testing.TB) dbrepl.Engine { return w.lab.replica(t, func(o *ReplicaOptions) { as(&o.Options) }) }
			}
			w.eachRight(t)
		})
	}
}

// walk goes over all rights on two servers.
type walk struct {
	*lab
	replica bool
	open    func(t testing.TB) dbrepl.Engine
}

func (w *walk) rights() []right {
	all := w.rightsOf()
	if w.replica {
		names := []string{"RELOAD", "REPLICATION CLIENT"} // SUPER of 5.7 is the rest
		if w.active.IsMariaDB() {
			names = []string{"RELOAD", "REPLICATION SLAVE ADMIN", "SLAVE MONITOR"}
		}
		for _, n := range names {
			all = append(all, right{name: n, on: "*.*"})
		}
	}
	return all
}

func (w *walk) eachRight(t *testing.T) {
	w.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, u INT UNIQUE, FOREIGN KEY (u) REFERENCES t (id)) ENGINE=InnoDB; INSERT INTO t VALUES (1, NULL); "+
		"CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1; CREATE PROCEDURE p() SELECT 1; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.u = NULL; "+
		"CREATE VIEW v AS SELECT id, f() AS n FROM t; CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM t WHERE id = 7")
	if w.active.IsMariaDB() {
		w.onActive(t, "CREATE SEQUENCE s")
	}
	for _, m := range []*testenv.MySQLServer{w.active, w.standby} {
		m.Exec(t, "", "SET sql_log_bin=0; CREATE USER "+grantee)
	}
	all := w.rights()
	for _, r := range all {
		w.serverOf(r).Exec(t, "", "SET sql_log_bin=0; GRANT "+r.name+" ON "+r.on+" TO "+grantee)
	}
	if w.run(t, "with all") {
		t.Fatal("with all rights of README a run is refused")
	}
	needed := 0
	for _, r := range all {
		if w.replica && r.active {
			continue // they are needed for a copy, as without replication
		}
		m := w.serverOf(r)
		m.Exec(t, "", "SET sql_log_bin=0; REVOKE "+r.name+" ON "+r.on+" FROM "+grantee)
		what := fmt.Sprintf("without %+v", r)
		if w.run(t, what) {
			needed++
		} else if w.replica { // a run that copies the whole schema
			w.giveUp(t)
			w.run(t, what+", copied")
		}
		m.Exec(t, "", "SET sql_log_bin=0; GRANT "+r.name+" ON "+r.on+" TO "+grantee)
	}
	if needed < 15 {
		t.Errorf("only %d of %d rights are needed", needed, len(all))
	}
	t.Logf("%d of %d rights are needed", needed, len(all))
	if w.run(t, "with all again") {
		t.Error("with all rights a run is refused")
	}
}

// run does all that an engine does, unless Check finds that a run would be refused.
func (w *walk) run(t testing.TB, what string) (refused bool) {
	w.onActive(t, "INSERT INTO t SELECT MAX(id) + 1, NULL FROM t")
	w.standby.Exec(t, "", "SET GLOBAL read_only=1")
	e := w.open(t)
	defer e.Close()
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
	if err == nil {
		defer c.Close()
	}
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
	if v, ok := c.(dbrepl.Verifier); ok && err == nil {
		err = v.Verify(t.Context())
	}
	if err == nil {
		_, err = e.Promote(t.Context())
	}
	if err != nil {
		t.Errorf("%s: check says nothing of it: %v", what, err)
	}
	return false
}
