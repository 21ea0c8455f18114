package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/demo"
)

// TestVerifyDatabase compares whole databases from the command line, with the
// accounts of the README.
func TestVerifyDatabase(t *testing.T) {
	p := newPair(t, "agent")
	if _, err := p.must(1, "verify", "--db"); !strings.Contains(err, "no database has been published") {
		t.Errorf("compared with nothing: %s", err)
	}
	p.must(0, "now", "--verify-db")
	if out, _ := p.must(0, "verify", "--db"); !strings.Contains(out, "3 tables and ") || !strings.Contains(out, "no difference") {
		t.Errorf("verify --db: %s", out)
	}
	if _, err := p.standby.DB(t, "artdb").Exec("UPDATE nodes SET node_name='\x1b[31mx' WHERE node_id=7"); err != nil {
		t.Fatal(err)
	}
	p.upload(100)
	out, _ := p.must(3, "verify", "--db")
	for _, want := range []string{"2 differences", "binaries  the first  the end    61           60", "nodes     the first  the end    61           60",
		"the standby's snapshot has T = 20", "differs rightly"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify --db does not say %q:\n%s", want, out)
		}
	}
	out, _ = p.must(3, "verify", "--db", "--json")
	var r map[string]any
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r["different"] != 2.0 || r["tables"] != 3.0 || r["snapshot_time"] == nil || r["active_time"] == nil || r["active_position"] == "" || len(r["differences"].([]any)) != 2 {
		t.Errorf("verify --db --json: %s", out)
	}
	p.standby.Exec(t, "artdb", "CREATE TABLE `own\x1b` (x INT)")
	if out, _ := p.must(3, "verify", "--db", "--progress"); strings.Contains(out, "\x1b") || !strings.Contains(out, "only the standby has it") {
		t.Errorf("verify --db: %q", out)
	}
	p.must(0, "now", "--verify-db")
	p.must(0, "verify", "--db")
	p.must(2, "verify", "--db", "--deep")
	p.must(2, "verify", "--progress")
}

// TestVerifyDatabaseSQLite does the same with the file of an application.
func TestVerifyDatabaseSQLite(t *testing.T) {
	t.Parallel()
	p := &pair{t: t, dir: t.TempDir()}
	lab, err := demo.NewLab(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	if p.config, err = lab.WriteConfig("local", demo.SSH{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.must(1, "verify", "--db"); !strings.Contains(err, "no database has been published") {
		t.Errorf("compared with nothing: %s", err)
	}
	p.must(0, "now", "--verify-db")
	if out, _ := p.must(0, "verify", "--db"); !strings.Contains(out, "no difference") {
		t.Errorf("verify --db: %s", out)
	}
	if _, err := lab.Change(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, _ := p.must(3, "verify", "--db")
	for _, want := range []string{"nodes ", "binaries ", "the standby's snapshot has T = 20", "differs rightly"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify --db does not say %q:\n%s", want, out)
		}
	}
	out, _ = p.must(3, "verify", "--db", "--json")
	var r map[string]any
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r["different"] == 0.0 || r["rows"] == 0.0 || r["snapshot_time"] == nil || r["active_time"] == nil || r["active_position"] == "" {
		t.Errorf("verify --db --json: %s", out)
	}
	p.must(0, "now", "--verify-db")
	p.must(0, "verify", "--db", "--progress")
	left, err := filepath.Glob(p.path("standby/.artdb.sqlite.drsync-asked*"))
	if err != nil || left != nil {
		t.Errorf("%v are left of a comparison: %v", left, err)
	}
}

// A comparison that is killed leaves nothing that the next one or the next run does not remove.
func TestVerifyDatabaseKilled(t *testing.T) {
	t.Parallel()
	p := &pair{t: t, dir: t.TempDir()}
	lab, err := demo.NewLab(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	if p.config, err = lab.WriteConfig("local", demo.SSH{}); err != nil {
		t.Fatal(err)
	}
	p.must(0, "now")
	leftovers := 0
	for n := 1; ; n++ {
		if _, err := lab.Change(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, stderr, status := p.drsyncEnv([]string{fmt.Sprintf("%s=event %d", killEnv, n)}, "verify", "--db")
		if status == 3 {
			break
		}
		if status != -1 {
			t.Fatalf("event %d: exit %d\n%s", n, status, stderr)
		}
		check, err := lab.Check(t.Context())
		if err != nil || len(check.Broken) > 0 {
			t.Fatalf("killed at event %d: %v %q", n, err, check.Broken)
		}
		left := func() []string {
			all, err := filepath.Glob(p.path("standby/.artdb.sqlite.drsync-asked*"))
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		leftovers += len(left())
		if n%2 == 0 {
			p.must(3, "verify", "--db")
		} else {
			p.must(0, "now")
			p.must(0, "verify", "--db")
		}
		if all := left(); all != nil {
			t.Fatalf("killed at event %d, and then %v are left", n, all)
		}
	}
	if leftovers == 0 {
		t.Error("no kill left anything")
	}
}
