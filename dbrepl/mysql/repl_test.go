package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/enginetest"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

const replPassword = "pass'word \\ of replication"

// startReplicas starts a pair of servers between which replication works. A
// server of MariaDB that starts also starts its replication, as most do.
func startReplicas(t testing.TB, p product) (active, standby *testenv.MySQLServer) {
	t.Helper()
	if p.name == mariaDB.name {
		active = p.start(t, "--gtid-strict-mode=1")
		standby = p.start(t, "--gtid-strict-mode=1", "--log-slave-updates=1")
	} else {
		active = p.start(t)
		standby = p.start(t, mysqlStandby...)
	}
	active.Exec(t, "", "CREATE USER repl@'127.0.0.1' IDENTIFIED BY "+text(replPassword)+"; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'")
	return active, standby
}

// mysqlStandby is what check asks of a standby's server of MySQL.
var mysqlStandby = []string{"--skip-slave-start", "--master-info-repository=TABLE", "--relay-log-info-repository=TABLE"}

func (l *lab) replica(t testing.TB, adjust ...func(*ReplicaOptions)) *Replica {
	t.Helper()
	o := ReplicaOptions{Options: l.options(), Source: ReplicaSource{Address: l.active.Addr, User: "repl", Password: replPassword}}
	for _, a := range adjust {
		a(&o)
	}
	r, err := NewReplica(o)
	if err != nil {
		t.Fatal(err)
	}
	r.e.anyRename = !l.standby.IsMariaDB()
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func replicaLab(t testing.TB, p product) *lab {
	t.Helper()
	active, standby := startReplicas(t, p)
	return newLab(t, active, standby)
}

// showChannels words how the standby's server shows its channels.
func (r *Replica) showChannels() string { return r.words().status() }

func (r *Replica) words() dialect { return dialect{mariaDB: !r.e.anyRename} }

// giveUp makes the standby forget where it was, as an administrator would.
func (l *lab) giveUp(t testing.TB) {
	t.Helper()
	for _, s := range (dialect{mariaDB: l.standby.IsMariaDB()}).begin("") {
		l.standby.Exec(t, "", s)
	}
}

func continuous(o *ReplicaOptions) { o.Continuous = true }

func TestReplicaContract(t *testing.T) { everywhere(t, replicaContract) }

func replicaContract(t *testing.T, p product) {
	for name, adjust := range map[string]func(*ReplicaOptions){"OnDemand": func(*ReplicaOptions) {}, "Continuous": continuous} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			active, standby := startReplicas(t, p)
			enginetest.Run(t, func(t testing.TB) enginetest.Fixture {
				l := newLab(t, active, standby)
				l.onActive(t, "ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
				if p.name == mariaDB.name {
					standby.Exec(t, "", "STOP ALL SLAVES")
				} else {
					standby.Exec(t, "", "STOP SLAVE; RESET SLAVE ALL")
				}
				return enginetest.Fixture{
					Engine:  l.replica(t, adjust),
					Active:  func(t testing.TB, s string) { t.Helper(); l.onActive(t, s) },
					Standby: func(q string) ([]string, error) { return query(standby.DB(t, l.name), q) },
					Write: func(s string) error {
						_, err := standby.DB(t, l.name).Exec(s)
						return err
					},
					Open: func(t testing.TB) dbrepl.Engine { return l.replica(t, adjust) },
					Crash: func(t testing.TB, n int) (dbrepl.Engine, func() bool) {
						r := l.replica(t, adjust)
						return r, crashAt(r.e, n)
					},
				}
			})
		})
	}
}

