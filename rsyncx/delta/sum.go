package delta

import (
	"hash"

	"github.com/zeebo/xxh3"
)

// Summer makes the sums of what is written to it. It is for one goroutine.
type Summer struct {
	// Also, unless it is nil, is given everything that is written.
	Also hash.Hash

	whole *xxh3.Hasher // nil when it is not wanted
	weak  bool
	sums  Sums

	part *xxh3.Hasher // of a block that came in pieces
	n    int64        // bytes of the block so far
	roll rolling
}

// NewSummer returns a Summer for blocks of the given length, in bytes, with
// rolling sums as well when weak is set; 0 makes none. whole says whether the
// sum of everything is wanted.
func NewSummer(block int64, weak, whole bool) *Summer {
	s := &Summer{weak: weak, sums: Sums{Block: block}}
	if whole {
		s.whole = xxh3.New()
	}
	if block > 0 {
		s.part = xxh3.New()
	}
	return s
}

// Write takes the next bytes; it never fails.
func (s *Summer) Write(p []byte) (int, error) {
	if s.whole != nil {
		_, _ = s.whole.Write(p) // it never fails
	}
	if s.Also != nil {
		_, _ = s.Also.Write(p) // nor does a hash
	}
	s.sums.Size += int64(len(p))
	if s.sums.Block > 0 {
		s.blocks(p)
	}
	return len(p), nil
}

func (s *Summer) blocks(p []byte) {
	for len(p) > 0 {
		if s.n == 0 && int64(len(p)) >= s.sums.Block {
			whole := p[:s.sums.Block]
			s.add(xxh3.Hash(whole), whole)
			p = p[s.sums.Block:]
			continue
		}
		take := p[:min(int64(len(p)), s.sums.Block-s.n)]
		_, _ = s.part.Write(take) // it never fails
		if s.weak {
			s.roll.write(take)
		}
		s.n, p = s.n+int64(len(take)), p[len(take):]
		if s.n == s.sums.Block {
			s.EndBlock()
		}
	}
}

// EndBlock ends a block that is shorter than the others. Without one that has
// begun it does nothing.
func (s *Summer) EndBlock() {
	if s.n == 0 {
		return
	}
	s.add(s.part.Sum64(), nil)
	s.part.Reset()
	s.n, s.roll = 0, rolling{}
}

func (s *Summer) add(strong uint64, whole []byte) {
	s.sums.Strong = append(s.sums.Strong, strong)
	if s.weak {
		s.roll.write(whole)
		s.sums.Weak = append(s.sums.Weak, s.roll.sum())
		s.roll = rolling{}
	}
}

// Sums ends the last block and returns those of all, in order.
func (s *Summer) Sums() Sums {
	if s.part != nil {
		s.EndBlock()
	}
	return s.sums
}

// Whole returns the XXH3-128 of everything written, or nothing when it was not wanted.
func (s *Summer) Whole() [16]byte {
	if s.whole == nil {
		return [16]byte{}
	}
	return s.whole.Sum128().Bytes()
}

// rolling is a sum that follows a window over a file byte by byte: a is the sum
// of its bytes, b that of the values a had. Both wrap at 64 bits.
type rolling struct{ a, b uint64 }

// The factors spread what a and b have in their low bits over the upper half of
// the product; they are odd, and part of the protocol.
const (
	spreadA = 0x9E3779B97F4A7C15
	spreadB = 0xC2B2AE3D27D4EB4F
)

func (r *rolling) write(p []byte) {
	a, b := r.a, r.b
	for _, c := range p {
		a += uint64(c)
		b += a
	}
	r.a, r.b = a, b
}

func (r *rolling) sum() uint32 { return uint32((r.a*spreadA + r.b*spreadB) >> 32) }
