package mysql

import (
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
)

// TestMySQLWithoutAtomicRename is refused, by captures and by restores: what the
// other tests run with is for them alone.
func TestMySQLWithoutAtomicRename(t *testing.T) {
	t.Parallel()
	l := startLab(t, mySQL)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")
	dir, _ := l.keepDump(t, l.engine(t))
	e := l.engine(t)
	e.anyRename = false
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "RENAME TABLE half done") {
		t.Errorf("capture: %v", err)
	}
	if _, err := e.Restore(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "RENAME TABLE half done") {
		t.Errorf("restore: %v", err)
	}
}

// TestMySQLReplicaCheck names what would stop or spoil replication on MySQL.
func TestMySQLReplicaCheck(t *testing.T) {
	t.Parallel()
	active := mySQL.start(t, "--binlog-format=MIXED", "--expire-logs-days=1")
	_, port, _ := strings.Cut(active.Addr, ":")
	standby := mySQL.start(t, "--server-id="+port, "--relay-log-recovery=1", "--slave-skip-errors=1062", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--skip-log-slave-updates")
	want := func(l *lab, adjust func(*ReplicaOptions), wants ...string) {
		t.Helper()
		got := strings.Join(l.mustFindings(t, l.replica(t, adjust)), "\n")
		for _, w := range wants {
			if !strings.Contains(got, w) {
				t.Errorf("check does not find %q but\n%s", w, got)
			}
		}
	}
	same := func(*ReplicaOptions) {}
	l := newLab(t, active, standby)
	want(l, same, "true active server: binlog_format is MIXED", "true standby server: it has the active's server_id")
	active.Exec(t, "", "SET GLOBAL binlog_format=ROW; CREATE USER repl@'127.0.0.1' IDENTIFIED BY "+text(replPassword))
	standby.Exec(t, "", "SET GLOBAL server_id=7")
	want(l, func(o *ReplicaOptions) { o.Source.TLS = true },
		"true standby server: relay_log_recovery", "true standby server: slave_skip_errors", "true standby server: gtid_mode", "false standby server: it does not tell whether it was started with skip_slave_start",
		"true standby server: master_info_repository is FILE", "true standby server: relay_log_info_repository is FILE", "true standby server: MySQL verifies", "false standby server: log_slave_updates is off")

	standby = mySQL.start(t, append(mysqlStandby, "--event-scheduler=1")...)
	l = newLab(t, active, standby)
	standby.Exec(t, "", "CREATE USER other@localhost; GRANT SUPER ON *.* TO other@localhost; CREATE DATABASE mine; CREATE EVENT mine.ev ON SCHEDULE EVERY 1 DAY DO SELECT 1; "+
		"CHANGE MASTER TO MASTER_HOST='elsewhere.example', MASTER_USER='x' FOR CHANNEL 'else'")
	want(l, same, "true standby server: it already replicates from elsewhere.example", "false standby server: accounts that may write although read_only is on: 'other'@'localhost'",
		"false standby server: event_scheduler is on", "true active account repl: it lacks REPLICATION SLAVE")
}
