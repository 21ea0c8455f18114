package bench

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// artifactoryOnPostgres are the same two tables as Artifactory has them there.
const artifactoryOnPostgres = `
CREATE TABLE binaries (sha1 CHAR(40) NOT NULL PRIMARY KEY, md5 CHAR(32) NOT NULL, bin_length BIGINT NOT NULL, sha256 CHAR(64) NOT NULL);
CREATE UNIQUE INDEX binaries_md5_idx ON binaries (md5);
CREATE INDEX binaries_sha256_idx ON binaries (sha256);
CREATE TABLE nodes (
  node_id BIGINT NOT NULL PRIMARY KEY, node_type SMALLINT NOT NULL, repo VARCHAR(64) NOT NULL, node_path VARCHAR(1024) NOT NULL,
  node_name VARCHAR(255) NOT NULL, depth SMALLINT NOT NULL, created BIGINT NOT NULL, created_by VARCHAR(64), modified BIGINT NOT NULL,
  modified_by VARCHAR(64), updated BIGINT, bin_length BIGINT, sha1_actual CHAR(40), sha1_original VARCHAR(1024), md5_actual CHAR(32),
  md5_original VARCHAR(1024), sha256 CHAR(64), repo_path_checksum CHAR(40),
  CONSTRAINT nodes_binaries_fk FOREIGN KEY (sha1_actual) REFERENCES binaries (sha1));
CREATE UNIQUE INDEX nodes_repo_path_name_idx ON nodes (repo, node_path, node_name);
CREATE INDEX nodes_sha1_actual_idx ON nodes (sha1_actual);
CREATE INDEX nodes_md5_actual_idx ON nodes (md5_actual);
CREATE INDEX nodes_sha256_idx ON nodes (sha256);
CREATE UNIQUE INDEX nodes_repo_path_checksum ON nodes (repo_path_checksum)`

// postgres compares ways to bring a PostgreSQL database from one server to another.
func postgres(t *testing.T) table {
	t.Helper()
	tuning := []string{"shared_buffers=512MB", "max_wal_size=4GB", "maintenance_work_mem=256MB"}
	active, standby := testenv.Postgres(t, tuning...), testenv.Postgres(t, tuning...)
	active.Exec(t, "postgres", "CREATE DATABASE artdb")
	active.Exec(t, "artdb", artifactoryOnPostgres)
	insertArtifactRows(t, active)
	want := postgresSums(t, active, "artdb")
	fresh := func() {
		standby.Exec(t, "postgres", "DROP DATABASE IF EXISTS peerdb")
		standby.Exec(t, "postgres", "CREATE DATABASE peerdb")
	}
	pipe := contestant{
		prepare: fresh, run: func() { dumpAndRestore(t, active, standby) },
		verify: func() { same(t, postgresSums(t, standby, "peerdb"), want) },
	}
	ours := contestant{run: now(t, postgresConfig(t, active, standby)), verify: func() { same(t, postgresSums(t, standby, "artdb"), want) }}
	return table{
		title: "A PostgreSQL database from one server to another",
		peer:  "peer",
		lines: []line{race(fmt.Sprintf("binaries and nodes, %s rows each, beside `pg_dump -Fc` and `pg_restore -j2`", thousands(opts.rows)), nil, pipe, ours)},
		notes: []string{"Two servers on loopback, all indexes. drsync's figure includes the count of every table on both sides and ANALYZE; its standby keeps serving the old database until the new one is whole."},
	}
}

// insertArtifactRows fills the two tables as an application does that stores
// builds: each artifact is a file of its own.
func insertArtifactRows(t *testing.T, server *testenv.PostgresServer) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 7))
	hex := func(n int) string {
		text := ""
		for len(text) < n {
			text += fmt.Sprintf("%016x", random.Uint64())
		}
		return text[:n]
	}
	c, err := server.Conn(t.Context(), "artdb")
	must(t, err)
	defer c.Close(t.Context())
	for done := 0; done < opts.rows; {
		var binaries, nodes strings.Builder
		for n := 0; done < opts.rows && n < 5000; done, n = done+1, n+1 {
			sha1, md5, sha256, size := hex(40), hex(32), hex(64), random.IntN(5_000_000)
			fmt.Fprintf(&binaries, "%s\t%s\t%d\t%s\n", sha1, md5, size, sha256)
			when := 1_600_000_000_000 + done
			fmt.Fprintf(&nodes, "%d\t1\tlibs-release-local\torg/acme/module-%d/1.%d\tmodule-%d-1.%d.jar\t5\t%d\tjenkins\t%d\tjenkins\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n",
				done, done/50, done%50, done/50, done%50, when, when, when, size, sha1, sha1, md5, md5, sha256, hex(40))
		}
		_, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader(binaries.String()), "COPY binaries FROM STDIN")
		must(t, err)
		_, err = c.PgConn().CopyFrom(t.Context(), strings.NewReader(nodes.String()), "COPY nodes FROM STDIN")
		must(t, err)
	}
	server.Exec(t, "artdb", "ANALYZE")
}

// postgresConfig writes a configuration whose home is next to nothing.
func postgresConfig(t *testing.T, active, standby *testenv.PostgresServer) string {
	t.Helper()
	dir := workspace(t)
	write(t, filepath.Join(dir, "active", "VERSION"), "1\n")
	must(t, os.MkdirAll(filepath.Join(dir, "standby"), 0o755))
	config := filepath.Join(dir, "drsync.yaml")
	write(t, config, fmt.Sprintf(`active:
  home: %[1]s/active
  transport: local
standby:
  home: %[1]s/standby
  state: %[1]s/state
application: custom
database:
  engine: postgres
  name: artdb
  active:  {address: "%[2]s", user: postgres}
  standby: {address: "%[3]s", user: postgres}
files:
  rsync: "-a --delete"
snapshots: {keep_last: 1}
`, dir, active.Addr, standby.Socket))
	return config
}

// dumpAndRestore is what people do: the archive goes through a file, since only
// from one can pg_restore load several tables at once.
func dumpAndRestore(t *testing.T, active, standby *testenv.PostgresServer) {
	t.Helper()
	file := filepath.Join(workspace(t), "dump")
	at := func(p *testenv.PostgresServer) []string {
		_, port, err := net.SplitHostPort(p.Addr)
		must(t, err)
		return []string{"--host=" + filepath.Dir(p.Socket), "--port=" + port, "--username=postgres"}
	}
	command(t, t.Context(), filepath.Join(active.Bin, "pg_dump"), append(at(active), "--format=custom", "--file="+file, "artdb")...)
	command(t, t.Context(), filepath.Join(active.Bin, "pg_restore"), append(at(standby), "--jobs=2", "--dbname=peerdb", file)...)
}

func postgresSums(t *testing.T, server *testenv.PostgresServer, database string) string {
	t.Helper()
	rows, err := server.Query(database, `SELECT (SELECT count(*) || ' ' || coalesce(sum(hashtextextended(b::text, 0)), 0) FROM binaries b), (SELECT count(*) || ' ' || coalesce(sum(hashtextextended(n::text, 0)), 0) FROM nodes n)`)
	must(t, err)
	return strings.Join(rows, ", ")
}
