package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// TestPostgres takes a database through the life of a pair, by the accounts that
// the README gives, until the standby is promoted.
func TestPostgres(t *testing.T) {
	t.Parallel()
	active, standby := testenv.Postgres(t), testenv.Postgres(t)
	p := &pair{t: t, dir: t.TempDir()}
	p.config = p.path("drsync.yaml")
	for _, dir := range []string{"active", "standby", "state"} {
		if err := os.MkdirAll(p.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.write(p.path("active", "VERSION"), "1\n", 0o644)
	p.write(p.path("active.pw"), "x", 0o600)
	p.write(p.path("standby.pw"), "y", 0o600)
	p.write(p.config, fmt.Sprintf(`active: {home: %[1]s/active, transport: local}
standby: {home: %[1]s/standby, state: %[1]s/state}
application: custom
database:
  engine: postgres
  name: artifactory
  active:  {address: "%[2]s", user: drsync, password: "file:active.pw"}
  standby: {address: "%[3]s", user: drsync, password: "file:standby.pw"}
snapshots: {keep_last: 3, dumps: true}
`, p.dir, active.Addr, standby.Addr), 0o600)

	active.Exec(t, "postgres", "CREATE ROLE artifactory; CREATE ROLE drsync LOGIN PASSWORD 'wrong' IN ROLE pg_read_all_data")
	active.Exec(t, "postgres", "CREATE DATABASE artifactory OWNER artifactory")
	active.Exec(t, "artifactory", "SET ROLE artifactory; CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
	standby.Exec(t, "postgres", "CREATE ROLE artifactory; CREATE ROLE drsync LOGIN CREATEDB PASSWORD 'y' IN ROLE artifactory")

	if _, errs, status := p.drsync("now"); status != 1 || !strings.Contains(errs, "password authentication failed") {
		t.Errorf("%d: %s", status, errs)
	}
	active.Exec(t, "postgres", "ALTER ROLE drsync PASSWORD 'x'")
	p.must(0, "check")
	p.must(0, "now", "--verify-db")
	p.must(0, "verify", "--db")
	out, _ := p.must(0, "snapshots", "--json")
	var all struct {
		Snapshots []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all.Snapshots) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	active.Exec(t, "artifactory", "INSERT INTO t VALUES (2)")
	if _, errs, status := p.drsync("verify", "--db"); status == 0 {
		t.Errorf("a difference was not noticed: %s", errs)
	}
	p.must(0, "now")
	shows := func(want string) {
		t.Helper()
		rows, err := standby.Query("artifactory", "SELECT n FROM t ORDER BY n")
		if err != nil || strings.Join(rows, " ") != want {
			t.Errorf("the standby shows %q, %v; want %s", rows, err, want)
		}
	}
	shows("1 2")
	active.Stop()
	p.must(0, "restore", all.Snapshots[0].ID, "--into", "beside")
	p.must(0, "restore", all.Snapshots[0].ID, "--yes")
	shows("1")
	p.must(0, "failover", "--yes", "--force")
	standby.Exec(t, "artifactory", "INSERT INTO t VALUES (3)")
	shows("1 3")
	if left, err := filepath.Glob(p.path("state", "postgres*")); err != nil || len(left) > 0 {
		t.Errorf("left in the state directory: %q, %v", left, err)
	}
}
