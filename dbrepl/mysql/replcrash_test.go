package mysql

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// manyTransactions makes n small transactions, each of which counts one up.
func (l *lab) manyTransactions(t testing.TB, n int) {
	t.Helper()
	c, err := l.active.DB(t, l.name).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.ExecContext(t.Context(), "UPDATE counter SET n = n + 1"); err != nil {
			t.Fatal(err)
		}
	}
}

const counterTable = "CREATE TABLE counter (id INT PRIMARY KEY, n INT) ENGINE=InnoDB; INSERT INTO counter VALUES (1, 0); CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, n INT) ENGINE=InnoDB; " +
	"CREATE TRIGGER tr AFTER UPDATE ON counter FOR EACH ROW INSERT INTO log (n) VALUES (NEW.n)"

func (l *lab) counter(t testing.TB) string {
	t.Helper()
	return l.mustQuery(t, l.standby, "SELECT (SELECT n FROM counter), (SELECT COUNT(*) FROM log), (SELECT COALESCE(SUM(n),0) FROM log)")[0]
}

func wantCounter(n int) string { return fmt.Sprintf("%d|%d|%d", n, n, n*(n+1)/2) }

// waitFor asks the standby's server until a query gives what is wanted.
func (l *lab) waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waiting for %s in vain", what)
		}
	}
}

// killDuringApply captures, kills the standby's server while it applies, and
// returns the token of the publish.
func (l *lab) killDuringApply(t testing.TB, r *Replica, least int) dbrepl.Token {
	t.Helper()
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	db := l.standby.DB(t, l.name)
	pid, done := l.standby.PID(), make(chan struct{})
	r.e.before = func(statement string) error {
		if strings.Contains(statement, "SQL_THREAD UNTIL") {
			go func() {
				defer close(done)
				l.waitFor(t, "the apply", func() bool {
					got, err := query(db, "SELECT n FROM counter")
					var n int
					if err == nil {
						_, err = fmt.Sscan(got[0], &n)
					}
					return err != nil || n > least
				})
				killPID(pid)
			}()
		}
		return nil
	}
	if err := c.Publish(t.Context()); err == nil {
		t.Fatal("the publish came to its end before the server was killed")
	}
	<-done
	l.standby.Kill()
	return c.Token()
}

// TestReplicaServerKilledDuringApply kills the standby's server in the middle of
// an apply, and the active with it: the publish is finished without it.
func TestReplicaServerKilledDuringApply(t *testing.T) { everywhere(t, replicaServerKilledDuringApply) }

func replicaServerKilledDuringApply(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable)
	l.replicate(t, l.replica(t))
	const last = 4000
	l.manyTransactions(t, last)
	token := l.killDuringApply(t, l.replica(t), 300)
	l.manyTransactions(t, 50)
	l.active.Kill()
	l.standby.Start()
	next := l.replica(t)
	for range 2 {
		if err := next.Recover(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if got := l.counter(t); got != wantCounter(last) {
			t.Fatalf("after recovery the standby has %s, want %s", got, wantCounter(last))
		}
	}
	if _, err := next.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.onStandby(t, "UPDATE counter SET n = n + 1")
}

// TestReplicaServerRestartedBeforeThePublish restarts the standby's server while
// files would be copied. It begins to replicate by itself, and applies nothing.
func TestReplicaServerRestartedBeforeThePublish(t *testing.T) {
	everywhere(t, replicaServerRestartedBeforeThePublish)
}

