package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/drsync/drsync/internal/hint"
)

const (
	privatePrefix = "drsync-sqlite-"
	copyName      = "copy.db"

	// maxCopies is how many copies this account makes or holds at once: each takes
	// as much space as its database.
	maxCopies = 4
	// stepPages is how many pages are copied before ctx is looked at.
	stepPages = 4096
)

// private is a directory for one copy, locked as long as this process lives and
// uses it.
type private struct {
	dir   string
	token string // names it to calls in other processes
	lock  *os.File
}

// newPrivate makes one, and removes those whose process has died.
func newPrivate() (*private, error) {
	if live := sweep(os.TempDir()); live >= maxCopies {
		return nil, hint.With(fmt.Errorf("%d copies of databases are made or held already", live),
			"wait for the other standbys, or for a run whose connection was lost to be noticed")
	}
	token := rand.Text()
	dir := filepath.Join(os.TempDir(), privatePrefix+token)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), os.RemoveAll(dir))
	}
	return &private{dir, token, lock}, nil
}

func (p *private) remove() error {
	defer p.lock.Close()
	return os.RemoveAll(p.dir)
}

// sweep removes directories of this account whose lock nobody holds, and returns
// how many are left. A directory younger than a minute may not have been locked yet.
func sweep(parent string) (live int) {
	all, err := filepath.Glob(filepath.Join(parent, privatePrefix+"*"))
	if err != nil {
		return 0
	}
	for _, dir := range all {
		fi, err := os.Lstat(dir)
		if err != nil || !ours(fi) {
			continue
		}
		lock, err := os.Open(dir)
		if err != nil {
			continue
		}
		switch {
		case unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil:
			live++
		case time.Since(fi.ModTime()) >= time.Minute:
			os.RemoveAll(dir)
		}
		lock.Close()
	}
	return live
}

// ours says whether fi is of a directory that this account made.
func ours(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && fi.IsDir() && int(st.Uid) == os.Geteuid()
}

// copyOf copies the database at path, and opens the copy.
func (p *private) copyOf(ctx context.Context, path string) (_ *os.File, h header, err error) {
	h = header{Format: 1}
	into := filepath.Join(p.dir, copyName)
	if err := copyInto(ctx, path, into, &h); err != nil {
		return nil, h, activeError(because(ctx, err))
	}
	f, err := os.Open(into)
	if err != nil {
		return nil, h, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, h, err
	}
	h.Length = fi.Size()
	if h.PageSize, err = pageSize(f); err != nil {
		return nil, h, err
	}
	return f, h, nil
}

// copyInto copies the database page by page inside one read transaction, in
// which others go on writing where there is a write-ahead log. Unlike VACUUM, which
// packs the rows anew and so moves all of them behind one that came or went, it leaves every
// page at its place: what did not change is found in the copy before.
func copyInto(ctx context.Context, path, into string, h *header) (err error) {
	db, err := open(path, readLive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Taken before the read transaction begins: whatever was committed by this
	// time is in the copy.
	h.Time = time.Now().UTC()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	// Its first statement begins the transaction, which lasts until the end: without
	// it the copying would begin again whenever somebody writes.
	if err := describe(ctx, conn, h); err != nil {
		return err
	}
	dir := filepath.Dir(into)
	if room, err := roomIn(dir); err != nil {
		return err
	} else if room < h.Length {
		return noRoom(filepath.Dir(dir), h.Length, room)
	}
	if err := conn.Raw(func(c any) error { return copyPages(ctx, c, into) }); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		return err
	}
	if h.JournalMode != "wal" {
		h.Held = int64(time.Since(h.Time))
	}
	return leaveLog(ctx, into)
}

func copyPages(ctx context.Context, c any, into string) (err error) {
	source, ok := c.(interface {
		NewBackup(string) (*sqlite.Backup, error)
	})
	if !ok {
		return errors.New("internal error: the driver makes no copies")
	}
	b, err := source.NewBackup(dsn(into, "mode=rwc&_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Finish()) }()
	for more := true; more; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if more, err = b.Step(stepPages); err != nil {
			return err
		}
	}
	return nil
}

// leaveLog makes a copy say that there is no write-ahead log beside it.
func leaveLog(ctx context.Context, path string) (err error) {
	db, err := open(path, "mode=rw&_pragma=synchronous(OFF)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var mode string
	err = db.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode)
	if err == nil && mode != "delete" {
		err = fmt.Errorf("the journal mode of the copy stays %q", mode)
	}
	return err
}

// asker is a *sql.DB or a *sql.Conn.
type asker interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// describe fills in what the header says about the database. One without any
// object is refused: an application's is never empty, and an empty copy would
// replace a good one.
func describe(ctx context.Context, db asker, h *header) error {
	var objects, pages int64
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&objects); err != nil {
		return err
	}
	if objects == 0 {
		return hint.New("the database is empty", "it has no table at all; is it the one that the application uses?")
	}
	for _, q := range []struct {
		query string
		value any
	}{
		{"SELECT sqlite_version()", &h.SQLite},
		{"PRAGMA journal_mode", &h.JournalMode},
		{"PRAGMA page_size", &h.PageSize},
		{"PRAGMA page_count", &pages},
	} {
		if err := db.QueryRowContext(ctx, q.query).Scan(q.value); err != nil {
			return err
		}
	}
	h.Length = pages * int64(h.PageSize)
	return nil
}

// roomIn returns how many bytes may be written below dir.
func roomIn(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look for room in %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func noRoom(dir string, need, room int64) error {
	return hint.With(fmt.Errorf("the copy of the database needs %d bytes, %s on the active has room for %d", need, dir, room),
		"let TMPDIR of the active's agent (else /tmp) be a directory with as much space as the database")
}

// activeError adds what the operator of the active can do.
func activeError(err error) error {
	switch code(err) {
	case sqlite3.SQLITE_FULL:
		return hint.With(err, "the copy needs as much space as the database in $TMPDIR of the active's agent (or /tmp)")
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
		return hint.With(err, "the agent's account must be able to read the database and, for a database with a write-ahead log or after a crash, to write in its directory; starting the application once lets it recover")
	case sqlite3.SQLITE_BUSY:
		return hint.With(err, "the application holds the database locked; let it use the write-ahead log (PRAGMA journal_mode=WAL) and no lock of its own (PRAGMA locking_mode=NORMAL)")
	case sqlite3.SQLITE_NOTADB:
		return hint.With(err, "it is not a SQLite database, or it is encrypted")
	}
	return err
}

// pageSize reads the page size that a database file states.
func pageSize(r io.ReaderAt) (int, error) {
	var head [18]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return 0, err
	}
	if string(head[:16]) != magic {
		return 0, errors.New("not a SQLite database")
	}
	if n := int(binary.BigEndian.Uint16(head[16:])); n != 1 {
		return n, nil
	}
	return 65536, nil
}
