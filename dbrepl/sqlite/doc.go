// Package sqlite is the dbrepl engine for applications that keep their
// database in one SQLite file.
//
// The active makes a consistent copy of its database, page by page inside one
// read transaction. The standby receives it beside the visible file, verifies it, and
// publishes it with one rename. When it has a copy already, the active tells the
// sums of groups of pages, and only those travel that are nowhere in the older copy;
// what is put together has the hash that the active made of its own copy, or counts for nothing.
//
// Its invariant: the visible file is always one whole generation without
// leftovers of another one beside it, above all no write-ahead log, which
// SQLite would apply to a database it does not belong to.
//
// Beside a database named N the standby keeps
//
//	.N.drsync-new    what was captured and not published yet
//	.N.drsync-prev   the generation before the visible one
//	.N.drsync.json   which generation is the visible one
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// files are the names that belong to one database of the standby.
type files struct {
	dir, live, staged, prev, sidecar, asked string
}

func filesOf(path string) files {
	dir, name := filepath.Split(path)
	hidden := filepath.Join(dir, "."+name)
	return files{
		dir:     filepath.Clean(dir),
		live:    path,
		staged:  hidden + ".drsync-new",
		prev:    hidden + ".drsync-prev",
		sidecar: hidden + ".drsync.json",
		asked:   hidden + ".drsync-asked",
	}
}

// leftovers are the files that SQLite may keep beside a database.
func leftovers(path string) []string {
	return []string{path + "-journal", path + "-wal", path + "-shm"}
}

// dsn builds the driver's name for path; parameters are SQLite's and the driver's own.
func dsn(path, parameters string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + parameters
}

const (
	// What a received database says in its schema is not trusted: no function
	// with side effects runs from it.
	readLive   = "mode=ro&_pragma=busy_timeout(10000)&_pragma=trusted_schema(0)&_pragma=cell_size_check(1)"
	readStaged = "immutable=1&" + readLive
	writeLive  = "mode=rw&_pragma=busy_timeout(1000)"
)

// open opens path with one connection.
func open(path, parameters string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn(path, parameters))
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(1)
	return db, nil
}

// code returns SQLite's primary result code of err, or 0.
func code(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code() & 0xff
}

func isBusy(err error) bool {
	c := code(err)
	return c == sqlite3.SQLITE_BUSY || c == sqlite3.SQLITE_LOCKED
}

func isDamaged(err error) bool {
	c := code(err)
	return c == sqlite3.SQLITE_CORRUPT || c == sqlite3.SQLITE_NOTADB
}

// because returns the cause of a cancelled ctx, which the driver reports as an
// interrupted statement, and err otherwise.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// fileID tells a file from another that got its name.
type fileID struct{ dev, ino uint64 }

func idOf(path string) (fileID, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return fileID{}, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, fmt.Errorf("%s: no inode number", path)
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// candidate is a name under which a pinned file may be found, and how to open it there.
type candidate struct{ path, parameters string }

// pinned is a driver.Connector that opens one file, under whichever of its
// names it has at the moment, and never another that took the name.
type pinned struct {
	file  fileID
	names []candidate
}

var _ driver.Connector = (*pinned)(nil)

func (p *pinned) Connect(ctx context.Context) (driver.Conn, error) {
	for _, n := range p.names {
		if id, err := idOf(n.path); err != nil || id != p.file {
			continue
		}
		c, err := sqlite.NewConnector(dsn(n.path, n.parameters))
		if err != nil {
			return nil, err
		}
		conn, err := c.Connect(ctx)
		if err != nil {
			return nil, err
		}
		// The name may have gone to another file between the look and the
		// opening. While this connection is open the inode cannot be reused.
		if id, err := idOf(n.path); err == nil && id == p.file {
			return conn, nil
		}
		conn.Close()
	}
	return nil, fmt.Errorf("open %s: the database was replaced meanwhile", p.names[0].path)
}

func (p *pinned) Driver() driver.Driver { return &sqlite.Driver{} }

// bare removes what may end a query but may not stand inside parentheses.
func bare(query string) string { return strings.TrimRight(query, "; \t\r\n") }