func replicaServerRestartedBeforeThePublish(t *testing.T, p product) {
	for name, adjust := range map[string]func(*ReplicaOptions){"OnDemand": func(*ReplicaOptions) {}, "Continuous": continuous} {
		t.Run(name, func(t *testing.T) {
			l := replicaLab(t, p)
			r := l.replica(t, adjust)
			l.onActive(t, counterTable)
			l.replicate(t, r)
			l.manyTransactions(t, 20)
			c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			l.manyTransactions(t, 20)
			l.standby.Kill()
			l.standby.Start()
			// What the server received by itself goes beyond the point.
			db, newest := l.standby.DB(t, ""), gtidOf(l.position(t))
			if p.name == mariaDB.name {
				l.waitFor(t, "replication that starts by itself", func() bool {
					got, err := query(db, "SHOW ALL SLAVES STATUS")
					return err == nil && len(got) == 1 && strings.Contains(got[0], newest)
				})
			}
			if got := l.counter(t); got != wantCounter(0) {
				t.Fatalf("before the publish the standby has %s", got)
			}
			if err := c.Publish(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := l.counter(t); got != wantCounter(20) {
				t.Fatalf("the standby has %s, want %s", got, wantCounter(20))
			}
			l.replicate(t, l.replica(t, adjust))
			if got := l.counter(t); got != wantCounter(40) {
				t.Errorf("the standby has %s, want %s", got, wantCounter(40))
			}
		})
	}
}

// position is the active's position as a point has it.
func (l *lab) position(t testing.TB) string {
	t.Helper()
	return "x " + l.gtid(t)
}

// TestReplicaDamagedRelayLogs loses what was received in the middle of an
// apply. With the active it is received again; without, the error says where the
// standby stands, and nobody may promote it.
func TestReplicaDamagedRelayLogs(t *testing.T) { everywhere(t, replicaDamagedRelayLogs) }

func replicaDamagedRelayLogs(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable)
	l.replicate(t, l.replica(t))
	const last = 4000
	l.manyTransactions(t, last)
	token := l.killDuringApply(t, l.replica(t), 300)
	logs, err := filepath.Glob(filepath.Join(l.standby.Datadir, "*relay-bin-drsync.0*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no relay logs: %v", err)
	}
	for _, path := range logs {
		if info, err := os.Stat(path); err != nil {
			t.Fatal(err)
		} else if err := os.Truncate(path, info.Size()*2/3); err != nil {
			t.Fatal(err)
		}
	}
	l.active.Kill()
	l.standby.Start()
	r := l.replica(t, func(o *ReplicaOptions) { o.Quiet, o.Connect = time.Second, time.Second })
	err = r.Recover(t.Context(), token)
	if err == nil || !strings.Contains(err.Error(), "the standby's database stands at GTID") || errors.Is(err, dbrepl.ErrCaptureGone) {
		t.Errorf("recovery without relay logs and active: %v", err)
	}
	if _, err := r.Promote(t.Context()); err == nil {
		t.Error("a database between two snapshots was promoted")
	}
	if _, err := r.Visible(t.Context()); err == nil || errors.Is(err, dbrepl.ErrNoDatabase) {
		t.Errorf("a database between two snapshots is shown: %v", err)
	}
	l.active.Start()
	l.manyTransactions(t, 50)
	if err := r.Recover(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if got := l.counter(t); got != wantCounter(last) {
		t.Errorf("the standby has %s, want %s", got, wantCounter(last))
	}
	l.replicate(t, r)
	if got := l.counter(t); got != wantCounter(last+50) {
		t.Errorf("the standby has %s, want %s", got, wantCounter(last+50))
	}
}

// TestReplicaGivenUp follows what the error about a replica between two
// snapshots says: then the whole database is copied anew.
func TestReplicaGivenUp(t *testing.T) { everywhere(t, replicaGivenUp) }

func replicaGivenUp(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable)
	r := l.replica(t)
	l.replicate(t, r)
	l.manyTransactions(t, 5)
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.standby.Exec(t, l.name, "SET sql_log_bin=0; DELETE FROM counter")
	err = c.Publish(t.Context())
	if err == nil || !strings.Contains(err.Error(), "counter") {
		t.Fatalf("applied onto rows that are not there: %v", err)
	}
	l.standby.Exec(t, "", r.words().stop()+"; "+r.words().forget())
	l.giveUp(t)
	if err := r.Recover(t.Context(), c.Token()); !errors.Is(err, dbrepl.ErrCaptureGone) {
		t.Errorf("recovery of a replica that was given up: %v", err)
	}
	if _, err := r.Visible(t.Context()); !errors.Is(err, dbrepl.ErrNoDatabase) {
		t.Errorf("what is visible after that: %v", err)
	}
	if err := r.Recover(t.Context(), nil); err != nil {
		t.Error(err)
	}
	again := l.replicate(t, r)
	if got := l.counter(t); got != wantCounter(5) || !isSeed(t, again) {
		t.Errorf("the standby has %s, copied whole: %v", got, isSeed(t, again))
	}
}

// TestReplicaLost is about what replication cannot go on from.
func TestReplicaLost(t *testing.T) { everywhere(t, replicaLost) }

