package mysql

import (
	"errors"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

func TestReplicaVerified(t *testing.T) { everywhere(t, replicaVerified) }

// replicaVerified compares what was replicated with the active as of the point,
// while the active goes on.
func replicaVerified(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable+"; CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20)) ENGINE=InnoDB; INSERT INTO t SELECT seq, 'x' FROM seq_1_to_2000; CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO SELECT 1")
	r := l.replica(t)
	publish := func() dbrepl.Captured {
		t.Helper()
		c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		l.manyTransactions(t, 3)
		l.onActive(t, "UPDATE t SET v = CONCAT(v, 'y') WHERE id < 100")
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if _, later := publish().(dbrepl.Verifier); later {
		t.Error("a copy is verified only after its publish")
	}
	verify := func(c dbrepl.Captured) error {
		t.Helper()
		v, ok := c.(dbrepl.Verifier)
		if !ok {
			t.Fatalf("what was replicated, %T, cannot be verified", c)
		}
		return v.Verify(t.Context())
	}
	if err := verify(publish()); err != nil {
		t.Error(err)
	}
	c := publish()
	l.onStandby(t, "SET sql_log_bin=0; UPDATE t SET v = 'z' WHERE id = 1234")
	if err := verify(c); err == nil || !strings.Contains(err.Error(), "t from 1") || !strings.Contains(hint.Of(err), "RESET MASTER") {
		t.Errorf("a row that differs: %v (hint: %s)", err, hint.Of(err))
	}
	l.onStandby(t, "SET sql_log_bin=0; UPDATE t SET v = 'x' WHERE id = 1234")
	c = publish()
	l.onActive(t, "ALTER TABLE t ADD COLUMN more INT")
	if err := verify(c); !errors.Is(err, errChanged) {
		t.Errorf("a table that was altered since: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := verify(publish()); err != nil {
		t.Error(err)
	}
}
