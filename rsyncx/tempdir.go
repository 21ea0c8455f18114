package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratch is Options.TempDir. Files in it have no name, so that nothing is left
// there, whatever becomes of this process.
type scratch struct {
	root *Root
	fd   int // -1 when there is none
	path string
}

// openScratch opens it; a relative path begins at the destination.
func openScratch(root *Root, path string) (scratch, error) {
	if path == "" {
		return scratch{fd: -1}, nil
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(root.path, path)
	}
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return scratch{fd: -1}, fmt.Errorf("open the directory for temporary files: %w", err)
	}
	return scratch{root: root, fd: fd, path: path}, nil
}

func (t *scratch) none() bool { return t.root == nil }

func (t *scratch) close() {
	if !t.none() && t.fd >= 0 {
		unix.Close(t.fd)
		t.fd = -1
	}
}

// create makes a file that others cannot reach.
func (t *scratch) create() (f *os.File, err error) {
	fd := -1
	err = t.root.do("create", func() (err error) {
		fd, err = unix.Openat(t.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		return err
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT) {
		if f, err = os.CreateTemp(t.path, ".drsync-*"); err == nil {
			err = os.Remove(f.Name())
		}
	} else if err == nil {
		f = os.NewFile(uintptr(fd), t.path)
	}
	if err != nil {
		return nil, fmt.Errorf("make a temporary file in %s: %w", t.path, err)
	}
	return f, nil
}

// incoming is a long file on its way: in its place from the beginning, or in
// TempDir until it is whole.
type incoming struct {
	*os.File
	at   place
	temp bool
}

// receiveInto makes the file that the content of w is written to as it comes.
func (s *stager) receiveInto(w *wish) (*incoming, error) {
	if s.temp.none() {
		at, f, err := s.content.createNext(w.tree, w.path)
		if err != nil {
			return nil, stagingError(w.path, err)
		}
		return &incoming{File: f, at: at}, nil
	}
	f, err := s.temp.create()
	if err != nil {
		return nil, err
	}
	return &incoming{File: f, temp: true}, nil
}

// settle gives a file in TempDir its place: as a link when it is on the same
// file system, else as a copy.
func (s *stager) settle(ctx context.Context, in *incoming, w *wish, size int64) error {
	if !in.temp {
		return nil
	}
	l := &s.content.lanes[0]
	at := l.place(w.tree)
	dir, name, err := l.open(at, w.path)
	if err != nil {
		return stagingError(w.path, err)
	}
	err = s.dst.do("link", func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", in.Fd()), dir, name, unix.AT_SYMLINK_FOLLOW)
	})
	if err == nil {
		in.at, in.temp = at, false
		return nil
	}
	if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EPERM) {
		return stagingError(w.path, err)
	}
	out, err := l.create(at, w.path, 0o600)
	if err != nil {
		return stagingError(w.path, err)
	}
	from := io.NewSectionReader(ctxReaderAt{ctx: ctx, f: in.File}, 0, size)
	n, err := io.CopyBuffer(writerOnly{&spaceWriter{c: s.content, fd: int(out.Fd())}}, readerOnly{from}, s.content.buf)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = setLength(int(out.Fd()), size)
	}
	if err != nil {
		out.Close()
		return stagingError(w.path, errors.Join(err, l.remove(at, w.path)))
	}
	in.File.Close()
	*in = incoming{File: out, at: at}
	return nil
}

// drop closes the file, and removes it from its place unless it is kept there.
func (s *stager) drop(in *incoming, w *wish, keep bool) error {
	in.File.Close()
	if keep || in.temp {
		return nil
	}
	return s.content.remove(in.at, w.path)
}
