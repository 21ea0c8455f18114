package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/drsync/drsync/rsyncx"
)

// asked is a file that was asked for, or could not be asked for.
type asked struct {
	path string
	err  error
}

// Read reads files below root; see rsyncx.Source. Names go up as fast as want
// gives them, at most window ahead of the files. When the consumer stops early,
// Read returns after want has returned from the call it is in.
func (c *Conn) Read(ctx context.Context, root string, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		if _, err := c.Open(ctx, root); err != nil {
			yield(rsyncx.File{}, err)
			return
		}
		end := c.begin(ctx)
		err := c.readFiles(ctx, root, want, yield)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		stopped := errors.Is(err, errStopped)
		if err := end(err); err != nil && !stopped {
			yield(rsyncx.File{}, fmt.Errorf("read files of %s: %w", rsyncx.Printable(root), err))
		}
	}
}

func (c *Conn) readFiles(ctx context.Context, root string, want iter.Seq[rsyncx.Want], yield func(rsyncx.File, error) bool) (err error) {
	if err := c.ask(frameRead, appendString(nil, root)); err != nil {
		return err
	}
	due := make(chan asked, window)
	stop := make(chan struct{})
	var askers sync.WaitGroup
	defer func() {
		if err != nil {
			c.link.kill(err) // also after an error of the agent: names may be on their way to it
		}
		close(stop)
		askers.Wait()
	}()
	c.askAll(&askers, want, due, stop)
	for {
		var next asked
		var ok bool
		select {
		case next, ok = <-due:
		case <-c.link.dead:
			return c.link.err
		}
		if !ok {
			break
		}
		if ctx.Err() != nil { // what is left may all have arrived already
			return context.Cause(ctx)
		}
		if err := c.readFile(next, yield); err != nil {
			return err
		}
	}
	d, err := c.expect(frameDone)
	if err != nil {
		return err
	}
	return d.end("end of the files")
}

func checkPath(path string) error {
	if err := rsyncx.CheckPath(path); err != nil {
		return &rsyncx.PathError{Path: path, Err: err}
	}
	return nil
}

// gatherTime is how long a name waits for company, since a frame of its own
// costs both sides more than the name is worth.
const gatherTime = time.Millisecond

// askAll sends the names that want gives, in two goroutines: one waits for the
// next name while the other sends those that came in a moment, in one frame.
func (c *Conn) askAll(all *sync.WaitGroup, want iter.Seq[rsyncx.Want], due chan<- asked, stop <-chan struct{}) {
	names := make(chan string, 256)
	all.Go(func() {
		defer close(names)
		defer close(due)
		for w := range want {
			path := w.Path
			next := asked{path, checkPath(path)}
			select {
			case due <- next:
			case <-stop:
				return
			}
			if next.err != nil {
				continue
			}
			select {
			case names <- path:
			case <-stop:
				return
			}
		}
	})
	all.Go(func() {
		defer func() {
			for range names { // a sender must not be left behind
			}
		}()
		wait := time.NewTimer(gatherTime)
		defer wait.Stop()
		for path := range names {
			batch := appendString(nil, path)
			wait.Reset(gatherTime)
			for more := true; more && len(batch) < batchBytes; {
				select {
				case path, ok := <-names:
					if more = ok; ok {
						batch = appendString(batch, path)
					}
				case <-wait.C:
					more = false
				}
			}
			if c.ask(frameNames, batch) != nil {
				return // the link is dead, which the reader sees
			}
		}
		_ = c.ask(frameNamesEnd, nil)
	})
}

func (c *Conn) readFile(next asked, yield func(rsyncx.File, error) bool) error {
	f := rsyncx.File{Path: next.path, Err: next.err}
	var b *body
	if next.err == nil {
		h, err := c.next()
		if err != nil {
			return err
		}
		switch h.kind {
		case frameFileError:
			err := c.reported(h)
			if !isReported(err) {
				return err
			}
			f.Err = &rsyncx.PathError{Path: next.path, Err: err}
		case frameFile:
			d, err := c.load(h)
			if err != nil {
				return err
			}
			f.Entry = d.entry(&rsyncx.Entry{})
			if err := d.end("file"); err != nil {
				return err
			}
			if err := checkSelf(next.path, &f.Entry); err != nil {
				return err
			}
			b = &body{c: c, room: f.Entry.Size, exact: true}
			f.Body = b
		case frameError:
			return c.reported(h)
		default:
			return hostile("a frame of type %q among files", h.kind)
		}
	}
	if !yield(f, nil) {
		return errStopped
	}
	if b == nil {
		return nil
	}
	return b.skip()
}

func isReported(err error) bool {
	var r *Error
	return errors.As(err, &r)
}

// body is the content of one file or stream. Its Read returns io.EOF only when
// everything has arrived and its sum is right.
type body struct {
	c     *Conn
	room  int64 // bytes that may still come
	exact bool  // an end before room is used up is wrong
	part  int   // bytes left of the current frame
	total int64
	hash  xxh3.Hasher
	err   error // sticky
	lost  bool  // err is about the link, not about this content
}

var _ io.Reader = (*body)(nil)

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.part == 0 && b.err == nil {
		b.err = b.advance()
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.c.read(p[:min(len(p), b.part)])
	b.part -= n
	b.total += int64(n)
	_, _ = b.hash.Write(p[:n])
	if err != nil {
		b.err, b.lost = unexpected(err), true
	}
	return n, b.err
}

// advance reads the next frame's header, and what ends a body. Its error is
// io.EOF at the right end, one of the agent, or sets lost.
func (b *body) advance() error {
	lost := func(err error) error { b.lost = true; return err }
	h, err := b.c.next()
	if err != nil {
		return lost(err)
	}
	switch h.kind {
	case frameData:
		if int64(h.size) > b.room {
			return lost(hostile("more content than it announced"))
		}
		b.part = h.size
		b.room -= int64(h.size)
		return nil
	case frameCut:
		err := b.c.reported(h)
		b.lost = !isReported(err)
		return err
	case frameSum:
		d, err := b.c.load(h)
		if err != nil {
			return lost(err)
		}
		length := d.uint("length", math.MaxInt64)
		sum := d.bytes("sum", 16)
		if err := d.end("sum"); err != nil {
			return lost(err)
		}
		if b.exact && b.room > 0 {
			return lost(hostile("less content than it announced, without a reason"))
		}
		ours := b.hash.Sum128().Bytes()
		if length != uint64(b.total) || string(sum) != string(ours[:]) {
			return lost(fmt.Errorf("%w: the sum of %d bytes is wrong", ErrDamaged, b.total))
		}
		return io.EOF
	}
	return lost(hostile("a frame of type %q in a file", h.kind))
}

// skip reads the rest. Its error is about the link.
func (b *body) skip() error {
	var buf []byte
	for b.err == nil {
		if b.part > 0 && buf == nil {
			buf = make([]byte, 32<<10)
		}
		if b.part == 0 {
			b.err = b.advance()
			continue
		}
		_, _ = b.Read(buf)
	}
	if b.lost {
		return b.err
	}
	return nil
}

// appendSum encodes what ends a body.
func appendSum(b []byte, total int64, h *xxh3.Hasher) []byte {
	b = binary.AppendUvarint(b, uint64(total))
	sum := h.Sum128().Bytes()
	return appendString(b, string(sum[:]))
}
