package wire

import (
	"fmt"
	"io"
	"math"

	"github.com/zeebo/xxh3"
)

// body is the content of one stream. Its Read returns io.EOF only when
// everything has arrived and its sum is right.
type body struct {
	c     *Conn
	part  int // bytes left of the current frame
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
		if h.size == 0 { // which would be a way to go on for ever
			return lost(hostile("an empty frame of type %q", h.kind))
		}
		b.part = h.size
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
		if err := d.sum(b.total, &b.hash); err != nil {
			return lost(err)
		}
		return io.EOF
	}
	return lost(hostile("a frame of type %q in a stream", h.kind))
}

// appendSum encodes what ends a body.
func appendSum(b []byte, total int64, h *xxh3.Hasher) []byte {
	b = appendUint(b, total)
	sum := h.Sum128().Bytes()
	return append(b, sum[:]...)
}

// sum compares what appendSum wrote with what arrived.
func (d *decoder) sum(total int64, h *xxh3.Hasher) error {
	length := d.uint("length", math.MaxInt64)
	theirs := d.fixed("sum", 16)
	if err := d.end("sum"); err != nil {
		return err
	}
	ours := h.Sum128().Bytes()
	if length != uint64(total) || string(theirs) != string(ours[:]) {
		return fmt.Errorf("%w: the sum of %d bytes is wrong", ErrDamaged, total)
	}
	return nil
}
