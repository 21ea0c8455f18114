package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

// newReplicated makes a pair of a tree and a PostgreSQL server that is
// replicated, the standby's server in the hands of drsync's commands.
func newReplicated(t *testing.T) (p *pair, active, standby *testenv.PostgresServer) {
	t.Helper()
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.Require(t, "runuser")
	active, standby = testenv.Postgres(t), testenv.PostgresFrom(t, func(string) {})
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p = &pair{t: t, dir: dir}
	p.config = p.path("drsync.yaml")
	for _, dir := range []string{"active", "standby", "state"} {
		if err := os.MkdirAll(p.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.write(p.path("db.pw"), "x", 0o600)
	control := func(what, options string) string {
		return fmt.Sprintf("[runuser, -u, postgres, --, %q, %s, -D, %q, -m, fast, -l, %q, -w, -o, %q]",
			filepath.Join(standby.Bin, "pg_ctl"), what, standby.Datadir, filepath.Join(filepath.Dir(standby.Socket), "log"), options)
	}
	_, port, _ := strings.Cut(standby.Addr, ":")
	p.write(p.config, fmt.Sprintf(`active: {home: %[1]s/active, transport: local}
standby: {home: %[1]s/standby, state: %[1]s/state}
application: custom
database:
  engine: postgres
  mode: replication
  name: artifactory
  active:  {address: "%[2]s", user: drsync, password: "file:db.pw"}
  standby: {address: "%[3]s", user: drsync, password: "file:db.pw"}
  replication:
    data_directory: %[4]s
    start: %[5]s
    stop: %[6]s
`, p.dir, active.Addr, standby.Addr, standby.Datadir,
		control("start", "-c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB -c port="+port+" -c unix_socket_directories="+filepath.Dir(standby.Socket)),
		control("stop", "-c fsync=off")), 0o600)
	t.Cleanup(func() {
		_ = standby.Command("pg_ctl", "stop", "-m", "immediate", "-D", standby.Datadir).Run() // it may not run
	})
	active.Exec(t, "postgres", "CREATE ROLE artifactory; CREATE ROLE drsync LOGIN REPLICATION PASSWORD 'x' IN ROLE pg_read_all_data")
	active.Exec(t, "postgres", "CREATE DATABASE artifactory OWNER artifactory")
	active.Exec(t, "artifactory", "SET ROLE artifactory; CREATE TABLE t (n int); CREATE TABLE u (n int); INSERT INTO t VALUES (0); INSERT INTO u VALUES (0)")
	return p, active, standby
}

// generation lets the active's database and tree say n.
func (p *pair) generation(active *testenv.PostgresServer, n int) {
	p.t.Helper()
	active.Exec(p.t, "artifactory", fmt.Sprintf("UPDATE t SET n = %d; UPDATE u SET n = %d", n, n))
	p.write(p.path("active", "generation"), fmt.Sprint(n), 0o644)
}

// TestPostgresByReplication takes a database through the life of a pair, by the
// account that the README gives, until the standby is promoted.
func TestPostgresByReplication(t *testing.T) {
	p, active, standby := newReplicated(t)
	for n := 1; n <= 3; n++ {
		p.generation(active, n)
		p.must(0, "check")
		out, _ := p.must(0, "now", "--json")
		if db := p.report(out).Snapshot.Databases[0]; db.Mode != "replication" || db.Tables != 2 || (db.Rows == 2) != (n == 1) {
			t.Errorf("run %d: database: %+v", n, db)
		}
		if rows, err := standby.Query("artifactory", "SELECT t.n, u.n FROM t, u"); err != nil || rows[0] != fmt.Sprintf("%d|%d", n, n) {
			t.Errorf("run %d: the standby shows %q, %v", n, rows, err)
		}
	}
	p.must(0, "verify", "--db")
	p.must(0, "now", "--dry-run")
	p.must(0, "status")
	p.refuses(1, []string{"verify before the publish", "hint: compare after it"}, "now", "--verify-db")
	active.Stop()
	p.must(1, "now")
	p.must(0, "failover", "--yes", "--force")
	standby.Exec(t, "artifactory", "INSERT INTO t VALUES (4)")
	p.must(10, "now")
}

// visibleRows asks the standby's server, which may still be on its way up or down
// after drsync was killed. One that was stopped is started for the question, as
// the host does when it boots.
func visibleRows(t *testing.T, standby *testenv.PostgresServer, query string) (rows []string, err error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		if _, gone := os.Stat(filepath.Join(standby.Datadir, "postmaster.pid")); gone != nil {
			// Unless what a killed drsync had begun does it.
			if standby.StartAlone() {
				defer standby.Stop()
			}
		}
		rows, err = standby.Query("artifactory", query)
		if err == nil || time.Now().After(deadline) {
			return rows, err
		}
		time.Sleep(20 * time.Millisecond) // until it answers, or is gone
	}
}

// TestKillWithReplication ends drsync by SIGKILL again and again. The standby's
// database is a whole generation each time; at last one takes over.
func TestKillWithReplication(t *testing.T) {
	p, active, standby := newReplicated(t)
	generation, shown := 1, 0
	p.generation(active, generation)
	p.must(0, "now")
	shown = generation
	survive := func(how string) {
		t.Helper()
		rows, err := visibleRows(t, standby, "SELECT t.n, u.n FROM t, u")
		if err != nil || rows[0] != fmt.Sprintf("%d|%[1]d", shown) && rows[0] != fmt.Sprintf("%d|%[1]d", generation) {
			t.Fatalf("killed %s: the standby shows %q, %v; want %d or %d", how, rows, err, shown, generation)
		}
	}
	next := func() {
		generation++
		p.generation(active, generation)
	}
	began := time.Now()
	next()
	p.must(0, "now")
	longest := time.Since(began)
	const kills = 12
	for n := range kills {
		shown = generation
		next()
		c := p.command(t.Context(), "now")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		after := longest * time.Duration(n+1) / (kills + 1)
		timer := time.AfterFunc(after, func() { _ = c.Process.Signal(syscall.SIGKILL) })
		_ = c.Wait() // it may have ended by itself
		timer.Stop()
		survive("after " + after.String())
		p.must(0, "now")
		survive("and run again")
	}
	// In a publish, whose end the failover then has to find without the active.
	shown = generation
	for n := 1; !p.stillPending(); n++ {
		next()
		if !p.killed(fmt.Sprintf("%s=boundary %d", killEnv, n)) {
			t.Fatal("no run was killed in a publish")
		}
		survive(fmt.Sprintf("boundary %d", n))
	}
	active.Stop()
	p.must(0, "failover", "--yes", "--force")
	shown = generation
	survive("and taken over")
	standby.Exec(t, "artifactory", "INSERT INTO t VALUES (4)")
	if tree := p.mustRead("standby/generation", ""); tree != fmt.Sprint(generation) {
		t.Errorf("the tree is of generation %s, the database of %d", tree, generation)
	}
}
