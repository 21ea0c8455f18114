package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

// TestPruneEndToEnd: what no kept snapshot names goes into quarantine, and what
// a later one names comes back from there without being copied.
func TestPruneEndToEnd(t *testing.T) {
	p := newPair(t, "agent")
	p.edit(t, "snapshots: {keep_last: 3}\nprune: {min_age: 24h", "snapshots: {keep_last: 1}\nprune: {min_age: 0s")
	sum := p.upload(5000)
	data := p.mustRead(strings.TrimPrefix(p.blobPath("active", sum), p.dir+"/"), "")
	p.must(0, "now")
	p.collect(sum)
	p.must(0, "now")
	if _, err := os.Lstat(p.blobPath("standby", sum)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that nothing names is still in place: %v", err)
	}
	out, _ := p.must(0, "prune", "--dry-run", "--json")
	if !strings.Contains(out, `"dry_run": true`) {
		t.Errorf("prune --dry-run: %s", out)
	}
	// The same content is uploaded again.
	p.write(p.blobPath("active", sum), data, 0o644)
	p.exec("INSERT INTO binaries VALUES (?, REPEAT('0',32), ?, NULL)", sum, len(data))
	out, _ = p.must(0, "now", "--json")
	if set := p.report(out).Snapshot.BlobSets[0]; set.Copied != 0 {
		t.Errorf("%d blobs were copied, although quarantine had the only new one", set.Copied)
	}
	p.checkEqual()
	// Hidden damage is for verify --deep to find.
	if err := os.WriteFile(p.blobPath("standby", sum), []byte(strings.Repeat("x", len(data))), 0o644); err != nil {
		t.Fatal(err)
	}
	p.must(0, "verify")
	if out, _ := p.must(3, "verify", "--deep"); !strings.Contains(out, sum) {
		t.Errorf("verify --deep does not name %s:\n%s", sum, out)
	}
}

// TestCommandsThatLook change nothing and say what they must.
func TestCommandsThatLook(t *testing.T) {
	p := newPair(t, "agent")
	if out, _ := p.must(2, "status", "--check"); !strings.Contains(out, "CRITICAL") {
		t.Errorf("nothing was published, but status --check says %q", out)
	}
	p.must(0, "now")
	before := p.fingerprint()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status", "--check"}, "OK"},
		{[]string{"status"}, "can fail over YES"},
		{[]string{"check"}, "ok   database"},
		{[]string{"chain"}, "data/filestore"},
		{[]string{"config", "check"}, "nothing to complain about"},
		{[]string{"plan"}, "publish"},
		{[]string{"verify", "--deep"}, "60 blobs named"},
		{[]string{"version"}, "drsync test"},
	} {
		if out, _ := p.must(0, c.args...); !strings.Contains(out, c.want) {
			t.Errorf("drsync %v lacks %q:\n%s", c.args, c.want, out)
		}
	}
	for _, args := range [][]string{{"status"}, {"check"}, {"snapshots"}, {"plan"}, {"verify"}, {"config", "check"}, {"version"}, {"prune", "--dry-run"}} {
		out, _ := p.must(0, append(args, "--json")...)
		var object map[string]any
		if err := json.Unmarshal([]byte(out), &object); err != nil {
			t.Errorf("drsync %v --json: %v\n%s", args, err, out)
		}
	}
	if after := p.fingerprint(); after != before {
		t.Errorf("looking changed the standby: before\n%s\nafter\n%s", before, after)
	}
}

// TestDemo is what the README promises first.
func TestDemo(t *testing.T) {
	began := time.Now()
	p := &pair{t: t, dir: t.TempDir()}
	out, stderr, status := p.drsync("demo")
	if status != 0 || strings.Contains(out, "FAILED") {
		t.Fatalf("exit %d\n%s\n%s", status, out, stderr)
	}
	t.Logf("the demo took %v", time.Since(began))
}
