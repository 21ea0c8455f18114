package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// artifactoryTables are the two tables that most of an Artifactory database is
// made of, as its MySQL schema has them.
const artifactoryTables = `
CREATE DATABASE artdb CHARACTER SET utf8 COLLATE utf8_bin;
CREATE TABLE artdb.binaries (
  sha1       CHAR(40) NOT NULL PRIMARY KEY,
  md5        CHAR(32) NOT NULL,
  bin_length BIGINT   NOT NULL,
  sha256     CHAR(64) NOT NULL,
  UNIQUE KEY binaries_md5_idx (md5),
  KEY binaries_sha256_idx (sha256)
) ENGINE=InnoDB;
CREATE TABLE artdb.nodes (
  node_id       BIGINT        NOT NULL PRIMARY KEY,
  node_type     TINYINT       NOT NULL,
  repo          VARCHAR(64)   NOT NULL,
  node_path     VARCHAR(1024) NOT NULL,
  node_name     VARCHAR(255)  NOT NULL,
  depth         TINYINT       NOT NULL,
  created       BIGINT        NOT NULL,
  created_by    VARCHAR(64),
  modified      BIGINT        NOT NULL,
  modified_by   VARCHAR(64),
  updated       BIGINT,
  bin_length    BIGINT,
  sha1_actual   CHAR(40),
  sha1_original VARCHAR(1024),
  md5_actual    CHAR(32),
  md5_original  VARCHAR(1024),
  sha256        CHAR(64),
  repo_path_checksum CHAR(40),
  KEY nodes_repo_path_name_idx (repo, node_path(255), node_name),
  KEY nodes_sha1_actual_idx (sha1_actual),
  KEY nodes_md5_actual_idx (md5_actual),
  KEY nodes_sha256_idx (sha256),
  KEY nodes_repo_path_checksum (repo_path_checksum),
  CONSTRAINT nodes_binaries_fk FOREIGN KEY (sha1_actual) REFERENCES binaries (sha1)
) ENGINE=InnoDB`

// password is drsync's on both servers, which only this process can reach.
const password = "bench"

// mysqlPair is an active with the two tables and a standby without.
type mysqlPair struct {
	active, standby *testenv.MariaDBServer
	want            string // sums of the active's tables
}

func newMySQLPair(t *testing.T) *mysqlPair {
	t.Helper()
	active, standby := newMySQLServers(t)
	return &mysqlPair{active, standby, checksums(t, active, "artdb")}
}

var serverTuning = []string{"--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M"}

func newMySQLServers(t *testing.T) (active, standby *testenv.MariaDBServer) {
	t.Helper()
	active, standby = testenv.MariaDB(t, serverTuning...), testenv.MariaDB(t, serverTuning...)
	active.Exec(t, "", artifactoryTables)
	insertArtifacts(t, active)
	for _, server := range []*testenv.MariaDBServer{active, standby} {
		server.Exec(t, "", fmt.Sprintf(`CREATE USER drsync IDENTIFIED BY '%s'; GRANT ALL PRIVILEGES ON *.* TO drsync`, password))
	}
	return active, standby
}

// database compares ways to bring a database from one server to another.
func database(t *testing.T) table {
	t.Helper()
	testenv.Require(t, "mariadb-dump", "mariadb", "mydumper", "myloader")
	p := newMySQLPair(t)
	config := databaseConfig(t, p.active, p.standby)
	fresh := func() {
		p.standby.Exec(t, "", "SET foreign_key_checks=0; DROP DATABASE IF EXISTS peerdb; CREATE DATABASE peerdb CHARACTER SET utf8 COLLATE utf8_bin")
	}
	loaded := func() { same(t, checksums(t, p.standby, "peerdb"), p.want) }
	pipe := contestant{prepare: fresh, run: func() { dumpAndLoad(t, p.active, p.standby) }, verify: loaded}
	deadlocks, deadlocked := 0, false
	parallel := contestant{
		prepare: fresh,
		run:     func() { deadlocked = mydumper(t, p.active, p.standby) },
		failed: func() bool {
			if deadlocked {
				if deadlocks++; deadlocks > 5 {
					t.Fatal("myloader's threads block each other in every run")
				}
			}
			return deadlocked
		},
		verify: loaded,
	}
	ours := contestant{run: now(t, config), verify: func() { same(t, checksums(t, p.standby, "artdb"), p.want) }}
	what := fmt.Sprintf("binaries and nodes, %s rows each", thousands(opts.rows))
	return table{
		title: "A MariaDB database from one server to another",
		peer:  "peer",
		lines: []line{
			race(what+", beside `mariadb-dump \\| mariadb`", nil, pipe, ours),
			race(what+", beside `mydumper` and `myloader` with 4 threads", nil, parallel, ours),
		},
		notes: []string{"Two servers on loopback, binary logs on, all indexes. drsync's standby keeps serving the old database until the new one is whole; the peers drop it first."},
	}
}

