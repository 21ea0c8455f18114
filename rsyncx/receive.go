package rsyncx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

const (
	copyBuffer = 1 << 18 // bytes
	// smallFile is the length in bytes up to which a file is read into memory and
	// put into the staging directory while the next one is received.
	smallFile = 1 << 18
)

// received is what came of one file.
type received struct {
	at   place
	size int64    // bytes
	sum  [16]byte // XXH3-128 of the content, with a log
	torn bool
	same bool  // the content is what the destination has
	err  error // the source could not give it
}

// receive reads one file, compares it if that is asked, and stages it with all
// its attributes. The error is one that ends Stage; those of the file are in received.
func (s *stager) receive(ctx context.Context, w *wish, f *File, set attr) (received, error) {
	c := s.content
	if c.buf == nil {
		c.buf = make([]byte, copyBuffer)
	}
	in := &bodyReader{ctx: ctx, body: f.Body, left: f.Entry.Size, path: w.path}
	var head io.Reader = bytes.NewReader(nil) // what was read to compare
	if w.compare && f.Entry.Size == w.old.Size {
		equal, old, err := s.compare(in, w)
		if old != nil {
			defer old.Close()
			head = io.NewSectionReader(old, 0, equal)
		}
		switch {
		case err != nil:
			return received{}, err
		case in.failed != nil:
			return received{err: in.failed}, ctxOr(ctx, in.fatal)
		case in.ended && in.pending == nil:
			return received{same: true, size: equal, torn: in.torn}, nil
		}
	}
	if w.mount {
		return received{}, crossesMount(w.path)
	}
	if s.o.DryRun {
		return received{size: f.Entry.Size}, nil
	}
	if f.Entry.Size <= smallFile {
		return s.storeSmall(ctx, in, head, w, int(f.Entry.Size), set)
	}
	return s.store(ctx, in, head, w, &f.Entry, set)
}

// storeSmall reads head, then the rest of in, size bytes at most, and leaves it to
// another goroutine to write them.
func (s *stager) storeSmall(ctx context.Context, in *bodyReader, head io.Reader, w *wish, size int, set attr) (_ received, err error) {
	c := s.content
	// There is one byte more than there can be, so that the end is read too.
	b := c.buffers.take(size + 1)
	passed := false
	defer func() {
		if !passed {
			c.buffers.give(b)
		}
	}()
	n, err := io.ReadFull(io.MultiReader(head, in), (*b)[:size+1])
	if in.failed != nil {
		return received{err: in.failed}, ctxOr(ctx, in.fatal)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return received{}, fmt.Errorf("stage %s: %w", Printable(w.path), err)
	}
	if in.torn && s.again {
		return received{torn: true}, nil
	}
	if err := c.space(int64(n) + filesCounted); err != nil {
		return received{}, err
	}
	var sum [16]byte
	if s.log != nil {
		sum = xxh3.Hash128((*b)[:n]).Bytes()
	}
	passed = true
	at, err := c.put(smallContent{path: w.path, at: place{tree: w.tree}, data: b, size: n, set: set})
	return received{at: at, size: int64(n), sum: sum, torn: in.torn}, err
}

// store writes head, then the rest of in, to a new staged file.
func (s *stager) store(ctx context.Context, in *bodyReader, head io.Reader, w *wish, e *Entry, set attr) (got received, err error) {
	c := s.content
	out, err := s.receiveInto(w)
	if err != nil {
		return received{}, err
	}
	keep := false
	defer func() { err = errors.Join(err, s.drop(out, w, keep)) }()
	if err := c.space(filesCounted); err != nil {
		return received{}, err
	}
	if !out.temp {
		if err := s.noteHalf(w, e, out.at); err != nil {
			return received{}, err
		}
	}
	to := io.Writer(&spaceWriter{c: c, fd: int(out.Fd())})
	hash := xxh3.New()
	if s.log != nil {
		to = io.MultiWriter(to, hash)
	}
	size := int64(0)
	for _, from := range []io.Reader{head, in} {
		n, err := io.CopyBuffer(writerOnly{to}, readerOnly{from}, c.buf)
		if size += n; err != nil && in.failed == nil {
			return received{}, stagingError(w.path, err)
		}
	}
	if in.failed != nil {
		if s.log != nil && in.fatal == nil && size >= leastHalf {
			if err := s.keepHalf(w, e, out, size); err != nil {
				return received{}, err
			}
			keep = true
		}
		return received{err: in.failed}, ctxOr(ctx, in.fatal)
	}
	if in.torn && s.again {
		return received{torn: true}, nil
	}
	if c.sparse {
		if err := setLength(int(out.Fd()), size); err != nil {
			return received{}, stagingError(w.path, err)
		}
	}
	if err := s.settle(ctx, out, w, size); err != nil {
		return received{}, err
	}
	if err := c.root.apply(int(out.Fd()), c.fresh.without(set)); err != nil {
		return received{}, stagingError(w.path, err)
	}
	keep = true
	return received{at: out.at, size: size, sum: hash.Sum128().Bytes(), torn: in.torn}, nil
}

