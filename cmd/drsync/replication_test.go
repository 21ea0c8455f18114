package main

import (
	"strings"
	"testing"
)

const replicationSecret = "secret-of-replication"

// replicated lets the pair replicate, as the README says.
func (p *pair) replicated(t *testing.T) {
	t.Helper()
	p.write(p.path("replication.pw"), replicationSecret+"\n", 0o600)
	sql := readmeSQL(t)
	p.active.Exec(t, "", strings.NewReplacer("…", replicationSecret, "standby.example.com", "127.0.0.1").Replace(sql[2]))
	p.standby.Exec(t, "", "SET sql_log_bin=0; "+sql[3])
	p.replace(t, "drsync.yaml", strings.Replace(p.mustRead("drsync.yaml", ""), "mode: dump\n",
		"mode: replication\n  replication: {address: \""+p.active.Addr+"\", user: drsync_replication, password: \"file:replication.pw\"}\n", 1))
}

// TestNowByReplication is the main job with mode: replication: the first run
// copies the database, the later ones what is new in it.
func TestNowByReplication(t *testing.T) {
	p := newPair(t, "agent")
	p.replicated(t)
	for run := range 3 {
		out, said := p.must(0, "now", "--json")
		p.checkEqual()
		p.checkPromise()
		db := p.report(out).Snapshot.Databases[0]
		if db.Mode != "replication" || (db.Rows > 0) != (run == 0) || db.Tables < 3 {
			t.Errorf("run %d: database: %+v", run, db)
		}
		if strings.Contains(said+out, replicationSecret) {
			t.Error("the password is shown")
		}
		p.change()
	}
	p.must(0, "now", "--verify-db")
	p.must(0, "verify", "--db")
	p.must(0, "check")
	p.standby.Exec(t, "artdb", "SET sql_log_bin=0; UPDATE nodes SET node_name='x' WHERE node_id=7")
	p.change()
	before := p.snapshotIDs()
	_, said := p.must(1, "now", "--verify-db")
	if after := p.snapshotIDs(); len(after) != len(before)+1 || !strings.Contains(said, "is published, but: verify database artdb: the database differs") || !strings.Contains(said, "RESET MASTER") {
		t.Errorf("a replica that differs: %v, %v:\n%s", before, after, said)
	}
	p.must(0, "failover", "--force", "--yes")
	p.must(10, "now")
}

// TestStatementsThatCannotBeReplicated has each of them followed by rows: a run copies
// the database instead and says why, on one line, and a failover has a whole snapshot.
func TestStatementsThatCannotBeReplicated(t *testing.T) {
	for name, c := range map[string]struct{ before, statement, says string }{
		"a procedure elsewhere": {"", "CREATE PROCEDURE other.p()\nBEGIN\n SELECT 1;\nEND", ": CREATE PROCEDURE"},
		"partitions": {"CREATE TABLE artdb.logs (id INT, PRIMARY KEY(id)) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10))",
			"ALTER TABLE artdb.logs ADD PARTITION (PARTITION p1 VALUES LESS THAN (20))", ": ALTER TABLE … PARTITION"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, "local")
			p.replicated(t)
			p.active.Exec(t, "", "CREATE DATABASE other; "+c.before)
			p.must(0, "now")
			p.change()
			p.active.Exec(t, "", c.statement)
			p.change()
			_, said := p.must(0, "now", "--quiet")
			found := false
			for line := range strings.Lines(said) {
				found = found || strings.Contains(line, "a copy of the whole database: transaction ") && strings.HasSuffix(line, c.says+"\n")
			}
			if !found {
				t.Errorf("the run says\n%s", said)
			}
			p.checkEqual()
			p.change()
			p.must(0, "now", "--quiet")
			p.checkEqual()
			p.active.Kill()
			p.must(0, "failover", "--yes", "--force")
			p.checkPromise()
		})
	}
}
