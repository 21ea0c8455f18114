package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	drsync "github.com/drsync/drsync/sync"
)

// scheduled lets the service make one run that it missed, and stops it when done
// says so. It returns what the service said.
func (p *pair) scheduled(done func() bool) string {
	p.t.Helper()
	p.write(p.path("state", "schedule.json"), `{"format": 1, "considered": "2020-01-01T00:00:00Z"}`, 0o644)
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	c := p.command(ctx, "run")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	var said strings.Builder
	c.Stderr = &said
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Error("the scheduled run did not come to its end")
		}
		if ctx.Err() != nil {
			break
		}
	}
	cancel()
	if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != exitInterrupted {
		p.t.Errorf("run ended with %v", err)
	}
	return said.String()
}

func (p *pair) lastVerify() drsync.LastVerify {
	p.t.Helper()
	l, err := drsync.ReadLastVerify(p.path("state"))
	if err != nil {
		p.t.Fatal(err)
	}
	if l == nil {
		return drsync.LastVerify{}
	}
	return *l
}

// TestScheduledVerify: the service compares the database when it is time, tells
// of a difference until there is none, and does not compare in between.
func TestScheduledVerify(t *testing.T) {
	p := newPair(t, "agent")
	p.replicated(t)
	p.replace(t, "drsync.yaml", strings.Replace(p.mustRead("drsync.yaml", ""), "rpo: 30m\n", "rpo: 30m\nverify: {database: \"@monthly\"}\n", 1))
	p.must(0, "now")
	ended := func() bool { // the scheduler has written down that it went well
		s, err := drsync.LoadScheduleState(p.path("state"))
		return err == nil && !s.LastSuccess.IsZero()
	}
	compared := func(before drsync.LastVerify) func() bool {
		return func() bool { return p.lastVerify() != before }
	}
	p.scheduled(compared(drsync.LastVerify{}))
	first := p.lastVerify()
	if first.Difference != "" || first.Equal.IsZero() || first.Snapshot == "" {
		t.Errorf("the first comparison: %+v", first)
	}
	p.must(0, "now") // what the service left half done
	p.scheduled(ended)
	if got := p.lastVerify(); got != first {
		t.Errorf("compared again at once: %+v", got)
	}
	if out, _ := p.must(0, "status"); !strings.Contains(out, "no difference ("+first.Snapshot+")") {
		t.Errorf("status:\n%s", out)
	}

	// A month has passed, and somebody wrote on the standby.
	p.write(p.path("state", "verify.json"), `{"time": "2026-01-02T03:04:05Z", "equal": "2026-01-02T03:04:05Z"}`, 0o644)
	if out, _ := p.must(1, "status", "--check"); !strings.Contains(out, "was last compared") {
		t.Errorf("status --check: %s", out)
	}
	p.standby.Exec(t, "artdb", "SET sql_log_bin=0; UPDATE nodes SET node_name='x' WHERE node_id=7")
	for range 2 {
		before := p.lastVerify()
		said := p.scheduled(compared(before))
		if got := p.lastVerify(); !strings.Contains(got.Difference, "nodes") || got.Equal.Year() != 2026 || got.Equal.Month() != time.January || got.Snapshot == "" {
			t.Errorf("a difference: %+v, %s", got, said)
		}
	}
	if out, _ := p.must(2, "status", "--check"); !strings.Contains(out, "differs from the active's") {
		t.Errorf("status --check: %s", out)
	}
	var name string
	if err := p.db().QueryRow("SELECT node_name FROM nodes WHERE node_id=7").Scan(&name); err != nil {
		t.Fatal(err)
	}
	p.standby.Exec(t, "artdb", "SET sql_log_bin=0; UPDATE nodes SET node_name='"+name+"' WHERE node_id=7")
	p.must(0, "now", "--verify-db")
	p.must(0, "status", "--check")
	if _, err := os.Stat(filepath.Join(p.path("state"), "publish.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a publish is left: %v", err)
	}
}