func (l *lab) replicate(t testing.TB, r *Replica) dbrepl.Captured {
	t.Helper()
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (l *lab) count(t testing.TB, m *testenv.MariaDBServer, table string) string {
	t.Helper()
	return l.mustQuery(t, m, "SELECT COUNT(*) FROM "+table)[0]
}

// TestReplicaAppliesUpToThePoint shows that 1,000 rows arrive, what was
// written after the point does not, and of other databases nothing.
func TestReplicaAppliesUpToThePoint(t *testing.T) { everywhere(t, replicaAppliesUpToThePoint) }

func replicaAppliesUpToThePoint(t *testing.T, p product) {
	l := replicaLab(t, p)
	r := l.replica(t)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, n INT) ENGINE=InnoDB; INSERT INTO t SELECT seq, seq FROM seq_1_to_1000")
	l.replicate(t, r)
	if isSeed(t, l.replicate(t, r)) {
		t.Error("the second run copied the whole database again")
	}
	l.active.Exec(t, "", "CREATE DATABASE other_"+l.name+"; CREATE TABLE other_"+l.name+".x (a INT); INSERT INTO other_"+l.name+".x VALUES (1); CREATE USER nobody@localhost")
	l.onActive(t, "INSERT INTO t SELECT seq, seq FROM seq_1001_to_2000; ALTER TABLE t ADD COLUMN more INT DEFAULT 7")
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l.onActive(t, "INSERT INTO t SELECT seq, seq, 8 FROM seq_2001_to_3000; UPDATE t SET n = 0")
	if n := l.count(t, l.standby, "t"); n != "1000" {
		t.Errorf("before the publish the standby has %s rows", n)
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if isSeed(t, c) {
		t.Error("the third run copied the whole database")
	}
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*), MIN(n), SUM(more) FROM t"); got[0] != "2000|1|14000" {
		t.Errorf("the standby has %s", got)
	}
	for _, s := range l.mustStandbySchemas(t) {
		if strings.HasPrefix(s, "other") {
			t.Errorf("the standby got the database %s", s)
		}
	}
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM mysql.user WHERE User='nobody'"); got[0] != "0" {
		t.Error("the standby got the active's accounts")
	}
	l.replicate(t, r)
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*), MAX(n) FROM t"); got[0] != "3000|0" {
		t.Errorf("the standby has %s", got)
	}
	if c, err := r.Compare(t.Context()); err != nil || c.Different != 0 || c.Rows == 0 {
		t.Errorf("the comparison with the active finds %+v, %v", c, err)
	}
	if got, err := query(l.standby.DB(t, ""), r.showChannels()); err != nil || len(got) != 0 {
		t.Errorf("between runs there is a replication channel: %q, %v", got, err)
	}
}

// TestReplicaWithFewRights works with accounts that have what the documentation
// grants and no more, and keeps the application out until promotion.
func TestReplicaWithFewRights(t *testing.T) {
	t.Parallel()
	l := replicaLab(t, mariaDB)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1); CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM t WHERE id < 0")
	l.active.Exec(t, "", "CREATE USER reader@'127.0.0.1'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON `"+l.name+"`.* TO reader@'127.0.0.1'; "+
		"GRANT RELOAD, BINLOG MONITOR ON *.* TO reader@'127.0.0.1'; GRANT SELECT ON mysql.proc TO reader@'127.0.0.1'")
	l.standby.Exec(t, "", "SET sql_log_bin=0; CREATE USER filler@localhost; GRANT ALL ON `"+l.name+"%`.* TO filler@localhost; "+
		"CREATE USER app@localhost; GRANT ALL ON `"+l.name+"`.* TO app@localhost")
	r := l.replica(t, func(o *ReplicaOptions) { o.Active.User, o.Standby.User = "reader", "filler" })
	for _, grant := range []string{"SET USER", "REPLICATION SLAVE ADMIN, SLAVE MONITOR, RELOAD, READ_ONLY ADMIN, BINLOG ADMIN, SUPER"} {
		if _, err := r.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil {
			t.Errorf("captured without %s", grant)
		}
		l.standby.Exec(t, "", "SET sql_log_bin=0; GRANT "+grant+" ON *.* TO filler@localhost")
	}
	r = l.replica(t, func(o *ReplicaOptions) { o.Active.User, o.Standby.User = "reader", "filler" }) // sessions have the rights they began with
	for n := range 3 {
		l.replicate(t, r)
		l.onActive(t, fmt.Sprintf("INSERT INTO t VALUES (%d); CREATE EVENT ev%d ON SCHEDULE EVERY 1 DAY DO DELETE FROM t WHERE id < 0", n+10, n))
	}
	for _, f := range l.mustFindings(t, r) {
		if strings.HasPrefix(f, "true") {
			t.Errorf("check finds %s", f)
		}
	}
	app := func() error {
		c := l.options().Standby
		c.User = "app"
		s := newServer("standby", c, r.e.opt.Timeouts)
		defer s.close()
		db, err := s.session(t.Context(), l.name)
		if err != nil {
			return err
		}
		defer db.Close()
		_, err = db.ExecContext(t.Context(), "INSERT INTO t VALUES (99)")
		return err
	}
	if err := app(); !hasNumber(err, errReadOnly) {
		t.Errorf("the application writes on the standby: %v", err)
	}
	const enabled = "SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE() AND STATUS = 'ENABLED'"
	if got := l.mustQuery(t, l.standby, enabled); got[0] != "0" {
		t.Errorf("%s events are enabled before the promotion", got[0])
	}
	p, err := r.Promote(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if gtidOf(p.Position) == "" || p.Time.IsZero() {
		t.Errorf("promoted at %+v", p)
	}
	if got := l.mustQuery(t, l.standby, enabled); got[0] != "3" { // ev, ev0 and ev1
		t.Errorf("%s events are enabled after the promotion", got[0])
	}
	if err := app(); err != nil {
		t.Errorf("the application cannot write after the promotion: %v", err)
	}
}

