package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// leastDelta is the size, in bytes, below which a database is fetched whole: asking
// twice takes longer then.
const leastDelta = 1 << 20

// fetched is what a fetch brought.
type fetched struct {
	header
	hash  string // of the file, SHA-256, hexadecimal
	moved int64  // bytes that travelled
}

// localError is one of this host, which asking the active again does not mend.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// fetch receives a snapshot into a new file: of what lies in base, an older copy, only
// what changed. On an error nothing is left of it.
func (e *Engine) fetch(ctx context.Context, into, base string) (got fetched, err error) {
	f, err := os.OpenFile(into, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fetched{}, fmt.Errorf("internal error: %s is there: an earlier capture was neither published nor discarded nor recovered", into)
	}
	if err != nil {
		return fetched{}, hint.With(err, "the directory of the standby's database must exist and be writable")
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(into)
		}
	}()
	if got, err = e.fetchEither(ctx, f, base); err != nil {
		return fetched{}, err
	}
	if size, err := pageSizeOf(into); err != nil || size != got.PageSize {
		return fetched{}, errors.Join(fmt.Errorf("the received database has pages of %d bytes, announced were %d", size, got.PageSize), err)
	}
	return got, nil
}

// fetchEither fetches what changed, and the whole where that does not pay or cannot be.
func (e *Engine) fetchEither(ctx context.Context, f *os.File, base string) (fetched, error) {
	old, size, err := openBase(base)
	if err != nil || size < e.least {
		old.Close()
		return e.fetchWhole(ctx, f)
	}
	defer old.Close()
	got, err := e.fetchChanges(ctx, f, old)
	if err == nil {
		return got, nil
	}
	err = fmt.Errorf("receive what changed in the database: %w", because(ctx, err))
	if here := (*localError)(nil); ctx.Err() != nil || errors.As(err, &here) {
		return fetched{}, err
	}
	e.o.Event.Emit(event.Event{Kind: event.Info, Text: "the whole database is fetched: " + err.Error()})
	if err := f.Truncate(0); err != nil {
		return fetched{}, err
	}
	return e.fetchWhole(ctx, f)
}

// openBase opens an older copy, which need not be there.
func openBase(path string) (*os.File, int64, error) {
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return nil, 0, errors.Join(err, errOther)
	}
	f, err := os.Open(path)
	return f, fi.Size(), err
}

// open opens a stream, which is closed when ctx ends.
func (e *Engine) open(ctx context.Context, arg string) (r io.Reader, done func(), err error) {
	s, err := e.o.Snapshot(ctx, arg)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	return s, func() { stop(); s.Close() }, nil
}

func (e *Engine) fetchWhole(ctx context.Context, f *os.File) (fetched, error) {
	r, done, err := e.open(ctx, e.o.ActivePath)
	if err != nil {
		return fetched{}, err
	}
	defer done()
	h, hash, err := receive(ctx, r, func(h header) (io.Writer, error) {
		if err := e.enoughSpace(h.Length); err != nil {
			return nil, err
		}
		return &counted{w: io.NewOffsetWriter(f, 0), total: h.Length, sink: e.o.Event}, nil
	})
	if err != nil {
		return fetched{}, fmt.Errorf("receive the database: %w", because(ctx, err))
	}
	return fetched{h, hash, h.Length}, nil
}

// fetchChanges puts a snapshot together of the pages of old that it still has, wherever
// they lie, and of those that the active is asked for.
func (e *Engine) fetchChanges(ctx context.Context, f, old *os.File) (fetched, error) {
	r, done, err := e.openSums(ctx)
	if err != nil {
		return fetched{}, err
	}
	defer done()
	h, sums, hash, err := readSums(ctx, r, func(h header) error { return here(e.enoughSpace(h.Length)) })
	if err != nil {
		return fetched{}, err
	}
	into := &counted{total: h.Length, sink: e.o.Event}
	want := newWanted(sums)
	if err := reuse(ctx, old, h, want, into.to(f)); err != nil {
		return fetched{}, err
	}
	got := fetched{h, hash, int64(len(sums) * sumSize)}
	for _, spans := range requests(coalesce(want.missing(), maxSpans), h.Group) {
		n, err := e.fetchSpans(ctx, h, spans, into.to(f))
		if err != nil {
			return fetched{}, err
		}
		got.moved += n
	}
	if err := here(f.Truncate(h.Length)); err != nil {
		return fetched{}, err
	}
	if err := verifyContent(ctx, io.NewSectionReader(f, 0, h.Length), h.Length, hash); err != nil {
		return fetched{}, err
	}
	e.o.Event.Emit(event.Event{Kind: event.Info, Step: "capture",
		Text: fmt.Sprintf("%d of the database's %d bytes were fetched, the others are those of the copy before", got.moved, h.Length)})
	return got, nil
}

