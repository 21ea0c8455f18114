package main

import (
	"strings"
	"testing"
)

// TestQuietRunIsQuiet follows the README's statements: what drsync would do
// better with is said by check, and never mailed by cron.
func TestQuietRunIsQuiet(t *testing.T) {
	p := newPair(t, "local")
	for range 2 {
		if out, said, status := p.drsync("now", "--quiet"); status != 0 || out+said != "" {
			t.Errorf("exit %d: %s%s", status, out, said)
		}
	}
	out, said, status := p.drsync("check")
	if status != 0 || !strings.Contains(out+said, "GRANT BINLOG ADMIN") {
		t.Errorf("check: exit %d: %s%s", status, out, said)
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