func replicaLost(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable)
	l.replicate(t, l.replica(t))
	n := 0
	for _, lost := range []struct {
		how  string
		do   func()
		says string
	}{
		{"the active purged its binary logs", func() {
			l.onActive(t, "FLUSH BINARY LOGS")
			l.manyTransactions(t, 1)
			n++
			l.onActive(t, "FLUSH BINARY LOGS; FLUSH BINARY LOGS")
			newest := strings.Split(l.mustQuery(t, l.active, "SHOW MASTER STATUS")[0], "|")[0]
			db := l.active.DB(t, "")
			l.waitFor(t, "a purge", func() bool { // what InnoDB has not checkpointed stays
				if _, err := db.Exec("PURGE BINARY LOGS TO '" + newest + "'"); err != nil {
					t.Fatal(err)
				}
				left, err := query(db, "SHOW BINARY LOGS")
				return err == nil && len(left) == 1
			})
		}, "cannot serve"},
		{"the standby lost its position", func() { l.giveUp(t) }, "does not know its GTID position"},
		{"the active went back", func() { l.active.Exec(t, "", "RESET MASTER"); l.manyTransactions(t, 1); n++ }, "knows nothing"},
	} {
		l.manyTransactions(t, 2)
		n += 2
		lost.do()
		heard, adjust := collect()
		r := l.replica(t, func(o *ReplicaOptions) { adjust(&o.Options) })
		c := l.replicate(t, r)
		if !isSeed(t, c) {
			t.Errorf("%s: the database was not copied anew", lost.how)
		}
		if got := heard.all(); !strings.Contains(got, "copy of the whole database") || !strings.Contains(got, lost.says) {
			t.Errorf("%s: it warned %q", lost.how, got)
		}
		l.manyTransactions(t, 1)
		n++
		if isSeed(t, l.replicate(t, r)) {
			t.Errorf("%s: replication did not go on after it", lost.how)
		}
		if got := l.counter(t); got != wantCounter(n) {
			t.Errorf("%s: the standby has %s, want %s", lost.how, got, wantCounter(n))
		}
	}
}

// TestReplicaErrantTransaction writes on the standby by itself.
func TestReplicaErrantTransaction(t *testing.T) { everywhere(t, replicaErrantTransaction) }

func replicaErrantTransaction(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable)
	r := l.replica(t)
	l.replicate(t, r)
	l.manyTransactions(t, 1)
	l.replicate(t, r)
	l.onStandby(t, "UPDATE log SET n = 7")
	_, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err == nil || !strings.Contains(err.Error(), "transactions of its own") {
		t.Fatalf("captured over a transaction of the standby's own: %v", err)
	}
	if got := l.mustFindings(t, r); !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "true standby server: it has transactions") }) {
		t.Errorf("check finds %q", got)
	}
	l.giveUp(t) // as the error says
	if !isSeed(t, l.replicate(t, r)) || l.counter(t) != wantCounter(1) {
		t.Errorf("after that the standby has %s", l.counter(t))
	}
}

// TestReplicaWhileMoneyMoves runs again and again while transfers go on: the sum
// is exact in the snapshot and on the standby.
func TestReplicaWhileMoneyMoves(t *testing.T) { everywhere(t, replicaWhileMoneyMoves) }

func replicaWhileMoneyMoves(t *testing.T, p product) {
	for name, adjust := range map[string]func(*ReplicaOptions){"OnDemand": func(*ReplicaOptions) {}, "Continuous": continuous} {
		t.Run(name, func(t *testing.T) {
			l := replicaLab(t, p)
			l.onActive(t, "CREATE TABLE account (id INT PRIMARY KEY, money INT) ENGINE=InnoDB; INSERT INTO account SELECT seq, 100 FROM seq_1_to_100; CREATE TABLE account2 LIKE account; INSERT INTO account2 SELECT * FROM account; "+
				"CREATE TABLE moved (n INT) ENGINE=InnoDB; INSERT INTO moved VALUES (0)")
			r := l.replica(t, adjust)
			stop := transfers(t, l.active, l.name)
			const total = "SELECT 'sum', (SELECT SUM(money) FROM account) + (SELECT SUM(money) FROM account2) FROM moved WHERE 'x' = ?"
			moved := ""
			for range 6 {
				c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
				if err != nil {
					t.Fatal(err)
				}
				for s, err := range c.Strings(t.Context(), total, "x") {
					if err != nil || s != "sum/20000" {
						t.Errorf("the snapshot has %s, %v", s, err)
					}
				}
				in := ask(t, c, "SELECT n FROM moved WHERE 'x' = ?")
				if err := c.Publish(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := ask(t, c, total); got != "sum/20000" {
					t.Errorf("the standby has %s", got)
				}
				if got := ask(t, c, "SELECT n FROM moved WHERE 'x' = ?"); got != in || got == moved {
					t.Errorf("%s transfers in the snapshot, %s on the standby, %s before", in, got, moved)
				}
				moved = in
				c.Close()
			}
			stop()
		})
	}
}

func ask(t testing.TB, v dbrepl.View, q string) string {
	t.Helper()
	var all []string
	for s, err := range v.Strings(t.Context(), q, "x") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return strings.Join(all, "\n")
}

// transfers moves money between two tables until stop is called.
func transfers(t testing.TB, m *testenv.MariaDBServer, schema string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	db := m.DB(t, schema)
	go func() {
		var err error
		for i := 0; err == nil && ctx.Err() == nil; i++ {
			_, err = db.Exec(fmt.Sprintf("BEGIN; UPDATE account SET money = money - 7 WHERE id = %d; UPDATE account2 SET money = money + 7 WHERE id = %d; UPDATE moved SET n = n + 1; COMMIT", i%100+1, (i*37)%100+1))
		}
		done <- err
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the writer: %v", err)
		}
	}
}
