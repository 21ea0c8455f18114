package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// newRows is how many rows are new in each run by replication.
const newRows = 1000

// replication compares bringing a few new rows by replication with copying the
// whole database, which is what dump mode does in each run. Both need drsync.
func replication(t *testing.T) table {
	t.Helper()
	active, dumped := newMySQLServers(t)
	followed := testenv.MariaDB(t, serverTuning...)
	active.Exec(t, "", "CREATE USER repl IDENTIFIED BY '"+password+"'; GRANT REPLICATION SLAVE ON *.* TO repl")
	followed.Exec(t, "", "CREATE USER drsync IDENTIFIED BY '"+password+"'; GRANT ALL PRIVILEGES ON *.* TO drsync; RESET MASTER")

	whole := databaseConfig(t, active, dumped)
	follow := databaseConfig(t, active, followed)
	text, err := os.ReadFile(follow)
	must(t, err)
	dir := filepath.Dir(follow)
	mode := func(more string) {
		write(t, follow, strings.Replace(string(text), "mode: dump\n", fmt.Sprintf("mode: replication\n  replication: {address: \"%s\", user: repl, password: \"file:%s/password\"%s}\n", active.Addr, dir, more), 1))
	}

	peer, ours := now(t, whole), now(t, follow)
	mode("")
	ours() // the first run copies everything
	added := 0
	add := func() {
		active.Exec(t, "artdb", fmt.Sprintf(`INSERT INTO binaries SELECT SHA1(seq), MD5(seq), seq, SHA2(seq, 256) FROM seq_%[1]d_to_%[2]d;
			INSERT INTO nodes SELECT 1000000000 + seq, 1, 'libs-release-local', CONCAT('org/new/', seq), CONCAT(seq, '.jar'), 3, 1, 'jenkins', 1, 'jenkins', 1, seq, SHA1(seq), SHA1(seq), MD5(seq), MD5(seq), SHA2(seq, 256), SHA1(seq)
			FROM seq_%[1]d_to_%[2]d`, added+1, added+newRows))
		added += newRows
	}
	arrived := func(standby *testenv.MariaDBServer) func() {
		return func() { same(t, checksums(t, standby, "artdb"), checksums(t, active, "artdb")) }
	}
	what := fmt.Sprintf("%s new rows in each of two tables of %s", thousands(newRows), thousands(opts.rows))
	compare := func(what string) line {
		return race(what, add, contestant{run: peer, verify: arrived(dumped)}, contestant{run: ours, verify: arrived(followed)})
	}
	demanded := compare(what)
	mode(", continuous: true")
	ours() // from now on the standby's server stays connected
	return table{
		title: "A MariaDB database that has a few new rows",
		peer:  "dump mode",
		lines: []line{demanded, compare(what + ", received continuously")},
		notes: []string{"Both are drsync: `mode: dump` copies the whole database in each run, `mode: replication` receives and applies what is new."},
	}
}