// insertArtifacts fills the two tables as an application does that stores
// builds: each artifact is a file of its own.
func insertArtifacts(t *testing.T, server *testenv.MariaDBServer) {
	t.Helper()
	db := server.DB(t, "artdb")
	random := rand.New(rand.NewPCG(7, 7))
	hex := func(n int) string {
		text := ""
		for len(text) < n {
			text += fmt.Sprintf("%016x", random.Uint64())
		}
		return text[:n]
	}
	for done := 0; done < opts.rows; {
		var binaries, nodes []string
		for ; done < opts.rows && len(nodes) < 1000; done++ {
			sha1, md5, sha256, size := hex(40), hex(32), hex(64), random.IntN(5_000_000)
			binaries = append(binaries, fmt.Sprintf("('%s','%s',%d,'%s')", sha1, md5, size, sha256))
			when := 1_600_000_000_000 + done
			nodes = append(nodes, fmt.Sprintf("(%d,1,'libs-release-local','org/acme/module-%d/1.%d','module-%d-1.%d.jar',5,%d,'jenkins',%d,'jenkins',%d,%d,'%s','%s','%s','%s','%s','%s')",
				done, done/50, done%50, done/50, done%50, when, when, when, size, sha1, sha1, md5, md5, sha256, hex(40)))
		}
		for table, rows := range map[string][]string{"binaries": binaries, "nodes": nodes} {
			_, err := db.ExecContext(t.Context(), "SET STATEMENT foreign_key_checks=0 FOR INSERT INTO "+table+" VALUES "+strings.Join(rows, ","))
			must(t, err)
		}
	}
}

// databaseConfig writes a configuration whose home is next to nothing.
func databaseConfig(t *testing.T, active, standby *testenv.MariaDBServer) string {
	t.Helper()
	dir := workspace(t)
	write(t, filepath.Join(dir, "active", "VERSION"), "1\n")
	must(t, os.MkdirAll(filepath.Join(dir, "standby"), 0o755))
	write(t, filepath.Join(dir, "password"), password)
	must(t, os.Chmod(filepath.Join(dir, "password"), 0o600))
	config := filepath.Join(dir, "drsync.yaml")
	write(t, config, fmt.Sprintf(`active:
  home: %[1]s/active
  transport: local
standby:
  home: %[1]s/standby
  state: %[1]s/state
application: custom
database:
  engine: mysql
  mode: dump
  name: artdb
  active:  {address: "%[2]s", user: drsync, password: "file:%[1]s/password"}
  standby: {address: "%[3]s", user: drsync, password: "file:%[1]s/password"}
files:
  rsync: "-a --delete"
snapshots: {keep_last: 1}
`, dir, active.Addr, standby.Socket))
	return config
}

// dumpAndLoad is the pipe that people use, with the option that makes the dump consistent.
func dumpAndLoad(t *testing.T, active, standby *testenv.MariaDBServer) {
	t.Helper()
	dump := exec.CommandContext(t.Context(), "mariadb-dump", "--no-defaults", "--socket="+active.Socket, "--user=root", "--single-transaction", "artdb")
	load := exec.CommandContext(t.Context(), "mariadb", "--no-defaults", "--socket="+standby.Socket, "--user=root", "peerdb")
	pipe, err := dump.StdoutPipe()
	must(t, err)
	load.Stdin = pipe
	var said strings.Builder
	load.Stderr = &said
	must(t, dump.Start())
	if err := load.Run(); err != nil {
		t.Errorf("mariadb: %v: %s", err, said.String())
	}
	must(t, dump.Wait())
}

// mydumper dumps into files and loads them, with 4 threads each. Now and then two of the
// threads that load one table block each other, and the program gives up: that is reported.
func mydumper(t *testing.T, active, standby *testenv.MariaDBServer) (deadlocked bool) {
	t.Helper()
	dir := filepath.Join(workspace(t), "dump")
	command(t, t.Context(), "mydumper", "--socket", active.Socket, "--user", "root", "--database", "artdb", "--threads", "4", "--rows", "100000", "--outputdir", dir)
	load := exec.CommandContext(t.Context(), "myloader", "--socket", standby.Socket, "--user", "root", "--database", "peerdb", "--threads", "4", "--overwrite-tables", "--directory", dir)
	said, err := load.CombinedOutput()
	if err != nil && !strings.Contains(string(said), "Deadlock found") {
		t.Fatalf("myloader: %v\n%s", err, said)
	}
	return err != nil
}

func checksums(t *testing.T, server *testenv.MariaDBServer, schema string) string {
	t.Helper()
	var sums []string
	for _, table := range []string{"binaries", "nodes"} {
		var name, sum string
		must(t, server.DB(t, schema).QueryRowContext(t.Context(), "CHECKSUM TABLE "+table+" EXTENDED").Scan(&name, &sum))
		sums = append(sums, table+" "+sum)
	}
	return strings.Join(sums, ", ")
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("the copy of the tables has the checksums %s, not %s", got, want)
	}
}
