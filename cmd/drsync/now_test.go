package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/snapshot"
	drsync "github.com/drsync/drsync/sync"
)

func (p *pair) report(stdout string) drsync.Report {
	p.t.Helper()
	var r drsync.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		p.t.Fatalf("--json: %v\n%s", err, stdout)
	}
	return r
}

// TestNow is the main job by every transport: all of it, nothing of it, a little of it.
func TestNow(t *testing.T) {
	for _, transport := range []string{"agent", "exec", "sftp", "local"} {
		t.Run(transport, func(t *testing.T) {
			p := newPair(t, transport)
			out, _ := p.must(0, "now", "--json")
			first := p.report(out).Snapshot
			p.checkEqual()
			if first == nil || !first.Complete || first.BlobSets[0].Named != 60 || first.BlobSets[0].Copied != 60 {
				t.Fatalf("first snapshot: %s", out)
			}
			if age := time.Since(first.Time); age < 0 || age > time.Minute {
				t.Errorf("T is %v ago", age)
			}
			if db := first.Databases[0]; db.Tables < 3 || db.Rows < 120 || db.Position == "" || !strings.Contains(db.Server, "MariaDB") {
				t.Errorf("database: %+v", db)
			}
			if !first.Clock.Measured || first.Clock.Skew > 1 || first.Clock.Skew < -1 {
				t.Errorf("clock: %+v", first.Clock)
			}

			out, _ = p.must(0, "now", "--json")
			second := p.report(out).Snapshot
			if second.BlobSets[0].Copied != 0 || second.Trees[0].Transferred != 0 {
				t.Errorf("nothing changed, but was copied: %s", out)
			}

			p.change()
			out, _ = p.must(0, "now", "--json")
			third := p.report(out).Snapshot
			p.checkEqual()
			if third.BlobSets[0].Copied != 8 || third.Trees[0].Transferred != 2 {
				t.Errorf("8 blobs and 2 files changed, but %d and %d were copied", third.BlobSets[0].Copied, third.Trees[0].Transferred)
			}
			p.checkRecords(third)
			p.checkLog()
		})
	}
}

// checkRecords reads the newest record as a person would.
func (p *pair) checkRecords(want *snapshot.Record) {
	p.t.Helper()
	var r snapshot.Record
	if err := json.Unmarshal([]byte(p.mustRead(filepath.Join("state/snapshots", want.ID, "record.json"), "")), &r); err != nil {
		p.t.Fatal(err)
	}
	if r.ID != want.ID || r.Version != "test" || len(r.Steps) == 0 {
		p.t.Errorf("record: %+v", r)
	}
	out, _ := p.must(0, "snapshots")
	if strings.Count(out, "\n") < 4 || !strings.Contains(out, want.ID) {
		p.t.Errorf("snapshots:\n%s", out)
	}
	out, _ = p.must(0, "status")
	if !strings.Contains(out, want.ID) {
		p.t.Errorf("status:\n%s", out)
	}
	p.must(0, "verify")
	p.must(0, "plan")
}

func (p *pair) checkLog() {
	p.t.Helper()
	log := p.mustRead("replication.log", "")
	for _, line := range []string{">f+++++++++ etc/mimetypes.xml", "cd+++++++++ etc/plugins/"} {
		if !strings.Contains(log, "] "+line+"\n") {
			p.t.Errorf("the log lacks %q:\n%s", line, log)
		}
	}
}

// TestMissingBlob: the active's garbage collector is faster than the copy.
func TestMissingBlob(t *testing.T) {
	p := newPair(t, "agent")
	p.must(0, "now")
	kept := p.upload(5000) // will be on the standby when the active loses it
	p.must(0, "now")
	doomed := p.upload(7000)
	lost := p.upload(8000)

	out, stderr, status := p.during("capture", func() {
		p.collect(doomed)
		p.collect(kept)
		if err := os.Remove(p.blobPath("active", lost)); err != nil {
			t.Error(err)
		}
	}, "now", "--json")
	if status != 3 {
		t.Fatalf("exit %d, want 3\n%s", status, stderr)
	}
	r := p.report(out).Snapshot
	if r.Complete || r.BlobSets[0].Missing != 2 || len(r.Missing) != 2 {
		t.Fatalf("record: %s", out)
	}
	for _, m := range r.Missing {
		want := map[string]string{doomed: snapshot.ReasonCollected, lost: snapshot.ReasonLost}[string(m.Sum)]
		if m.Reason != want || len(m.Paths) != 1 || !strings.HasPrefix(m.Paths[0], "libs-release/org/acme/artifact-") {
			t.Errorf("missing: %+v, want %s", m, want)
		}
		if !strings.Contains(stderr, m.Paths[0]) {
			t.Errorf("stderr does not name %s:\n%s", m.Paths[0], stderr)
		}
	}
	if _, err := os.Stat(p.blobPath("standby", kept)); err != nil {
		t.Errorf("the standby's own copy is gone: %v", err)
	}
	if out, _ := p.must(0, "status"); !strings.Contains(out, "2") {
		t.Errorf("status does not show what is missing:\n%s", out)
	}
}

