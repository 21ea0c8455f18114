package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/enginetest"
	"github.com/drsync/drsync/internal/testenv"
)

const replPassword = "pass'word \\ of replication"

// startReplicas starts a pair of servers between which replication works. A
// server that starts also starts its replication, as most do.
func startReplicas(t testing.TB) (active, standby *testenv.MariaDBServer) {
	t.Helper()
	active = testenv.MariaDB(t, "--gtid-strict-mode=1")
	standby = testenv.MariaDB(t, "--gtid-strict-mode=1", "--log-slave-updates=1")
	active.Exec(t, "", "CREATE USER repl@'127.0.0.1' IDENTIFIED BY "+text(replPassword)+"; GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'")
	return active, standby
}

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
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func replicaLab(t testing.TB) *lab {
	t.Helper()
	active, standby := startReplicas(t)
	return newLab(t, active, standby)
}

func continuous(o *ReplicaOptions) { o.Continuous = true }

func TestReplicaContract(t *testing.T) {
	t.Parallel()
	for name, adjust := range map[string]func(*ReplicaOptions){"OnDemand": func(*ReplicaOptions) {}, "Continuous": continuous} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			active, standby := startReplicas(t)
			enginetest.Run(t, func(t testing.TB) enginetest.Fixture {
				l := newLab(t, active, standby)
				l.onActive(t, "ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
				standby.Exec(t, "", "STOP ALL SLAVES")
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
func TestReplicaAppliesUpToThePoint(t *testing.T) {
	t.Parallel()
	l := replicaLab(t)
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
	if got, err := query(l.standby.DB(t, ""), "SHOW ALL SLAVES STATUS"); err != nil || len(got) != 0 {
		t.Errorf("between runs there is a replication channel: %q, %v", got, err)
	}
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
