package demo

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the "sqlite" driver
)

// schema is Artifactory's own for these tables, in types that SQLite knows too.
const schema = `
CREATE TABLE db_properties (
  installation_date    BIGINT      NOT NULL PRIMARY KEY,
  artifactory_version  VARCHAR(30) NOT NULL,
  artifactory_revision INTEGER,
  artifactory_release  BIGINT
);
CREATE TABLE binaries (
  sha1       CHAR(40) NOT NULL,
  md5        CHAR(32) NOT NULL,
  bin_length BIGINT   NOT NULL,
  sha256     CHAR(64) NOT NULL,
  CONSTRAINT binaries_pk PRIMARY KEY (sha1)
);
CREATE UNIQUE INDEX binaries_md5_idx ON binaries (md5);
CREATE INDEX binaries_sha256_idx ON binaries (sha256);
CREATE TABLE nodes (
  node_id            BIGINT        NOT NULL,
  node_type          SMALLINT      NOT NULL,
  repo               VARCHAR(64)   NOT NULL,
  node_path          VARCHAR(1024) NOT NULL,
  node_name          VARCHAR(255)  NOT NULL,
  depth              SMALLINT      NOT NULL,
  created            BIGINT        NOT NULL,
  created_by         VARCHAR(64),
  modified           BIGINT        NOT NULL,
  modified_by        VARCHAR(64),
  updated            BIGINT,
  bin_length         BIGINT,
  sha1_actual        CHAR(40),
  sha1_original      VARCHAR(1024),
  md5_actual         CHAR(32),
  md5_original       VARCHAR(1024),
  sha256             CHAR(64),
  repo_path_checksum CHAR(40),
  CONSTRAINT nodes_pk PRIMARY KEY (node_id),
  CONSTRAINT nodes_binaries_fk FOREIGN KEY (sha1_actual) REFERENCES binaries (sha1)
);
CREATE UNIQUE INDEX nodes_repo_path_name_idx ON nodes (repo, node_path, node_name);
CREATE INDEX nodes_sha1_actual_idx ON nodes (sha1_actual);
CREATE TABLE node_props (
  prop_id    BIGINT        NOT NULL PRIMARY KEY,
  node_id    BIGINT        NOT NULL,
  prop_key   VARCHAR(255),
  prop_value VARCHAR(4000),
  CONSTRAINT node_props_nodes_fk FOREIGN KEY (node_id) REFERENCES nodes (node_id)
);
`

// openDatabase makes the active's database. Its connection stays open, so that
// part of the content is in the write-ahead log, as under a running application.
func (l *Lab) openDatabase() error {
	db, err := openSQLite(l.ActiveDB, "_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=foreign_keys(1)")
	if err != nil {
		return err
	}
	l.db = db
	if _, err := db.Exec(schema); err != nil {
		return fmt.Errorf("make the tables: %w", err)
	}
	installed := time.Now().Add(-900 * 24 * time.Hour).UnixMilli()
	_, err = db.Exec(`INSERT INTO db_properties VALUES (?, '6.20.0', 62000900, 1589190000000)`, installed)
	return err
}

func openSQLite(path, options string) (*sql.DB, error) {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(5000)&" + options
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// execer is a database or a transaction in it.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func insertBinary(ctx context.Context, db execer, b stored) error {
	_, err := db.ExecContext(ctx, `INSERT INTO binaries (sha1, md5, bin_length, sha256) VALUES (?, ?, ?, ?)`,
		b.sha1, b.md5, b.size, b.sha256)
	return err
}

// insertNode adds a file, or a folder when b is nil, and returns its id.
func (l *Lab) insertNode(ctx context.Context, db execer, repo, path string, b *stored, when time.Time) (int64, error) {
	l.nodeID++
	dir, name, depth := ".", ".", 0 // the root of a repository
	if path != "" {
		depth = 1 + strings.Count(path, "/")
		name = path
		if at := strings.LastIndexByte(path, '/'); at >= 0 {
			dir, name = path[:at], path[at+1:]
		}
	}
	ms := when.UnixMilli()
	var err error
	if b == nil {
		_, err = db.ExecContext(ctx, `INSERT INTO nodes
			(node_id, node_type, repo, node_path, node_name, depth, created, created_by, modified, modified_by, updated, bin_length)
			VALUES (?, 0, ?, ?, ?, ?, ?, 'admin', ?, 'admin', ?, 0)`,
			l.nodeID, repo, dir, name, depth, ms, ms, ms)
	} else {
		_, err = db.ExecContext(ctx, `INSERT INTO nodes
			(node_id, node_type, repo, node_path, node_name, depth, created, created_by, modified, modified_by, updated,
			 bin_length, sha1_actual, sha1_original, md5_actual, md5_original, sha256)
			VALUES (?, 1, ?, ?, ?, ?, ?, 'jenkins', ?, 'jenkins', ?, ?, ?, ?, ?, ?, ?)`,
			l.nodeID, repo, dir, name, depth, ms, ms, ms, b.size, b.sha1, b.sha1, b.md5, b.md5, b.sha256)
	}
	if err != nil {
		return 0, fmt.Errorf("insert node %s/%s: %w", repo, path, err)
	}
	return l.nodeID, nil
}
