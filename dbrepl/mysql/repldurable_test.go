package mysql

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// TestReplicaRefusesALazyServer: no run begins on a standby whose server does not
// write its log at each commit, and a publish that had begun goes on all the same.
func TestReplicaRefusesALazyServer(t *testing.T) { everywhere(t, replicaRefusesALazyServer) }

func replicaRefusesALazyServer(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable)
	l.replicate(t, l.replica(t))
	const last = 1500
	l.manyTransactions(t, last)
	token := l.killDuringApply(t, l.replica(t), 100)
	l.standby.Start()
	for _, lazy := range []string{"0", "2"} {
		l.standby.Exec(t, "", "SET GLOBAL innodb_flush_log_at_trx_commit="+lazy)
		next := l.replica(t)
		if err := next.Recover(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if got := l.counter(t); got != wantCounter(last) {
			t.Fatalf("after recovery the standby has %s, want %s", got, wantCounter(last))
		}
		_, err := next.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err == nil || !strings.Contains(err.Error(), "innodb_flush_log_at_trx_commit is "+lazy) {
			t.Fatalf("with %s a run begins: %v", lazy, err)
		}
		fix, _, _ := strings.Cut(hint.Of(err), " --")
		if !strings.HasSuffix(fix, "SET GLOBAL innodb_flush_log_at_trx_commit=1") {
			t.Errorf("the hint is %q", hint.Of(err))
		}
	}
	l.standby.Exec(t, "", "SET GLOBAL innodb_flush_log_at_trx_commit=1")
	l.manyTransactions(t, 10)
	l.replicate(t, l.replica(t))
	if got := l.counter(t); got != wantCounter(last+10) {
		t.Errorf("the standby has %s", got)
	}
	if p.name == mySQL.name {
		l.standby.Exec(t, "", "SET GLOBAL sync_binlog=0")
		_, err := l.replica(t).Capture(t.Context(), dbrepl.CaptureOptions{})
		if l.mustQuery(t, l.standby, "SELECT @@log_slave_updates")[0] == "1" && (err == nil || !strings.Contains(err.Error(), "sync_binlog is 0")) {
			t.Errorf("with sync_binlog=0 a run begins: %v", err)
		}
	}
}

// TestPublishedIsDurable kills the standby's server as soon as a copy is published,
// where it writes its log once in a second only: what was published is there.
func TestPublishedIsDurable(t *testing.T) { everywhere(t, publishedIsDurable) }

func publishedIsDurable(t *testing.T, p product) {
	active, standby := p.start(t), p.start(t, "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-log-at-timeout=2700")
	l := newLab(t, active, standby)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(200), KEY (v)) ENGINE=InnoDB; INSERT INTO t SELECT seq, REPEAT('x', seq % 200) FROM seq_1_to_3000; "+
		"CREATE TABLE u (id INT PRIMARY KEY) ENGINE=InnoDB; CREATE VIEW v AS SELECT 1 x; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 'y'; "+
		"CREATE PROCEDURE p() SELECT 1; CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO SELECT 1")
	if l.active.IsMariaDB() {
		l.onActive(t, "CREATE SEQUENCE s")
	}
	standby.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1; CREATE DATABASE other; CREATE TABLE other.lazy (id INT) ENGINE=InnoDB")
	const rounds = 10
	for round := range rounds {
		l.onActive(t, "UPDATE t SET v = CONCAT('a', v) WHERE id % 10 = 0; INSERT INTO u SELECT COALESCE(MAX(id), 0) + 1 FROM u")
		if l.active.IsMariaDB() {
			l.onActive(t, fmt.Sprintf("SELECT SETVAL(s, %d)", 5000*(round+1)))
		}
		e := l.engine(t)
		c := l.sync(t, e)
		token := c.Token()
		standby.Exec(t, "", "SET sql_log_bin=0; INSERT INTO other.lazy VALUES (1)")
		standby.Kill()
		c.Close()
		e.Close()
		standby.Start()
		standby.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1")
		visible, err := readMarker(t.Context(), standby.DB(t, ""), l.name, l.name)
		if err != nil || visible == nil {
			t.Fatalf("round %d: the marker is %v, %v", round, visible, err)
		}
		if g, err := parseToken(token, l.name); err != nil || g.ID != visible.ID {
			t.Fatalf("round %d: the generation is %s, published was %v, %v", round, visible.ID, g, err)
		}
		r := l.compare(t)
		if r.Different != 0 {
			t.Fatalf("round %d: %+v", round, r.Differences)
		}
	}
	if kept := l.count(t, standby, "other.lazy"); kept == strconv.Itoa(rounds) {
		t.Error("the server lost nothing else, so this shows nothing")
	}
}
