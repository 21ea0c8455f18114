package bench

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the "sqlite" driver

	"github.com/drsync/drsync/internal/testenv"
)

// artifactory is a home whose files are blobs that a database names.
type artifactory struct {
	pair
	db    *sql.DB
	maker *maker
	dbs   [2]string // of the active, of the standby
}

// filestore measures drsync where the database says which files there are.
// rsync's figures are those of as many files with the same content in a tree.
func filestore(t *testing.T, rsync []line) table {
	t.Helper()
	a := newArtifactory(t)
	ours := contestant{
		run: now(t, a.config),
		verify: func() {
			must(t, compare(filepath.Join(a.source, "data/filestore"), filepath.Join(a.ours, "data/filestore"), false))
		},
	}
	a.add(t, opts.files)
	more := func() { a.add(t, opts.changes) }
	lines := []line{
		race("first copy", func() { a.fromNothing(t) }, contestant{}, ours),
		race("nothing changed", nil, contestant{}, ours),
		race(fmt.Sprintf("%d new blobs", opts.changes), more, contestant{}, ours),
	}
	for i := range rsync { // none when that part failed
		lines[i].peer = rsync[i].peer
	}
	return table{
		title: fmt.Sprintf("The same files as an Artifactory filestore named by an SQLite database: %s blobs", thousands(opts.files)),
		peer:  "`rsync -a --delete` (from above)",
		lines: lines,
		notes: []string{"drsync's time includes the database, the SHA-1 of every blob it fetches, and the snapshot record."},
	}
}

func newArtifactory(t *testing.T) artifactory {
	t.Helper()
	a := artifactory{pair: newPair(t, testenv.SSHD(t)), maker: newMaker()}
	dir := filepath.Dir(a.source)
	a.dbs = [2]string{filepath.Join(dir, "active.sqlite"), filepath.Join(a.disk.dir, "standby.sqlite")}
	a.writeConfig(t, "artifactory", fmt.Sprintf("{engine: sqlite, mode: dump, active: {path: %s}, standby: {path: %s}}", a.dbs[0], a.dbs[1]))
	write(t, filepath.Join(a.source, "etc/binarystore.xml"), "<config version=\"2\"><chain template=\"file-system\"/></config>\n")
	write(t, filepath.Join(a.source, "etc/security/master.key"), "d3f2c7a1904be65d8a7703c1f5b98e62\n")

	db, err := sql.Open("sqlite", "file:"+a.dbs[0]+"?_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), `
		CREATE TABLE binaries (sha1 CHAR(40) NOT NULL PRIMARY KEY, md5 CHAR(32) NOT NULL, bin_length BIGINT NOT NULL, sha256 CHAR(64) NOT NULL);
		CREATE TABLE nodes (node_id BIGINT NOT NULL PRIMARY KEY, node_type SMALLINT NOT NULL, repo VARCHAR(64) NOT NULL,
			node_path VARCHAR(1024) NOT NULL, node_name VARCHAR(255) NOT NULL, depth SMALLINT NOT NULL, created BIGINT NOT NULL,
			modified BIGINT NOT NULL, bin_length BIGINT, sha1_actual CHAR(40) REFERENCES binaries (sha1));
		CREATE INDEX nodes_sha1_actual_idx ON nodes (sha1_actual)`)
	must(t, err)
	a.db = db
	return a
}

// add uploads n blobs: the files first, their rows when all are there.
func (a artifactory) add(t *testing.T, n int) {
	t.Helper()
	tx, err := a.db.BeginTx(t.Context(), nil)
	must(t, err)
	defer func() { _ = tx.Rollback() }()
	for range n {
		id, content := a.maker.made, a.maker.next()
		one, five, two := sha1.Sum(content), md5.Sum(content), sha256.Sum256(content)
		sum := hex.EncodeToString(one[:])
		dir := filepath.Join(a.source, "data/filestore", sum[:2])
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, sum), content, 0o644))
		_, err := tx.ExecContext(t.Context(), `INSERT INTO binaries VALUES (?, ?, ?, ?)`,
			sum, hex.EncodeToString(five[:]), len(content), hex.EncodeToString(two[:]))
		must(t, err)
		_, err = tx.ExecContext(t.Context(), `INSERT INTO nodes VALUES (?, 1, 'libs-release-local', ?, ?, 3, 0, 0, ?, ?)`,
			id, fmt.Sprintf("org/acme/%d", id/100), fmt.Sprintf("file-%d.jar", id), len(content), sum)
		must(t, err)
	}
	must(t, tx.Commit())
}
