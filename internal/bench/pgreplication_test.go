package bench

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// postgresReplication is replication for PostgreSQL: what is new arrives in the
// active's log, and dump mode copies the whole database. Both need drsync.
func postgresReplication(t *testing.T) table {
	t.Helper()
	tuning := []string{"shared_buffers=512MB", "max_wal_size=4GB", "maintenance_work_mem=256MB"}
	active, dumped := testenv.Postgres(t, tuning...), testenv.Postgres(t, tuning...)
	followed := testenv.PostgresFrom(t, func(string) {}) // nothing yet: the first run makes it
	active.Exec(t, "postgres", "CREATE DATABASE artdb")
	active.Exec(t, "artdb", artifactoryOnPostgres)
	insertArtifactRows(t, active)

	peer, ours := now(t, postgresConfig(t, active, dumped)), now(t, followingConfig(t, active, followed, tuning))
	ours() // the first run copies everything, and the second begins with the other copy
	ours()
	added := 0
	add := func() {
		active.Exec(t, "artdb", fmt.Sprintf(`INSERT INTO binaries SELECT left(encode(sha256(('new' || g)::bytea), 'hex'), 40), md5('new' || g), g, encode(sha256(g::text::bytea), 'hex') FROM generate_series(%[1]d, %[2]d) g;
			INSERT INTO nodes SELECT 1000000000 + g, 1, 'libs-release-local', 'org/new/' || g, g || '.jar', 3, 1, 'jenkins', 1, 'jenkins', 1, bin_length, sha1, sha1, md5, md5, sha256, sha1
			FROM generate_series(%[1]d, %[2]d) g JOIN binaries ON md5 = md5('new' || g)`, added+1, added+newRows))
		added += newRows
	}
	arrived := func(standby *testenv.PostgresServer) func() {
		return func() { same(t, postgresSums(t, standby, "artdb"), postgresSums(t, active, "artdb")) }
	}
	return table{
		title: "A PostgreSQL database that has a few new rows",
		peer:  "dump mode",
		lines: []line{race(fmt.Sprintf("%s new rows in each of two tables of %s", thousands(newRows), thousands(opts.rows)), add,
			contestant{run: peer, verify: arrived(dumped)}, contestant{run: ours, verify: arrived(followed)})},
		notes: []string{"Both are drsync: `mode: dump` copies the whole database in each run, `mode: replication` receives what is new, replays it, and restarts the standby's server at the publish."},
	}
}

// followingConfig is postgresConfig with replication. drsync starts and stops the
// standby's server.
func followingConfig(t *testing.T, active, standby *testenv.PostgresServer, tuning []string) string {
	t.Helper()
	config := postgresConfig(t, active, standby)
	text, err := os.ReadFile(config)
	must(t, err)
	control := func(what string, more ...string) string {
		args := []string{filepath.Join(standby.Bin, "pg_ctl"), what, "-w", "-D", standby.Datadir, "-m", "fast", "-l", filepath.Join(filepath.Dir(standby.Socket), "log")}
		if os.Geteuid() == 0 { // as whom no server runs
			args = append([]string{"runuser", "-u", "postgres", "--"}, args...)
		}
		args = append(args, more...)
		for i, a := range args {
			args[i] = fmt.Sprintf("%q", a)
		}
		return "[" + strings.Join(args, ", ") + "]"
	}
	_, port, err := net.SplitHostPort(standby.Addr)
	must(t, err)
	settings := "-c listen_addresses=127.0.0.1 -c fsync=off -c port=" + port + " -c unix_socket_directories=" + filepath.Dir(standby.Socket)
	for _, s := range tuning {
		settings += " -c " + s
	}
	replication := fmt.Sprintf("  mode: replication\n  replication:\n    data_directory: %s\n    start: %s\n    stop: %s\n    account: %s\n", standby.Datadir, control("start", "-o", settings), control("stop"), serverAccount(t))
	write(t, config, strings.Replace(string(text), "  name: artdb\n", "  name: artdb\n"+replication, 1))
	t.Cleanup(func() {
		_ = standby.Command("pg_ctl", "stop", "-m", "immediate", "-D", standby.Datadir).Run() // it may not run
	})
	return config
}

// serverAccount is whom the servers of the benchmark run as.
func serverAccount(t *testing.T) string {
	t.Helper()
	if os.Geteuid() == 0 {
		testenv.Require(t, "runuser")
		return "postgres"
	}
	me, err := user.Current()
	must(t, err)
	return me.Username
}
