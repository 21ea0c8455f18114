package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// visibleObjects shows all that the visible schema has beside its tables.
func (l *lab) visibleObjects(t testing.TB) (all []string) {
	t.Helper()
	c, err := l.standby.DB(t, l.name).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	objects, err := readObjects(t.Context(), c, l.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		all = append(all, o.fingerprint())
	}
	slices.Sort(all) // triggers of one table have an order, others none
	return all
}

const oldObjects = "CREATE TABLE t (id INT PRIMARY KEY, n INT) ENGINE=InnoDB; INSERT INTO t VALUES (1, 1); CREATE TABLE u (n INT) ENGINE=InnoDB; " +
	"CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1; CREATE PROCEDURE p() SELECT 1; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.n = f(); CREATE TRIGGER tr2 AFTER INSERT ON u FOR EACH ROW DELETE FROM t; " +
	"CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM u; CREATE VIEW v AS SELECT n FROM t; CREATE VIEW w AS SELECT n FROM v; " +
	"SET NAMES latin1; CREATE TRIGGER tr3 BEFORE UPDATE ON t FOR EACH ROW SET @x = CONCAT(_utf8mb4'é', '\\\\'); SET NAMES utf8mb4"

const newObjects = "UPDATE t SET n = %d; DROP TRIGGER tr2; DROP VIEW IF EXISTS v; DROP TABLE IF EXISTS v; CREATE TABLE v (n INT) ENGINE=InnoDB; CREATE OR REPLACE VIEW w AS SELECT 2 AS n; DROP PROCEDURE p; CREATE PROCEDURE p() SELECT 2"

// TestCaptureThatIsGone takes the capture away when a publish was ended at any of its
// statements: the generation before it has its triggers and views again.
func TestCaptureThatIsGone(t *testing.T) { everywhere(t, captureThatIsGone) }

func captureThatIsGone(t *testing.T, p product) {
	active, standby := p.start(t, "--log-bin-trust-function-creators=1"), p.start(t, "--log-bin-trust-function-creators=1")
	for n := 1; ; n++ {
		l := newLab(t, active, standby)
		l.onActive(t, oldObjects)
		first := l.engine(t)
		l.sync(t, first)
		l.end(t, first)
		before := l.visibleObjects(t)
		l.onActive(t, fmt.Sprintf(newObjects, n))
		e := l.engine(t)
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		renamed := false
		reached := crashAt(e, n)
		crash := e.before
		e.before = func(s string) error {
			err := crash(s)
			renamed = renamed || err == nil && strings.HasPrefix(s, "RENAME TABLE "+quote(l.name)+".")
			return err
		}
		if err := c.Publish(t.Context()); !reached() && err != nil {
			t.Fatal(err)
		}
		if renamed {
			if n < 9 {
				t.Errorf("the swap has only %d statements", n)
			}
			return
		}
		// A recovery that is ended as well, at each of its first statements, spoils nothing.
		for m := range 3 {
			ended := l.engine(t)
			crashAt(ended, m+1)
			_ = ended.Recover(t.Context(), c.Token())
			l.end(t, ended)
		}
		l.standby.Exec(t, "", "DROP DATABASE "+quote(l.name+newSuffix))
		for m := range 3 {
			ended := l.engine(t)
			crashAt(ended, m+1)
			if err := ended.Recover(t.Context(), c.Token()); err != nil && !errors.Is(err, dbrepl.ErrCaptureGone) && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			l.end(t, ended)
		}
		l.end(t, e)
		again := l.engine(t)
		for range 2 {
			if err := again.Recover(t.Context(), c.Token()); !errors.Is(err, dbrepl.ErrCaptureGone) {
				t.Fatalf("ended at statement %d: recovered without the capture: %v", n, err)
			}
			if after := l.visibleObjects(t); !slices.Equal(before, after) {
				t.Fatalf("ended at statement %d the generation before has\n%s\nit had\n%s", n, strings.Join(after, "\n"), strings.Join(before, "\n"))
			}
		}
		if err := again.Recover(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		l.sync(t, again)
		want := l.visibleObjectsOf(t, active)
		if got := l.visibleObjects(t); len(got) != len(want) {
			t.Errorf("the next run publishes\n%s\nwant\n%s", got, want)
		}
		l.end(t, again)
	}
}

// visibleObjectsOf names the objects of a server.
func (l *lab) visibleObjectsOf(t testing.TB, m *testenv.MySQLServer) []string {
	t.Helper()
	beside := *l
	beside.standby = m
	return beside.visibleObjects(t)
}

// TestReplicasSeedThatIsGone is the same of a replica that is copied anew: what its
// generation has is not in its marker.
func TestReplicasSeedThatIsGone(t *testing.T) { everywhere(t, replicasSeedThatIsGone) }

func replicasSeedThatIsGone(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.active.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1")
	l.standby.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1")
	r := l.replica(t)
	l.onActive(t, oldObjects)
	l.replicate(t, r)
	l.onActive(t, "UPDATE t SET n = 5; CREATE TRIGGER later BEFORE UPDATE ON t FOR EACH ROW SET NEW.n = 7")
	l.replicate(t, r) // which may copy
	l.onActive(t, "INSERT INTO u VALUES (5)")
	l.replicate(t, r)
	before := l.visibleObjects(t)
	for n := 1; ; n++ {
		c, err := r.seed(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		renamed := false
		reached := crashAt(r.e, n)
		crash := r.e.before
		r.e.before = func(s string) error {
			err := crash(s)
			renamed = renamed || err == nil && strings.HasPrefix(s, "RENAME TABLE "+quote(l.name)+".")
			return err
		}
		if err := c.Publish(t.Context()); !reached() && err != nil {
			t.Fatal(err)
		}
		r.e.before = nil
		if renamed {
			return
		}
		l.standby.Exec(t, "", "SET sql_log_bin=0; DROP DATABASE IF EXISTS "+quote(l.name+newSuffix))
		if err := r.Recover(t.Context(), c.Token()); !errors.Is(err, dbrepl.ErrCaptureGone) {
			t.Fatalf("ended at statement %d: recovered without the capture: %v", n, err)
		}
		if after := l.visibleObjects(t); !slices.Equal(before, after) {
			t.Fatalf("ended at statement %d the generation before has\n%s\nit had\n%s", n, strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
		if _, err := r.Visible(t.Context()); err != nil {
			t.Fatalf("ended at statement %d: %v", n, err)
		}
	}
}
