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

const nodesTable = `
CREATE DATABASE artdb CHARACTER SET utf8 COLLATE utf8_bin;
CREATE TABLE artdb.nodes (
  node_id     BIGINT        NOT NULL PRIMARY KEY,
  node_type   TINYINT       NOT NULL,
  repo        VARCHAR(64)   NOT NULL,
  node_path   VARCHAR(1024) NOT NULL,
  node_name   VARCHAR(255)  NOT NULL,
  depth       TINYINT       NOT NULL,
  created     BIGINT        NOT NULL,
  created_by  VARCHAR(64),
  modified    BIGINT        NOT NULL,
  modified_by VARCHAR(64),
  updated     BIGINT,
  bin_length  BIGINT,
  sha1_actual CHAR(40),
  md5_actual  CHAR(32),
  KEY nodes_sha1_actual_idx (sha1_actual),
  KEY nodes_repo_path_name_idx (repo, node_path(120), node_name)
) ENGINE=InnoDB`

// password is drsync's on both servers, which only this process can reach.
const password = "bench"

// database compares dumping and loading one table between two servers.
func database(t *testing.T) table {
	t.Helper()
	testenv.Require(t, "mariadb-dump", "mariadb")
	tuning := []string{"--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M"}
	active, standby := testenv.MariaDB(t, tuning...), testenv.MariaDB(t, tuning...)
	active.Exec(t, "", nodesTable)
	insertNodes(t, active)
	for _, server := range []*testenv.MariaDBServer{active, standby} {
		server.Exec(t, "", fmt.Sprintf(`CREATE USER drsync IDENTIFIED BY '%s'; GRANT ALL PRIVILEGES ON *.* TO drsync`, password))
	}
	config := databaseConfig(t, active, standby)

	want := checksum(t, active, "artdb")
	peer := contestant{
		prepare: func() {
			standby.Exec(t, "", "CREATE OR REPLACE DATABASE peerdb CHARACTER SET utf8 COLLATE utf8_bin")
		},
		run:    func() { dumpAndLoad(t, active, standby) },
		verify: func() { same(t, checksum(t, standby, "peerdb"), want) },
	}
	ours := contestant{
		run:    now(t, config),
		verify: func() { same(t, checksum(t, standby, "artdb"), want) },
	}
	return table{
		title: fmt.Sprintf("A MariaDB database: one table of %s rows with two secondary keys", thousands(opts.rows)),
		peer:  "`mariadb-dump \\| mariadb`",
		lines: []line{race("dump and load", nil, peer, ours)},
		notes: []string{"Two servers on loopback, binary logs on. drsync's standby keeps serving the old database until the new one is whole; the pipe's drops it first."},
	}
}

func insertNodes(t *testing.T, server *testenv.MariaDBServer) {
	t.Helper()
	db := server.DB(t, "artdb")
	random := rand.New(rand.NewPCG(7, 7))
	for done := 0; done < opts.rows; {
		var values []string
		for ; done < opts.rows && len(values) < 1000; done++ {
			values = append(values, fmt.Sprintf("(%d,1,'libs-release-local','org/acme/module-%d/1.%d','module-%d-1.%d.jar',5,%d,'jenkins',%d,'jenkins',%d,%d,'%016x%016x%08x','%016x%016x')",
				done, done/50, done%50, done/50, done%50, 1_600_000_000_000+done, 1_600_000_000_000+done, 1_600_000_000_000+done,
				random.IntN(5_000_000), random.Uint64(), random.Uint64(), random.Uint32(), random.Uint64(), random.Uint64()))
		}
		_, err := db.ExecContext(t.Context(), "INSERT INTO nodes VALUES "+strings.Join(values, ","))
		must(t, err)
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

func checksum(t *testing.T, server *testenv.MariaDBServer, schema string) string {
	t.Helper()
	var name, sum string
	must(t, server.DB(t, schema).QueryRowContext(t.Context(), "CHECKSUM TABLE nodes EXTENDED").Scan(&name, &sum))
	return sum
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("the copy of the table has the checksum %s, not %s", got, want)
	}
}
