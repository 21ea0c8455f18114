package remote

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sync"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
)

const (
	// filesAhead is how many files are opened and read at once: a small one
	// costs five round trips.
	filesAhead = 64
	// smallFile is up to which length a file is read whole, ahead of its turn.
	smallFile = 128 << 10
	// A larger file is read in pieces, several ahead of the reader: together
	// they fill the 2 MiB that an SSH channel may have under way.
	pieceSize   = 512 << 10
	piecesAhead = 4
)

// Read opens and reads several files ahead of the one that is yielded, at most
// filesAhead. Their content is not summed on the way: the length is compared with
// what the open file has, before and after.
func (s *sftpSource) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		inner, cancel := context.WithCancel(ctx)
		r := &sftpReads{sftpSource: s, order: make(chan *opened, filesAhead-1)}
		r.workers.Go(func() { r.dispatch(inner, want) })
		err := r.deliver(inner, yield)
		cancel()
		for o := range r.order {
			<-o.ready
			o.close()
		}
		r.workers.Wait()
		if err != nil && !errors.Is(err, errStopped) {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			yield(rsyncx.File{}, err)
		}
	}
}

type sftpReads struct {
	*sftpSource
	order   chan *opened // as asked for
	known   parents
	workers sync.WaitGroup
}

// opened is one file under way.
type opened struct {
	path    string
	ranges  []rsyncx.Range // to be read of it; nil is all
	ready   chan struct{}
	entry   rsyncx.Entry
	content []byte // of a small file
	torn    bool   // of a small file
	file    *sftp.File
	before  *sftp.FileStat
	err     error
}

// close lets go of the server's handle, without waiting for the answer.
func (o *opened) close() {
	if f := o.file; f != nil {
		o.file = nil
		go f.Close()
	}
}

func (r *sftpReads) dispatch(ctx context.Context, want iter.Seq[rsyncx.Want]) {
	defer close(r.order)
	for w := range want {
		o := &opened{path: w.Path, ranges: w.Ranges, ready: make(chan struct{})}
		select {
		case r.order <- o:
		case <-ctx.Done():
			return
		}
		r.workers.Go(func() {
			defer close(o.ready)
			o.err = r.open(ctx, o)
		})
	}
}

func (r *sftpReads) deliver(ctx context.Context, yield func(rsyncx.File, error) bool) error {
	for o := range r.order {
		<-o.ready
		if final := r.final(ctx); final != nil {
			o.close()
			return final
		}
		f := rsyncx.File{Path: o.path, Entry: o.entry}
		var b *sftpBody
		if o.err != nil {
			f = rsyncx.File{Path: o.path, Err: &rsyncx.PathError{Path: o.path, Err: o.err}}
		} else {
			b = newSFTPBody(ctx, r.sftpSource, o)
			f.Body = b
		}
		more := yield(f, nil)
		if b != nil {
			b.end(fs.ErrClosed)
		}
		o.close()
		if !more {
			return errStopped
		}
	}
	return r.final(ctx)
}

// open opens a regular file, and reads it if it is small.
func (r *sftpReads) open(ctx context.Context, o *opened) error {
	e, err := r.lstat(ctx, o.path, &r.known)
	if err != nil {
		return err
	}
	// Opening anything else would follow a link, or hang in a named pipe.
	if e.Mode&unix.S_IFMT != unix.S_IFREG {
		return rsyncx.ErrNotRegular
	}
	client := r.link.client
	if o.file, err = call(ctx, r.link, func() (*sftp.File, error) { return client.Open(r.at(o.path)) }); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if o.before, err = r.fstat(ctx, o.file); err != nil {
		return err
	}
	if o.entry, err = entryOf(e.Name, o.before); err != nil {
		return err
	}
	if o.entry.Mode != e.Mode || o.entry.UID != e.UID || o.entry.GID != e.GID {
		err = errors.New("it was replaced while being opened")
		return err
	}
	if o.entry.Size > smallFile || o.ranges != nil {
		return nil
	}
	o.content = make([]byte, o.entry.Size)
	n := 0
	if len(o.content) > 0 {
		if n, err = r.readAt(ctx, o.file, o.content, 0); err != nil && err != io.EOF { //nolint:errorlint // a lost session wraps io.EOF
			return err
		}
	}
	o.torn = n < len(o.content)
	o.content = o.content[:n]
	after, err := r.fstat(ctx, o.file)
	if err != nil {
		return err
	}
	o.torn = o.torn || changed(o.before, after)
	o.close()
	return nil
}

