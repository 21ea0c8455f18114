package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/drsync/drsync/internal/hint"
)

// StreamName is the name under which an agent on the active offers NewSnapshotHandler's function.
const StreamName = "sqlite-snapshot"

// checkPrefix before a path asks for a header that describes the database
// instead of a copy. A path is absolute, so the two cannot be confused.
const checkPrefix = "check:"

// NewSnapshotHandler returns the function that serves snapshots on the active:
// arg is the absolute path of a database, which must lie below one of roots
// after symbolic links are resolved, and a snapshot stream is written to w. The
// database is opened read only.
//
// The copy is made in a private directory below $TMPDIR (or /tmp), which needs
// as much space as the database, and is removed before the function returns. If
// the process is killed, the next call removes it. The function may be called
// from several goroutines at once.
func NewSnapshotHandler(roots []string) func(ctx context.Context, arg string, w io.Writer) error {
	return func(ctx context.Context, arg string, w io.Writer) error {
		name, check := strings.CutPrefix(arg, checkPrefix)
		path, err := confine(roots, name)
		if err != nil {
			return fmt.Errorf("snapshot of %q: %w", name, err)
		}
		serve := serveSnapshot
		if check {
			serve = serveCheck
		}
		if err := serve(ctx, path, w); err != nil {
			return fmt.Errorf("snapshot of %s: %w", path, err)
		}
		return nil
	}
}

// Local turns a handler into the Snapshot function of Options, for an active
// that is a directory of this host.
func Local(handler func(ctx context.Context, arg string, w io.Writer) error) func(ctx context.Context, path string) (io.ReadCloser, error) {
	return func(ctx context.Context, path string) (io.ReadCloser, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		r, w := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.CloseWithError(handler(ctx, path, w))
		}()
		return &localStream{PipeReader: r, stop: func() {
			cancel(io.ErrClosedPipe)
			r.Close()
			<-done
		}}, nil
	}
}

type localStream struct {
	*io.PipeReader
	stop func()
}

// Close ends the handler and waits for it.
func (l *localStream) Close() error {
	l.stop()
	return nil
}

// confine resolves path and returns it if it is a regular file below a root.
func confine(roots []string, path string) (string, error) {
	refused := hint.New("not a database that this host serves",
		"name it by its absolute path, and allow its directory where the agent is started")
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
		return "", refused
	}
	for _, root := range roots {
		root, err := filepath.EvalSymlinks(root)
		if err != nil || !filepath.IsAbs(root) {
			continue
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			if rel, rerr := filepath.Rel(root, path); rerr == nil && filepath.IsLocal(rel) {
				return "", err
			}
			continue
		}
		rel, err := filepath.Rel(root, real)
		if err != nil || !filepath.IsLocal(rel) || rel == "." {
			continue
		}
		fi, err := os.Stat(real)
		if err != nil {
			return "", err
		}
		if !fi.Mode().IsRegular() {
			return "", errors.New("not a regular file")
		}
		return real, nil
	}
	return "", refused
}

// serveSnapshot copies the database inside one read transaction and streams the copy.
func serveSnapshot(ctx context.Context, path string, w io.Writer) (err error) {
	dir, remove, err := privateDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()

	h := header{Format: 1}
	copied := filepath.Join(dir, "copy.db")
	if err := copyInto(ctx, path, copied, &h); err != nil {
		return activeError(because(ctx, err))
	}
	f, err := os.Open(copied)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	h.Length = fi.Size()
	if h.PageSize, err = pageSize(f); err != nil {
		return err
	}
	return send(ctx, w, h, f)
}

func copyInto(ctx context.Context, path, into string, h *header) (err error) {
	db, err := open(path, readLive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := describe(ctx, db, h); err != nil {
		return err
	}
	// Taken before the read transaction begins: whatever was committed by this
	// time is in the copy.
	h.Time = time.Now().UTC()
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", into)
	return err
}

// serveCheck says what a snapshot would be, without making one.
func serveCheck(ctx context.Context, path string, w io.Writer) (err error) {
	db, err := open(path, readLive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	h := header{Format: 1, Check: true, Time: time.Now().UTC()}
	var pages int64
	if err = describe(ctx, db, &h); err == nil {
		err = db.QueryRowContext(ctx, "PRAGMA page_size").Scan(&h.PageSize)
	}
	if err == nil {
		err = db.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages)
	}
	if err != nil {
		return activeError(because(ctx, err))
	}
	h.Length = pages * int64(h.PageSize)
	line, err := h.line()
	if err == nil {
		_, err = w.Write(line)
	}
	return err
}

// describe fills in what the header says about the database. One without any
// object is refused: an application's is never empty, and an empty copy would
// replace a good one.
func describe(ctx context.Context, db *sql.DB, h *header) error {
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&h.SQLite); err != nil {
		return err
	}
	var objects int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&objects); err != nil {
		return err
	}
	if objects == 0 {
		return hint.New("the database is empty", "it has no table at all; is it the one that the application uses?")
	}
	return db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&h.JournalMode)
}

// activeError adds what the operator of the active can do.
func activeError(err error) error {
	switch code(err) {
	case sqlite3.SQLITE_FULL:
		return hint.With(err, "the copy needs as much space as the database in $TMPDIR of the active's agent (or /tmp)")
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
		return hint.With(err, "the agent's account must be able to read the database and, for a database with a write-ahead log or after a crash, to write in its directory; starting the application once lets it recover")
	case sqlite3.SQLITE_BUSY:
		return hint.With(err, "the application holds the database locked; let it use the write-ahead log (PRAGMA journal_mode=WAL)")
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

const privatePrefix = "drsync-sqlite-"

// privateDir makes a directory for one copy, locked as long as this process
// lives, and removes those whose process has died.
func privateDir() (dir string, remove func() error, err error) {
	sweep(os.TempDir())
	dir, err = os.MkdirTemp("", privatePrefix) // mode 0700
	if err != nil {
		return "", nil, err
	}
	lock, err := os.Open(dir)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), os.RemoveAll(dir))
	}
	return dir, func() error {
		defer lock.Close()
		return os.RemoveAll(dir)
	}, nil
}

// sweep removes directories of this account whose lock nobody holds. A
// directory younger than a minute may not have been locked yet.
func sweep(parent string) {
	old, err := filepath.Glob(filepath.Join(parent, privatePrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range old {
		fi, err := os.Lstat(dir)
		if err != nil || !fi.IsDir() || time.Since(fi.ModTime()) < time.Minute {
			continue
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
			continue
		}
		lock, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.RemoveAll(dir)
		}
		lock.Close()
	}
}
