package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

const (
	// maxHalves bounds how many files that were cut short are gone on with.
	maxHalves = 256
	// leastHalf is the length in bytes from which on half a file is worth keeping.
	leastHalf = 64 << 10
)

// half is a file of which the beginning is there.
type half struct {
	wish wish
	dir  *earlierDir
	at   place // in dir, then in the staging directory
	have int64 // bytes
	// doubtful says that nothing but a sum of the source can tell whether it is the
	// beginning of the file that is wanted.
	doubtful bool
	sum      [16]byte // of the whole, when it is there
}

// takeHalf moves half a file into the staging directory, under a number: it
// must not lie in a new tree before it is whole.
func (s *stager) takeHalf(h *half, e *earlier) (bool, error) {
	w := h.wish
	fd, dir, name, err := h.dir.open(h.at, w.path, unix.O_RDONLY)
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	st, err := statFd(fd)
	if err != nil || !isRegular(&st.Entry) || st.Nlink != 1 || st.Size < leastHalf || st.Size > w.entry.Size {
		return false, nil
	}
	h.have, h.doubtful = st.Size, !h.dir.trusted
	w.tree = tree{}
	if h.at, err = s.moveIn(&w, dir, name); err == nil {
		err = s.noteHalf(&h.wish, &h.wish.entry, h.at)
	}
	if err != nil {
		return false, stagingError(w.path, err)
	}
	e.halves = append(e.halves, *h)
	return true, nil
}

// finishHalves reads the rest of each half. One that does not become what the
// source has is added to rest, to be read in full.
func (s *stager) finishHalves(ctx context.Context, halves []half, rest *spool) error {
	if len(halves) == 0 {
		return nil
	}
	whole, err := s.readRests(ctx, halves, rest)
	if err != nil {
		return err
	}
	if s.can.Sums {
		if whole, err = s.sumHalves(ctx, whole, rest); err != nil {
			return err
		}
	}
	for i := range whole {
		if err := s.placeHalf(&whole[i]); err != nil {
			return err
		}
	}
	return nil
}

// readRests returns those that are whole.
func (s *stager) readRests(ctx context.Context, halves []half, rest *spool) (whole []half, err error) {
	var ask []half
	for i := range halves {
		h := &halves[i]
		if h.have < h.wish.entry.Size {
			ask = append(ask, *h)
		} else if ok, err := s.complete(ctx, h, nil); err != nil {
			return nil, err
		} else if ok {
			whole = append(whole, *h)
		} else if err := rest.add(h.wish.append); err != nil {
			return nil, err
		}
	}
	if len(ask) == 0 {
		return whole, nil
	}
	i := 0
	for f, err := range s.src.Read(ctx, wantRests(ask)) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil && errors.Is(f.Err, ErrHostile) {
			err = f.Err
		}
		if err != nil {
			return nil, fmt.Errorf("read from the source: %w", err)
		}
		if i >= len(ask) || f.Path != ask[i].wish.path {
			return nil, hostile(f.Path, "it was not asked for")
		}
		ok, err := s.complete(ctx, &ask[i], &f)
		if err == nil && !ok {
			err = rest.add(ask[i].wish.append)
		}
		if err != nil {
			return nil, err
		}
		if ok {
			whole = append(whole, ask[i])
		}
		i++
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if i < len(ask) {
		return nil, errLeftOut
	}
	return whole, nil
}

func wantRests(halves []half) iter.Seq[Want] {
	return func(yield func(Want) bool) {
		for i := range halves {
			w, have := &halves[i].wish, halves[i].have
			if !yield(Want{Path: w.path, Size: w.listed, Ranges: []Range{{Off: have, Len: w.entry.Size - have}}}) {
				return
			}
		}
	}
}