func changed(before, after *sftp.FileStat) bool {
	return before.Size != after.Size || before.Mtime != after.Mtime
}

func (s *sftpSource) fstat(ctx context.Context, f *sftp.File) (*sftp.FileStat, error) {
	return call(ctx, s.link, func() (*sftp.FileStat, error) { return statOf(f.Stat()) })
}

// readAt reads a piece. After an error of the context buf must not be used again.
func (s *sftpSource) readAt(ctx context.Context, f *sftp.File, buf []byte, offset int64) (int, error) {
	return call(ctx, s.link, func() (int, error) { return f.ReadAt(buf, offset) })
}

// sftpBody gives the content of one file. It belongs to one goroutine.
type sftpBody struct {
	s   *sftpSource
	ctx context.Context // of the iterator that the body belongs to
	o   *opened

	part   []byte         // of a large file: what is left of the current piece
	ask    []rsyncx.Range // of a large file: what pieces are still to be asked for
	pieces []chan *piece  // under way, in order
	err    error
}

func newSFTPBody(ctx context.Context, s *sftpSource, o *opened) *sftpBody {
	b := &sftpBody{s: s, ctx: ctx, o: o, ask: slices.Clone(o.ranges)}
	if o.ranges == nil && o.entry.Size > 0 {
		b.ask = []rsyncx.Range{{Len: o.entry.Size}}
	}
	return b
}

type piece struct {
	data []byte
	err  error
}

var _ io.Reader = (*sftpBody)(nil)

func (b *sftpBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.err != nil && len(b.part) == 0 {
		return 0, b.err
	}
	if b.o.file == nil { // small
		n := copy(p, b.o.content)
		b.o.content = b.o.content[n:]
		if n > 0 {
			return n, nil
		}
		if b.err = io.EOF; b.o.torn {
			b.err = rsyncx.ErrTorn
		}
		return 0, b.err
	}
	if len(b.part) == 0 {
		b.part, b.err = b.next()
	}
	if len(b.part) == 0 {
		return 0, b.err
	}
	n := copy(p, b.part)
	b.part = b.part[n:]
	return n, nil
}

// next returns the next piece of a large file. At the end it looks whether the
// file stayed the same.
func (b *sftpBody) next() ([]byte, error) {
	for len(b.ask) > 0 && len(b.pieces) < piecesAhead {
		size := min(pieceSize, b.ask[0].Len)
		offset, done, file := b.ask[0].Off, make(chan *piece, 1), b.o.file
		go func() {
			buf := make([]byte, size)
			n, err := b.s.readAt(b.ctx, file, buf, offset)
			if err == nil || err == io.EOF { //nolint:errorlint // a lost session wraps io.EOF
				if err = nil; n < len(buf) {
					err = rsyncx.ErrTorn // it shrank
				}
				done <- &piece{buf[:n], err}
				return
			}
			done <- &piece{nil, err}
		}()
		b.ask[0].Off, b.ask[0].Len = offset+size, b.ask[0].Len-size
		if b.ask[0].Len == 0 {
			b.ask = b.ask[1:]
		}
		b.pieces = append(b.pieces, done)
	}
	if len(b.pieces) > 0 {
		p := <-b.pieces[0]
		b.pieces = b.pieces[1:]
		if p.err != nil && !errors.Is(p.err, rsyncx.ErrTorn) {
			if final := b.s.final(b.ctx); final != nil {
				p.err = final
			}
		}
		return p.data, p.err
	}
	after, err := b.s.fstat(b.ctx, b.o.file)
	switch {
	case err != nil:
		return nil, err
	case changed(b.o.before, after):
		return nil, rsyncx.ErrTorn
	}
	return nil, io.EOF
}

// end makes every further Read return err, and waits for what is under way.
func (b *sftpBody) end(err error) {
	b.err, b.part = err, nil
	for _, p := range b.pieces {
		<-p
	}
	b.pieces = nil
}
