package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
)

// TestSequencesAreCompared: a standby's sequence must not give a number that the
// active's has given.
func TestSequencesAreCompared(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	l.onActive(t, "CREATE SEQUENCE up CACHE 5; CREATE SEQUENCE down START WITH 100 INCREMENT BY -3 MINVALUE -1000 MAXVALUE 100 NOCACHE; "+
		"CREATE SEQUENCE round START WITH 1 MAXVALUE 50 NOCACHE CYCLE; CREATE SEQUENCE back START WITH 0 MINVALUE -50 MAXVALUE 0 INCREMENT BY -1 NOCACHE CYCLE; "+
		"CREATE SEQUENCE spent START WITH 1 MAXVALUE 3 NOCACHE")
	l.onActive(t, "SELECT SETVAL(up, 500), SETVAL(down, 40), SETVAL(round, 20, 1, 2), SETVAL(back, -20, 1, 1), NEXTVAL(spent), NEXTVAL(spent)")
	e := l.engine(t)
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if err == nil {
		err = c.Publish(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if r := l.compare(t); r.Different != 0 {
		t.Fatalf("at once: %+v", r.Differences)
	}
	for _, c := range []struct{ standby, want string }{
		{"ALTER SEQUENCE up RESTART 3", "up: the sequence is behind the active's: next is 3, on the active 501"},
		{"SELECT SETVAL(up, 1000)", ""},
		{"ALTER SEQUENCE down RESTART 70", "down: the sequence is behind the active's: next is 70, on the active 37"},
		{"ALTER SEQUENCE down RESTART -70", ""},
		{"ALTER SEQUENCE round RESTART 19", "round: the sequence is behind the active's: next is 19 in round 0, on the active 21 in round 2"},
		{"SELECT SETVAL(round, 10, 1, 2)", "round: "},
		{"SELECT SETVAL(round, 10, 1, 3)", ""},
		{"ALTER SEQUENCE back RESTART -19; SELECT SETVAL(back, -19, 0, 1)", "back: "},
		{"SELECT SETVAL(back, -40, 1, 1)", ""},
		{"SELECT NEXTVAL(spent)", ""},
	} {
		l.onStandby(t, c.standby)
		var got string
		for _, d := range l.compare(t).Differences {
			got += d.String() + "\n"
		}
		if (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("after %s: %q, want %q", c.standby, got, c.want)
		}
	}
	l.onActive(t, "SELECT SETVAL(up, 5000)")
	if r := l.compare(t); r.Different != 1 || r.Differences[0].Table != "up" {
		t.Errorf("the active went on: %+v", r.Differences)
	}
}

func TestBehind(t *testing.T) {
	for _, c := range []struct {
		s, active sequenceState
		want      bool
	}{
		{sequenceState{"3", "0", false}, sequenceState{"4", "0", false}, true},
		{sequenceState{"4", "0", false}, sequenceState{"4", "0", false}, false},
		{sequenceState{"-3", "0", true}, sequenceState{"-4", "0", true}, true},
		{sequenceState{"-4", "0", true}, sequenceState{"-3", "0", true}, false},
		{sequenceState{"9", "1", false}, sequenceState{"1", "2", false}, true},
		{sequenceState{"1", "2", false}, sequenceState{"9", "1", false}, false},
		{sequenceState{"1", "2", true}, sequenceState{"9", "1", true}, false},
		{sequenceState{"9223372036854775807", "0", false}, sequenceState{"18446744073709551615", "0", false}, true},
	} {
		if got := c.s.isBehind(c.active); got != c.want {
			t.Errorf("%+v behind %+v: %v", c.s, c.active, got)
		}
	}
}

// ahead says whether the standby's sequence gives no number that a row has.
func (l *lab) ahead(t testing.TB, sequence, table string) {
	t.Helper()
	got := l.mustQuery(t, l.standby, "SELECT (SELECT next_not_cached_value FROM "+sequence+"), COALESCE(MAX(id), 0) FROM "+table)[0]
	next, most, _ := strings.Cut(got, "|")
	n, err := strconv.Atoi(next)
	m, err2 := strconv.Atoi(most)
	if err != nil || err2 != nil || n <= m {
		t.Errorf("the sequence gives %s next, and there is a row %s", next, most)
	}
}

// TestReplicaSequences: a statement that takes numbers writes where the sequence is at
// its end, and others that used them may be committed by then. What is published at a
// point between is not behind its rows.
func TestReplicaSequences(t *testing.T) {
	t.Parallel()
	l := replicaLab(t, mariaDB)
	l.onActive(t, "CREATE SEQUENCE s CACHE 10; CREATE TABLE t (id INT PRIMARY KEY DEFAULT NEXTVAL(s), v INT) ENGINE=InnoDB; INSERT INTO t (v) VALUES (1)")
	l.replicate(t, l.replica(t))
	l.ahead(t, "s", "t")
	db := l.active.DB(t, l.name)
	holder, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := holder.ExecContext(t.Context(), "SELECT GET_LOCK('turn', 10)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := db.Exec("INSERT INTO t (v) SELECT IF(seq = 15, GET_LOCK('turn', 60), 0) FROM seq_1_to_25")
		done <- err
	}()
	l.waitFor(t, "the statement", func() bool {
		return l.mustQuery(t, l.active, "SELECT next_not_cached_value FROM s")[0] == "21"
	})
	l.waitFor(t, "its lock", func() bool {
		return l.mustQuery(t, l.active, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'")[0] == "1"
	})
	l.onActive(t, "INSERT INTO t (v) VALUES (99)")
	r := l.replica(t)
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if isSeed(t, c) {
		t.Fatal("the database was copied")
	}
	// A crash just before the marker is told is recovered from.
	r.e.before = func(statement string) error {
		if strings.HasPrefix(statement, "UPDATE ") && strings.Contains(statement, markerTable) {
			return errCrash
		}
		return nil
	}
	if err := c.Publish(t.Context()); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	r.e.before = nil
	for range 2 {
		if err := r.Recover(t.Context(), c.Token()); err != nil {
			t.Fatal(err)
		}
		l.ahead(t, "s", "t")
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.(dbrepl.Verifier).Verify(t.Context()); err != nil {
		t.Error(err)
	}
	l.ahead(t, "s", "t")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if got := l.count(t, l.standby, "t"); got != "2" {
		t.Errorf("the standby has %s rows", got)
	}
	if _, err := holder.ExecContext(t.Context(), "SELECT RELEASE_LOCK('turn')"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.replicate(t, r)
	l.ahead(t, "s", "t")
	if r := l.compare(t); r.Different != 0 {
		t.Errorf("at last: %+v", r.Differences)
	}
}

// TestCapturedSequences: numbers are taken all the time while the database is copied.
func TestCapturedSequences(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	l.onActive(t, "CREATE SEQUENCE s CACHE 3; CREATE TABLE t (id INT PRIMARY KEY DEFAULT NEXTVAL(s), v INT) ENGINE=InnoDB; INSERT INTO t (v) VALUES (1)")
	stop, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	db := l.active.DB(t, l.name)
	go func() {
		var err error
		for i := 0; err == nil && stop.Err() == nil; i++ {
			_, err = db.Exec(fmt.Sprintf("INSERT INTO t (v) VALUES (%d), (%[1]d)", i))
		}
		done <- err
	}()
	e := l.engine(t)
	for range 5 {
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
		if err == nil {
			err = c.Publish(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		l.ahead(t, "s", "t")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