// complete appends the rest of a file, f, to its half, and reports whether that
// made it whole. What it says then of the source's file is what was listed.
func (s *stager) complete(ctx context.Context, h *half, f *File) (ok bool, err error) {
	w, c := &h.wish, s.content
	dir, name, err := c.lanes[0].open(h.at, w.path)
	if err != nil {
		return false, stagingError(w.path, err)
	}
	if f != nil && (f.Err != nil || f.Body == nil || !isRegular(&f.Entry) || !sameState(&f.Entry, &w.entry)) {
		return false, nil
	}
	fd, err := openat(dir, name, unix.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, stagingError(w.path, err)
	}
	out := os.NewFile(uintptr(fd), name)
	defer out.Close()
	if c.buf == nil {
		c.buf = make([]byte, copyBuffer)
	}
	hash := xxh3.New()
	if n, err := io.CopyBuffer(writerOnly{hash}, readerOnly{io.LimitReader(out, h.have)}, c.buf); err != nil || n != h.have {
		return false, nil
	}
	if f != nil {
		in := &bodyReader{ctx: ctx, body: f.Body, left: w.entry.Size - h.have, path: w.path}
		n, err := io.CopyBuffer(writerOnly{io.MultiWriter(&spaceWriter{c: c, fd: fd, off: h.have}, hash)}, readerOnly{in}, c.buf)
		if err != nil && in.failed == nil {
			return false, stagingError(w.path, err)
		}
		if in.failed != nil || in.torn || n != w.entry.Size-h.have {
			return false, ctxOr(ctx, in.fatal)
		}
		if err := setLength(fd, w.entry.Size); err != nil { // with Sparse it may end in a hole
			return false, stagingError(w.path, err)
		}
	}
	h.sum = hash.Sum128().Bytes()
	return s.can.Sums || !h.doubtful, nil
}

// sumHalves returns those whose content is the source's.
func (s *stager) sumHalves(ctx context.Context, halves []half, rest *spool) (right []half, err error) {
	i := 0
	wants := func(yield func(SumWant) bool) {
		for j := range halves {
			if !yield(SumWant{Path: halves[j].wish.path, Size: halves[j].wish.listed}) {
				return
			}
		}
	}
	if len(halves) == 0 {
		return nil, nil
	}
	for f, err := range s.src.Sums(ctx, wants) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("read sums from the source: %w", err)
		}
		if i >= len(halves) || f.Path != halves[i].wish.path {
			return nil, hostile(f.Path, "its sums were not asked for")
		}
		if f.Err == nil && f.Whole == halves[i].sum && sameState(&f.Entry, &halves[i].wish.entry) {
			right = append(right, halves[i])
		} else if err := rest.add(halves[i].wish.append); err != nil {
			return nil, err
		}
		i++
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if i < len(halves) {
		return nil, errLeftOut
	}
	return right, nil
}

// placeHalf gives a file that became whole its attributes and its place.
func (s *stager) placeHalf(h *half) error {
	w, l := &h.wish, &s.content.lanes[0]
	dir, name, err := l.open(h.at, w.path)
	if err != nil {
		return stagingError(w.path, err)
	}
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return stagingError(w.path, err)
	}
	defer unix.Close(fd)
	st, err := statFd(fd)
	if err == nil {
		err = s.dst.apply(fd, s.out.fresh.all(s.freshFile(w, &w.entry), &st))
	}
	at := h.at
	if err == nil && !w.tree.none() {
		from, openErr := openDir(dir, ".") // the lane's own changes with its next place
		if openErr != nil {
			return stagingError(w.path, openErr)
		}
		at, err = s.moveIn(w, from, name)
		unix.Close(from)
	}
	if err != nil {
		return stagingError(w.path, err)
	}
	s.stats.Reused += h.have
	s.resumed += h.have
	return s.arrived(w, &w.entry, at, w.entry.Size, contentSum{sum: h.sum}, wholeFile)
}