// TestReplicaCannotReceive is about what the active's server refuses: one clear
// line, without the password, and nothing changed.
func TestReplicaCannotReceive(t *testing.T) { everywhere(t, replicaCannotReceive) }

func replicaCannotReceive(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable)
	l.replicate(t, l.replica(t))
	l.manyTransactions(t, 1)
	l.active.Exec(t, "", "CREATE USER weak@'127.0.0.1' IDENTIFIED BY 'w'")
	for name, c := range map[string]struct {
		adjust func(*ReplicaOptions)
		says   string
	}{
		"password": {func(o *ReplicaOptions) { o.Source.Password = "secret-nonsense" }, "Access denied"},
		"right":    {func(o *ReplicaOptions) { o.Source.User, o.Source.Password = "weak", "w" }, "COM_REGISTER_SLAVE"},
		"address":  {func(o *ReplicaOptions) { o.Source.Address = "127.0.0.1:1" }, "127.0.0.1:1"},
		"TLS":      {func(o *ReplicaOptions) { o.Source.TLS = true }, "SSL"},
	} {
		r := l.replica(t, c.adjust, func(o *ReplicaOptions) { o.Quiet, o.Connect = 2*time.Second, 2*time.Second })
		_, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
		if p.name != mariaDB.name { // which says no more
			c.says = strings.NewReplacer("Access denied", "(error 1045)", "SSL", "file of certificates").Replace(c.says)
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		} else if s := err.Error() + hint.Of(err); strings.Contains(s, "nonsense") || strings.Contains(s, "\n") {
			t.Errorf("%s: the error is %q", name, s)
		}
		if name == "password" || name == "right" {
			if got := l.mustFindings(t, r); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "true active account") }) {
				t.Errorf("%s: check finds %q", name, got)
			}
		}
		if err := r.Recover(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if got := l.counter(t); got != wantCounter(0) {
			t.Errorf("%s: the standby has %s", name, got)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	r := l.replica(t, func(o *ReplicaOptions) { o.Source.Address = "127.0.0.1:1" })
	r.e.opt.Event = func(event.Event) { cancel(stop) }
	if _, err := r.Capture(ctx, dbrepl.CaptureOptions{}); !errors.Is(err, stop) {
		t.Errorf("a cancelled capture: %v", err)
	}
	l.replicate(t, l.replica(t))
	if got := l.counter(t); got != wantCounter(1) {
		t.Errorf("the standby has %s", got)
	}
}

// TestReplicaSnapshotDies ends the sessions in which the point is read.
func TestReplicaSnapshotDies(t *testing.T) { everywhere(t, replicaSnapshotDies) }

func replicaSnapshotDies(t *testing.T, p product) {
	l := replicaLab(t, p)
	l.onActive(t, counterTable)
	r := l.replica(t)
	l.replicate(t, r)
	l.manyTransactions(t, 1)
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, id := range l.mustQuery(t, l.active, "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Sleep' AND ID <> CONNECTION_ID()") {
		l.active.Exec(t, "", "KILL "+id)
	}
	for range viewSessions + 1 {
		var last error
		for _, err := range c.Strings(t.Context(), "SELECT n FROM counter WHERE 'x' = ?", "x") {
			last = err
		}
		if last == nil {
			t.Error("a question was answered after the snapshot's sessions had died")
		}
	}
	if err := c.Publish(t.Context()); err != nil { // everything is here
		t.Fatal(err)
	}
	if got := ask(t, c, "SELECT n FROM counter WHERE 'x' = ?"); got != "1" {
		t.Errorf("the published point has %s", got)
	}
}

// TestReplicaCheck names what would stop or spoil replication.
func TestReplicaCheck(t *testing.T) {
	t.Parallel()
	active := mariaDB.start(t, "--binlog-format=MIXED", "--expire-logs-days=1")
	_, port, _ := strings.Cut(active.Addr, ":")
	standby := mariaDB.start(t, "--server-id="+port, "--relay-log-recovery=1", "--slave-skip-errors=1062", "--slave-run-triggers-for-rbr=YES", "--skip-log-bin", "--event-scheduler=1",
		"--innodb-flush-log-at-trx-commit=2", "--skip-innodb-doublewrite")
	l := newLab(t, active, standby)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB")
	want := func(wants ...string) {
		t.Helper()
		got := l.mustFindings(t, l.replica(t))
		for _, w := range wants {
			if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, w) }) {
				t.Errorf("check does not find %q but\n%s", w, strings.Join(got, "\n"))
			}
		}
	}
	want("true active server: binlog_format is MIXED", "true standby server: it has the active's server_id")
	active.Exec(t, "", "SET GLOBAL binlog_format=ROW; CREATE USER repl@'127.0.0.1'")
	standby.Exec(t, "", "SET GLOBAL server_id=7")
	want("true standby server: relay_log_recovery", "true standby server: slave_skip_errors", "true standby server: slave_run_triggers_for_rbr", "true standby server: innodb_flush_log_at_trx_commit is 2", "(SET GLOBAL innodb_flush_log_at_trx_commit=1 -- and",
		"false standby server: innodb_doublewrite is OFF", "false standby server: it has no binary log", "false active server: gtid_strict_mode", "false standby server: gtid_strict_mode")
	if _, err := l.replica(t).Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil {
		t.Error("captured in spite of it")
	}

	standby = mariaDB.start(t, "--event-scheduler=1")
	l = newLab(t, active, standby)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB")
	standby.Exec(t, "", "CREATE USER other@localhost; GRANT ALL ON *.* TO other@localhost; CREATE DATABASE mine; CREATE EVENT mine.ev ON SCHEDULE EVERY 1 DAY DO SELECT 1; "+
		"CHANGE MASTER 'else' TO MASTER_HOST='elsewhere.example', MASTER_USER='x'")
	want("true standby server: it already replicates from elsewhere.example:3306, connection 'else' (-- give drsync a server of its own; or, ", "false standby server: accounts that may write", "false standby server: event_scheduler is on", "true active account repl")
	standby.Exec(t, "", "RESET SLAVE 'else' ALL")
	active.Exec(t, "", "DROP USER repl@'127.0.0.1'; CREATE USER repl@'127.0.0.1' IDENTIFIED BY "+text(replPassword))
	want("true active account repl: it lacks REPLICATION SLAVE")
}

func isSeed(t testing.TB, c dbrepl.Captured) bool {
	t.Helper()
	token, _, err := parseReplicaToken(c.Token(), c.(interface{ name() string }).name())
	if err != nil {
		t.Fatal(err)
	}
	return token.Seed
}

func (c *captured) name() string { return c.g.Name }
func (c *followed) name() string { return c.g.Name }

func (l *lab) mustFindings(t testing.TB, r *Replica) []string {
	t.Helper()
	all, err := r.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range all {
		lines = append(lines, fmt.Sprintf("%v %s: %s (%s)", f.Fatal, f.Subject, f.Problem, f.Fix))
	}
	slices.Sort(lines)
	return lines
}
