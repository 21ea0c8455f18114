package main

import (
	"regexp"
	"strings"
	"testing"
)

// TestQuietRunIsQuiet follows the README's statements: nothing that check knows of is
// left to grant. What drsync would do better with is said by check, and never mailed by
// cron.
func TestQuietRunIsQuiet(t *testing.T) {
	p := newPair(t, "local")
	p.active.Exec(t, "artdb", "CREATE PROCEDURE tidy() SELECT 1; CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2")
	quiet := func() {
		t.Helper()
		out, said, status := p.drsync("now", "--quiet")
		said = regexp.MustCompile(`(?m)^warning: .*the standby keeps all rows in one piece: parts.*\n`).ReplaceAllString(said, "")
		if status != 0 || out+said != "" {
			t.Errorf("exit %d: %s%s", status, out, said)
		}
	}
	quiet()
	quiet()
	if out, said, status := p.drsync("check"); status != 0 || strings.Contains(out+said, "GRANT") && !strings.Contains(out+said, "ACCOUNT LOCK; GRANT") {
		t.Errorf("check: exit %d: %s%s", status, out, said)
	}
	if out, _ := p.must(0, "verify", "--db"); !strings.Contains(out, "no difference\n") {
		t.Errorf("verify --db: %s", out)
	}
	p.active.Exec(t, "", "REVOKE BINLOG ADMIN ON *.* FROM drsync@'127.0.0.1'")
	p.standby.Exec(t, "", "REVOKE SELECT ON mysql.proc FROM drsync@localhost")
	quiet()
	out, said, status := p.drsync("check")
	for _, want := range []string{"GRANT BINLOG ADMIN", "GRANT SELECT ON mysql.proc"} {
		if status != 0 || !strings.Contains(out+said, want) {
			t.Errorf("check: exit %d: %s%s", status, out, said)
		}
	}
	// A comparison that could not see all is not a clean one.
	out, _ = p.must(3, "verify", "--db")
	if !strings.Contains(out, "not compared: definitions that drsync's account on the standby may not read") || !strings.Contains(out, "no difference in the rest") {
		t.Errorf("verify --db: %s", out)
	}
	if out, _ = p.must(3, "verify", "--db", "--json"); !strings.Contains(out, `"uncompared": [`) {
		t.Errorf("verify --db --json: %s", out)
	}
}

// TestCheckKnowsThePauseBetweenRuns has the active throw its binary logs away
// long before the next run.
func TestCheckKnowsThePauseBetweenRuns(t *testing.T) {
	p := newPair(t, "local")
	p.replicated(t)
	p.replace(t, "drsync.yaml", strings.Replace(p.mustRead("drsync.yaml", ""), `schedule: "*/15 * * * *"`, `schedule: "CRON_TZ=UTC 0 3 * * 0"`, 1))
	p.active.Exec(t, "", "SET GLOBAL binlog_expire_logs_seconds=3600")
	p.must(0, "now", "--quiet")
	const problem, fix = "up to 168h0m0s pass between two runs", "SET GLOBAL binlog_expire_logs_seconds=1209600"
	if out, said := p.must(0, "check"); !strings.Contains(out+said, problem) || !strings.Contains(out+said, fix) {
		t.Errorf("check: %s%s", out, said)
	}
	p.active.Exec(t, "", fix)
	if out, said := p.must(0, "check"); strings.Contains(out+said, "between two runs") {
		t.Errorf("check: %s%s", out, said)
	}
}