// compare reads from in as long as it is equal to the destination's file, and
// returns how many bytes were. What was read and differs is given by in again.
func (s *stager) compare(in *bodyReader, w *wish) (equal int64, old *os.File, err error) {
	fd, err := s.openOld(w)
	if err != nil {
		return 0, nil, nil // unreadable here: take the source's
	}
	old = os.NewFile(uintptr(fd), w.path)
	c := s.content
	if c.other == nil {
		c.other = make([]byte, copyBuffer)
	}
	for {
		n, err := io.ReadFull(readerOnly{in}, c.buf)
		m, _ := io.ReadFull(old, c.other[:n])
		if !bytes.Equal(c.buf[:n], c.other[:m]) {
			in.pending = bytes.Clone(c.buf[:n])
			return equal, old, nil
		}
		equal += int64(n)
		if err != nil {
			return equal, old, nil // the end, or in.failed
		}
	}
}

func (s *stager) openOld(w *wish) (int, error) {
	d := descent{root: s.altRoot(w.alt)}
	defer d.close()
	dir, name, err := d.parent(w.path)
	if err != nil {
		return -1, err
	}
	return openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// bodyReader reads a body that may lie about its length. It keeps apart what
// ends the file from what ends everything.
type bodyReader struct {
	ctx     context.Context
	body    io.Reader
	path    string
	left    int64
	pending []byte // given before the rest of body
	idle    int
	ended   bool
	torn    bool
	failed  error // the file could not be read
	fatal   error // the source breaks the rules
}

func (b *bodyReader) Read(p []byte) (int, error) {
	switch {
	case len(b.pending) > 0:
		n := copy(p, b.pending)
		if b.pending = b.pending[n:]; len(b.pending) == 0 {
			b.pending = nil
		}
		return n, nil
	case b.failed != nil:
		return 0, b.failed
	case b.ended:
		return 0, io.EOF
	case b.ctx.Err() != nil:
		b.failed = context.Cause(b.ctx)
		return 0, b.failed
	}
	n, err := b.body.Read(p)
	if n < 0 || n > len(p) || int64(n) > b.left {
		b.fatal = hostile(b.path, "it is longer than it said")
		b.failed = b.fatal
		return 0, b.failed
	}
	b.left -= int64(n)
	if b.idle++; n > 0 {
		b.idle = 0
	}
	switch {
	case err == io.EOF:
		b.ended = true
		b.torn = b.left > 0
	case errors.Is(err, ErrTorn):
		b.ended, b.torn = true, true
	case err == nil && b.idle > 100:
		b.failed = io.ErrNoProgress
	default:
		b.failed = err
	}
	if b.ended {
		return n, io.EOF
	}
	return n, b.failed
}

// ctxOr returns what ends Stage: the cause of a cancelled ctx, or err.
func ctxOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// spaceWriter writes a new staged file from its beginning and looks at the free space as it does.
type spaceWriter struct {
	c   *contentWriter
	fd  int
	off int64
}

func (w *spaceWriter) Write(p []byte) (int, error) {
	if err := w.c.space(int64(len(p))); err != nil {
		return 0, err
	}
	if err := w.c.writeAt(w.fd, p, w.off, false); err != nil {
		return 0, err
	}
	w.off += int64(len(p))
	return len(p), nil
}

// readerOnly and writerOnly hide what would make io.CopyBuffer pass our buffer by.
type readerOnly struct{ io.Reader }
type writerOnly struct{ io.Writer }