// TestNoFileInTheBlobsPlace: a directory or a link where the active should have
// a blob is that blob's misfortune, not the run's.
func TestNoFileInTheBlobsPlace(t *testing.T) {
	for _, transport := range []string{"agent", "sftp"} {
		t.Run(transport, func(t *testing.T) {
			p := newPair(t, transport)
			directory, link := p.upload(900), p.upload(800)
			for _, sum := range []string{directory, link} {
				if err := os.Remove(p.blobPath("active", sum)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Mkdir(p.blobPath("active", directory), 0o755), os.Symlink("/etc/hostname", p.blobPath("active", link))); err != nil {
				t.Fatal(err)
			}
			out, _ := p.must(3, "now", "--json")
			r := p.report(out).Snapshot
			if len(r.Missing) != 2 || r.Missing[0].Reason != snapshot.ReasonCorrupt || r.Missing[1].Reason != snapshot.ReasonCorrupt || r.BlobSets[0].Copied != 60 {
				t.Errorf("record: %s", out)
			}
		})
	}
}

// TestInterrupt: Ctrl-C ends a run within two seconds, leaves nothing half
// published and no process on either side.
func TestInterrupt(t *testing.T) {
	p := newPair(t, "agent")
	p.must(0, "now")
	before := p.checkPromise()
	for _, step := range []string{"connect", "capture", "copy", "stage"} {
		p.change()
		signal := fmt.Sprintf("kill -INT $PPID; date +%%s%%N > %s", p.path("signalled"))
		_, stderr, status := p.drsyncEnv([]string{hookEnv + "=" + step + " " + signal}, "now")
		ended := time.Now()
		if status != 130 {
			t.Fatalf("after %s: exit %d, want 130\n%s", step, status, stderr)
		}
		var nanoseconds int64
		if _, err := fmt.Sscan(p.mustRead("signalled", ""), &nanoseconds); err != nil {
			t.Fatal(err)
		}
		if took := ended.Sub(time.Unix(0, nanoseconds)); took > 2*time.Second {
			t.Errorf("after %s: ended %v after the signal", step, took)
		}
		if got := p.checkPromise(); got != before {
			t.Errorf("after %s: %d blobs are named, %d before", step, got, before)
		}
		p.checkNoAgents()
	}
	p.must(0, "now")
	p.checkEqual()
}

// checkNoAgents waits until no agent of this pair runs any more, a second for each.
func (p *pair) checkNoAgents() {
	p.t.Helper()
	processes, err := os.ReadDir("/proc")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, process := range processes {
		pid, err := strconv.Atoi(process.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended meanwhile
		}
		command, _ := os.ReadFile(filepath.Join("/proc", process.Name(), "cmdline"))
		if strings.Contains(string(command), "agent\x00--root\x00"+p.path("active")) {
			ended, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 2000)
			if err != nil || ended == 0 {
				p.t.Errorf("agent %d is left: %v", pid, err)
			}
		}
		unix.Close(fd)
	}
}

// TestLocked: a run from cron while another works ends at once and says who works.
func TestLocked(t *testing.T) {
	p := newPair(t, "local")
	var out string
	_, stderr, status := p.during("capture", func() { _, out = p.must(11, "now") }, "now")
	if status != 0 {
		t.Fatalf("exit %d\n%s", status, stderr)
	}
	if !strings.Contains(out, `"now" (pid `) || !strings.Contains(out, "since 20") {
		t.Errorf("the second run said:\n%s", out)
	}
}

// TestDryRun shows what would be done and leaves nothing.
func TestDryRun(t *testing.T) {
	p := newPair(t, "agent")
	p.must(0, "now")
	before := p.checkPromise()
	p.change()
	out, stderr := p.must(0, "now", "--dry-run", "-v", "--json")
	r := p.report(out)
	if !r.DryRun || r.Published || r.Snapshot == nil || r.Snapshot.BlobSets[0].Copied != 8 {
		t.Errorf("report: %s", out)
	}
	if !strings.Contains(stderr, "etc/mimetypes.xml") {
		t.Errorf("-v does not name what would change:\n%s", stderr)
	}
	if got := p.checkPromise(); got != before {
		t.Errorf("%d blobs are named, %d before", got, before)
	}
	out, _ = p.must(0, "snapshots", "--json")
	if strings.Count(out, `"id"`) != 1 {
		t.Errorf("snapshots: %s", out)
	}
}

// TestFailover is the day the active is lost, and the day after.
func TestFailover(t *testing.T) {
	p := newPair(t, "agent")
	if err := appendFile(p.config, fmt.Sprintf("failover:\n  service: {start: [sh, -c, 'echo started > %s']}\n", p.path("service"))); err != nil {
		t.Fatal(err)
	}
	_, stderr := p.must(1, "failover", "--yes", "--force")
	if !strings.Contains(stderr, "snapshot") {
		t.Errorf("nothing was ever published, but failover said:\n%s", stderr)
	}
	p.must(0, "now")
	_, stderr = p.must(1, "failover", "--yes")
	if !strings.Contains(stderr, "may still be serving") || !strings.Contains(stderr, "--force") {
		t.Errorf("the active answers, but failover said:\n%s", stderr)
	}
	// The last run dies inside its publish, then the active is lost.
	p.change()
	if !p.killed(killEnv + "=boundary 19") {
		t.Fatal("the run was not killed")
	}
	pending, err := drsync.PublishPending(p.path("state"))
	if err != nil || pending == nil {
		t.Fatalf("the run was not killed inside its publish: %v, %v", pending, err)
	}
	p.sshd.Stop()
	p.active.Kill()
	p.must(0, "failover", "--yes")
	p.checkPromise()
	p.mustRead("service", "started\n")
	if out, _ := p.must(0, "status"); !strings.Contains(out, "active") || !strings.Contains(out, "epoch 1") {
		t.Errorf("status:\n%s", out)
	}
	_, stderr = p.must(10, "now")
	if !strings.Contains(stderr, "active") {
		t.Errorf("now said:\n%s", stderr)
	}
	p.must(10, "failover", "--yes")
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Close()
}
