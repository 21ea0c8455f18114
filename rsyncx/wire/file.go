package wire

import (
	"errors"
	"fmt"
	"io"

	"github.com/drsync/drsync/rsyncx"
)

// errPast is what the body of an earlier turn says.
var errPast = errors.New("the body of an earlier file was read")

// fileBody is the content of one file, put together from what the lanes
// received. It is complete and right when Read returns io.EOF.
type fileBody struct {
	s       *stripes
	u       *unit // what is being given
	entry   *rsyncx.Entry
	version uint64

	data  []byte
	from  *chunk // holds data
	zeros int64
	open  bool  // u has more pieces
	err   error // sticky
	lost  error // ends the whole request
}

var (
	_ io.Reader    = (*fileBody)(nil)
	_ rsyncx.Holes = (*fileBody)(nil)
)

// file yields the file that begins with u.
func (s *stripes) file(u *unit, yield func(rsyncx.File, error) bool) error {
	f := rsyncx.File{Path: u.path, Err: u.err}
	b := &fileBody{s: s, u: u}
	if u.err == nil {
		p, err := u.lane.pop()
		if err != nil {
			return err
		}
		if p.kind == pieceFile {
			b.entry, b.version, b.open = p.entry, p.version, true
			f.Entry, f.Body = *p.entry, b
		} else {
			f.Err = p.err
		}
	}
	if !yield(f, nil) {
		return errStopped
	}
	return b.skip()
}

// Read gives content as it was on the active.
func (b *fileBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := b.fill(); err != nil {
		return 0, err
	}
	if b.zeros > 0 {
		n := int(min(int64(len(p)), b.zeros))
		clear(p[:n])
		b.zeros -= int64(n)
		return n, nil
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

// Hole skips zeros that were not sent.
func (b *fileBody) Hole() (int64, error) {
	if err := b.fill(); err != nil {
		if errors.Is(err, io.EOF) && b.lost == nil {
			err = nil
		}
		return 0, err
	}
	n := b.zeros
	b.zeros = 0
	return n, nil
}

// fill makes data or zeros not empty, or returns why there are no more.
func (b *fileBody) fill() error {
	for len(b.data) == 0 && b.zeros == 0 {
		if b.err != nil {
			return b.err
		}
		b.err = b.advance()
	}
	return nil
}

// advance takes the next piece.
func (b *fileBody) advance() error {
	if b.from != nil {
		b.from.release()
		b.from = nil
	}
	if !b.open {
		if b.u.last {
			return io.EOF
		}
		return b.nextUnit()
	}
	p, err := b.u.lane.pop()
	if err != nil {
		b.lost = err
		return err
	}
	switch p.kind {
	case pieceData:
		b.data, b.from = p.data, p.from
	case pieceZeros:
		b.zeros = p.zeros
	case pieceEnd:
		b.open = false
	case pieceCut:
		b.open = false
		return p.err
	default:
		b.lost = fmt.Errorf("internal error: a piece of kind %d in a file", p.kind)
		return b.lost
	}
	return nil
}

// nextUnit goes on with the next part of the file, which must be of the same state.
func (b *fileBody) nextUnit() error {
	u, more, err := b.s.next()
	if err == nil && !more {
		err = errors.New("internal error: the rest of a file was not asked for")
	}
	if err != nil {
		b.lost = err
		return err
	}
	b.u = u
	if u.err != nil { // the rest was dropped
		return u.err
	}
	p, err := u.lane.pop()
	if err != nil {
		b.lost = err
		return err
	}
	if p.kind == pieceFailed {
		return p.err
	}
	b.open = true
	if *p.entry != *b.entry || p.version != b.version {
		return rsyncx.ErrTorn
	}
	return nil
}

// skip drops what is left. Its error ends the request.
func (b *fileBody) skip() error {
	if b.u.drop != nil {
		b.u.drop.Store(true)
	}
	b.data, b.zeros = nil, 0
	for b.lost == nil && (b.open || !b.u.last) {
		_ = b.advance() // what is wrong with a file that nobody wants does not matter
		b.data, b.zeros = nil, 0
	}
	if b.from != nil {
		b.from.release()
		b.from = nil
	}
	b.err = errPast
	return b.lost
}