// openSums has the active make a copy, which it holds until done is called. Another
// stream is opened before it: on a host that allows one at a time this fails before anything was
// copied, and on others the connection of that stream is there for the ranges.
func (e *Engine) openSums(ctx context.Context) (r io.Reader, done func(), err error) {
	check, checked, err := e.open(ctx, checkPrefix+e.o.ActivePath)
	if err != nil {
		return nil, nil, err
	}
	defer checked()
	r, done, err = e.open(ctx, sumsPrefix+e.o.ActivePath)
	// It is read to its end, so that its connection can be used again.
	if _, failed := readCheck(ctx, check); err == nil && failed != nil {
		done()
		err = failed
	}
	return r, done, err
}

// place writes content at an offset of the new copy.
type place func(p []byte, at int64) error

// reuse looks at every page of old for the groups that are wanted.
func reuse(ctx context.Context, old io.Reader, h header, want *wanted, put place) error {
	s := summer{pages: h.Group / h.PageSize}
	step := max(1<<20, h.Group)
	buf := make([]byte, 0, step+h.Group)
	r := obedient{ctx, old}
	for want.left > 0 {
		// What stays of the pages before may begin a group.
		if keep := h.Group - h.PageSize; len(buf) > keep {
			buf = buf[:copy(buf, buf[len(buf)-keep:])]
		}
		at := len(buf)
		n, err := io.ReadFull(r, buf[at:at+step])
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return fmt.Errorf("read the copy before: %w", err)
		}
		buf = buf[:at+n]
		for ; at+h.PageSize <= len(buf); at += h.PageSize {
			key, ok := s.add(buf[at : at+h.PageSize])
			if !ok {
				continue
			}
			group := buf[at+h.PageSize-h.Group : at+h.PageSize]
			err := want.take(key, func(i int64) error {
				// The last group may be shorter; its sum is not this one then, unless somebody lies.
				return put(group[:min(int64(len(group)), h.Length-i*int64(h.Group))], i*int64(h.Group))
			})
			if err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
	return nil
}

// fetchSpans asks for some groups of the copy and returns how many bytes came.
func (e *Engine) fetchSpans(ctx context.Context, h header, spans []span, put place) (moved int64, err error) {
	r, done, err := e.open(ctx, rangesPrefix+h.Token+":"+encodeSpans(spans))
	if err != nil {
		return 0, err
	}
	defer done()
	r = obedient{ctx, r}
	buf := make([]byte, 256<<10)
	for _, s := range spans {
		at := s.first * int64(h.Group)
		end := min(at+s.count*int64(h.Group), h.Length)
		for at < end {
			part := buf[:min(int64(len(buf)), end-at)]
			if _, err := io.ReadFull(r, part); err != nil {
				return moved, noEOF(err)
			}
			if err := put(part, at); err != nil {
				return moved, err
			}
			at += int64(len(part))
			moved += int64(len(part))
		}
	}
	if n, err := io.ReadFull(r, buf[:1]); n > 0 {
		return moved, errors.New("more came than was asked for")
	} else if !errors.Is(err, io.EOF) {
		return moved, err
	}
	return moved, nil
}

// here makes an error one of this host.
func here(err error) error {
	if err == nil {
		return nil
	}
	return &localError{err}
}

// counted reports how much was written.
type counted struct {
	w           io.Writer
	done, total int64
	sink        event.Sink
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.add(n)
	return n, err
}

func (c *counted) add(n int) {
	c.done = min(c.done+int64(n), c.total) // what came twice is not twice as much
	c.sink.Emit(event.Event{Kind: event.Progress, Step: "capture", Bytes: c.done, Size: c.total})
}

// to returns a place in f.
func (c *counted) to(f *os.File) place {
	return func(p []byte, at int64) error {
		n, err := f.WriteAt(p, at)
		c.add(n)
		return here(err)
	}
}

// verifyContent compares length and hash of what r yields.
func verifyContent(ctx context.Context, r io.Reader, length int64, hash string) error {
	s := sha256.New()
	n, err := io.Copy(s, obedient{ctx, r})
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(s.Sum(nil)); n != length || got != hash {
		return fmt.Errorf("%w: %d bytes with hash %s, captured were %d with %s", errOther, n, got, length, hash)
	}
	return nil
}
