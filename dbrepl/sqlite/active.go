package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drsync/drsync/internal/hint"
)

// StreamName is the name under which an agent on the active offers NewSnapshotHandler's function.
const StreamName = "sqlite-snapshot"

// What stands before a path, or a token, when a stream is not a whole snapshot. A
// path is absolute, so none can be confused with one.
const (
	checkPrefix  = "check:"  // and a path: a header that describes the database
	sumsPrefix   = "sums:"   // and a path: the sums of a copy, which is held for a while
	rangesPrefix = "ranges:" // and TOKEN:RANGES: parts of a copy that is held
)

// NewSnapshotHandler returns the function that serves snapshots on the active:
// arg is the absolute path of a database, which must lie below one of roots
// after symbolic links are resolved, and a snapshot stream is written to w. The
// database is opened read only.
//
// The copy is made in a private directory below $TMPDIR (or /tmp), which needs
// as much space as the database, and is removed before the function returns. If
// the process is killed, the next call removes it. The function may be called
// from several goroutines at once.
//
// A standby that has an older copy asks for sums first, and that call returns
// when its ctx ends: until then the copy is held, and calls that know its token,
// also in other processes of the same account, read parts of it. One that
// nobody reads from is not held for long.
func NewSnapshotHandler(roots []string) func(ctx context.Context, arg string, w io.Writer) error {
	return (&server{roots: roots, idle: holdIdle, most: holdMost}).serve
}

// server is the active's side.
type server struct {
	roots []string
	idle  time.Duration // for how long a copy is held that nobody reads from
	most  time.Duration // for how long it is held at all
}

func (s *server) serve(ctx context.Context, arg string, w io.Writer) error {
	if request, ok := strings.CutPrefix(arg, rangesPrefix); ok {
		if err := s.serveRanges(ctx, request, w); err != nil {
			return fmt.Errorf("a part of a snapshot: %w", because(ctx, err))
		}
		return nil
	}
	serve, path := serveSnapshot, arg
	if name, ok := strings.CutPrefix(arg, checkPrefix); ok {
		serve, path = serveCheck, name
	} else if name, ok := strings.CutPrefix(arg, sumsPrefix); ok {
		serve, path = s.serveSums, name
	}
	real, err := confine(s.roots, path)
	if err != nil {
		return fmt.Errorf("snapshot of %q: %w", path, err)
	}
	if err := serve(ctx, real, w); err != nil {
		return fmt.Errorf("snapshot of %s: %w", real, err)
	}
	return nil
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
	p, err := newPrivate()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	f, h, err := p.copyOf(ctx, path)
	if err != nil {
		return err
	}
	defer f.Close()
	return send(ctx, w, h, f)
}

// serveCheck says what a snapshot would be, without making one.
func serveCheck(ctx context.Context, path string, w io.Writer) (err error) {
	db, err := open(path, readLive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	h := header{Format: 1, Check: true, Time: time.Now().UTC()}
	if err := describe(ctx, db, &h); err != nil {
		return activeError(because(ctx, err))
	}
	room, err := roomIn(os.TempDir())
	if err != nil {
		return err
	}
	h.Room = &room
	line, err := h.line()
	if err == nil {
		_, err = w.Write(line)
	}
	return err
}