// keepHalf keeps what there is of a file that could not be read to its end: in
// the destination's PartialDir, or under a number for the next Stage. It does so
// although the run may be cancelled.
func (s *stager) keepHalf(w *wish, e *Entry, in *incoming, size int64) error {
	plain := *w
	plain.tree = tree{}
	temp := in.temp
	if err := s.settle(context.Background(), in, &plain, size); err != nil {
		return err
	}
	inTree := !temp && !in.at.tree.none()
	partial := s.o.PartialDir != "" && w.tree.none()
	if !inTree && !temp && !partial {
		return nil // it is noted already
	}
	dir, name, err := s.content.lanes[0].open(in.at, w.path)
	if err == nil {
		dir, err = openDir(dir, ".")
	}
	if err != nil {
		return stagingError(w.path, err)
	}
	defer unix.Close(dir)
	if partial {
		return s.leavePartial(w, dir, name)
	}
	if inTree {
		if in.at, err = s.moveIn(&plain, dir, name); err != nil {
			return stagingError(w.path, err)
		}
	}
	return s.noteHalf(w, e, in.at)
}

// leavePartial moves half a file to where rsync would leave it.
func (s *stager) leavePartial(w *wish, from int, name string) error {
	d := &descent{root: s.dst.fd}
	defer d.close()
	parent, as := splitPath(w.path)
	dir, err := d.dir(parent)
	at := parent
	for name := range strings.SplitSeq(s.o.PartialDir, "/") {
		if err == nil {
			err = s.dst.mkdir(dir, name, 0o700)
		}
		if at = joinPath(at, name); err == nil || errors.Is(err, fs.ErrExist) {
			dir, err = d.dir(at)
		}
	}
	if err == nil {
		err = s.dst.rename(from, name, dir, as)
	}
	if err != nil {
		return fmt.Errorf("leave half of %s in %s: %w", Printable(w.path), Printable(s.o.PartialDir), err)
	}
	return nil
}

// fromPartialDir looks for half of w where rsync leaves it, and copies that: what
// others can write to must not become the file itself. Publish removes it.
func (s *stager) fromPartialDir(at *descent, w *wish, e *earlier) (bool, error) {
	if s.o.PartialDir == "" || !s.can.Sums || w.compare || w.mount || !w.tree.none() || len(e.halves) >= maxHalves {
		return false, nil
	}
	parent, name := splitPath(w.path)
	dir, err := at.dir(joinPath(parent, s.o.PartialDir))
	if err != nil {
		return false, nil
	}
	partial := joinPath(joinPath(parent, s.o.PartialDir), name)
	in, st, err := openBasis(at, partial)
	if err != nil {
		return false, nil
	}
	defer in.Close()
	names, err := countNames(dir)
	if err == nil {
		err = s.op(partLinks, op{kind: opRemove, path: partial})
	}
	for left := s.o.PartialDir; err == nil && names == 1 && left != ""; { // with what led to it
		err = s.op(partLinks, op{kind: opRmdir, path: joinPath(parent, left)})
		if left, _ = splitPath(left); err == nil && left != "" {
			names = 0
			if dir, openErr := at.dir(joinPath(parent, left)); openErr == nil {
				names, err = countNames(dir)
			}
		}
	}
	if err != nil || st.Size < leastHalf || st.Size > w.entry.Size {
		return false, err
	}
	h := half{wish: *w, have: st.Size, doubtful: true}
	var out *os.File
	if h.at, out, err = s.content.createNext(tree{}, w.path); err != nil {
		return false, stagingError(w.path, err)
	}
	defer out.Close()
	if n, err := io.Copy(&spaceWriter{c: s.content, fd: int(out.Fd())}, io.LimitReader(in, st.Size)); err != nil || n != st.Size {
		return false, stagingError(w.path, errors.Join(err, s.content.remove(h.at, w.path)))
	}
	e.halves = append(e.halves, h)
	return true, s.noteHalf(w, &w.entry, h.at)
}

func countNames(dir int) (int, error) {
	fd, err := openDir(dir, ".")
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	names, err := readNames(fd, make([]byte, 8<<10))
	return len(names), err
}
