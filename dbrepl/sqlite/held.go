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

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
)

const (
	holdIdle = 15 * time.Minute
	holdMost = 24 * time.Hour

	tokenSize  = 26
	originName = "origin" // the file that says which database a copy is of
)

// errGone says that a copy is not held any more.
var errGone = errors.New("no such copy is held")

// serveSums makes a copy, streams the sums of its groups, and holds it until ctx
// ends, which it does when the standby closes the stream.
func (s *server) serveSums(ctx context.Context, path string, w io.Writer) (err error) {
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
	if h.Group = groupSize(h.Length, h.PageSize); h.Group == 0 {
		return fmt.Errorf("a database of %d bytes is too large to be compared", h.Length)
	}
	if err := os.WriteFile(filepath.Join(p.dir, originName), []byte(path), 0o600); err != nil {
		return err
	}
	h.Token = p.token
	if err := sendSums(ctx, w, h, f); err != nil {
		return err
	}
	// What was written may be gathered on the way, and nothing more comes.
	if gathered, ok := w.(interface{ Flush() error }); ok {
		if err := gathered.Flush(); err != nil {
			return err
		}
	}
	return s.hold(ctx, p.dir)
}

// hold waits until ctx ends or nobody reads from the copy in dir any more.
func (s *server) hold(ctx context.Context, dir string) error {
	begin := time.Now()
	touch(dir)
	t := time.NewTicker(s.idle / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
		fi, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		if idle := time.Since(fi.ModTime()); idle > s.idle || time.Since(begin) > s.most {
			return fmt.Errorf("the copy was held for %v and not read from for %v", time.Since(begin).Round(time.Second), idle.Round(time.Second))
		}
	}
}

// touch tells hold, which may be another process's, that somebody reads. That it
// cannot be told only ends the holding early.
func touch(dir string) {
	now := time.Now()
	_ = os.Chtimes(dir, now, now)
}

// serveRanges streams parts of a copy that is held.
func (s *server) serveRanges(ctx context.Context, request string, w io.Writer) error {
	if len(request) > maxText {
		return errors.New("the request is too long")
	}
	token, ranges, _ := strings.Cut(request, ":")
	dir, f, err := s.held(token)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	page, err := pageSize(f)
	if err != nil {
		return err
	}
	group := groupSize(fi.Size(), page)
	if group == 0 {
		return errGone
	}
	spans, err := parseSpans(ranges, count(fi.Size(), group), group)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for _, span := range spans {
		at := span.first * int64(group)
		n := min(span.count*int64(group), fi.Size()-at)
		if _, err := io.CopyBuffer(touching{w, dir}, obedient{ctx, io.NewSectionReader(f, at, n)}, buf); err != nil {
			return err
		}
	}
	return nil
}

// touching is a writer of what was read from the copy in dir.
type touching struct {
	w   io.Writer
	dir string
}

func (t touching) Write(p []byte) (int, error) {
	touch(t.dir)
	return t.w.Write(p)
}

// held opens the copy of a token, if somebody holds it and it is of a database
// that is served here.
func (s *server) held(token string) (dir string, f *os.File, err error) {
	if !validToken(token) {
		return "", nil, errGone
	}
	dir = filepath.Join(os.TempDir(), privatePrefix+token)
	fi, err := os.Lstat(dir)
	if err != nil || !ours(fi) || fi.Mode().Perm() != 0o700 {
		return "", nil, gone(dir)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return "", nil, gone(dir)
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return "", nil, gone(dir)
	}
	origin, err := os.ReadFile(filepath.Join(dir, originName))
	if err != nil {
		return "", nil, gone(dir)
	}
	if _, err := confine(s.roots, string(origin)); err != nil {
		return "", nil, fmt.Errorf("copy of %q: %w", origin, err)
	}
	if f, err = os.Open(filepath.Join(dir, copyName)); err != nil {
		return "", nil, gone(dir)
	}
	return dir, f, nil
}

func gone(dir string) error {
	return hint.With(errGone, "it was held in "+filepath.Dir(dir)+", where all agents of one account must have their TMPDIR")
}

// validToken says whether t is what rand.Text makes.
func validToken(t string) bool {
	for i := range len(t) {
		if c := t[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return len(t) == tokenSize
}
