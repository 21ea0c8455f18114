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
	// tree says that whole takes the sums of the blocks, and not what they are of.
	tree bool
	// leaves, unless it is nil, keeps those sums.
	leaves *[]byte
	weak   bool
	sums   Sums

	part *xxh3.Hasher // of a block that came in pieces
	n    int64        // bytes of the block so far
	roll rolling
}

// TreeBlock is the length in bytes from which on blocks are the leaves of a tree:
// then the sum of everything is the XXH3-128 of their XXH3-128 sums, one behind the other,
// 16 bytes each. So every byte is read and hashed once, and who knows the sums of the blocks that
// did not change has to read the others only.
const TreeBlock = 128 << 10

// NewSummer returns a Summer for blocks of the given length, in bytes, with
// rolling sums as well when weak is set; 0 makes none. whole says whether the
// sum of everything is wanted: without weak, from TreeBlock on it is that of a tree.
func NewSummer(block int64, weak, whole bool) *Summer {
	s := &Summer{weak: weak, tree: whole && !weak && block >= TreeBlock, sums: Sums{Block: block}}
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
	if s.whole != nil && !s.tree {
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
			s.block(p[:s.sums.Block])
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

// block takes one in one piece.
func (s *Summer) block(p []byte) {
	if !s.tree {
		s.add(xxh3.Hash(p), p)
		return
	}
	sum := xxh3.Hash128(p)
	s.leaf(sum.Bytes())
	s.add(sum.Lo, p) // of so many bytes it is the XXH3-64
}

func (s *Summer) leaf(sum [16]byte) {
	_, _ = s.whole.Write(sum[:]) // it never fails
	if s.leaves != nil {
		*s.leaves = append(*s.leaves, sum[:]...)
	}
}

// KeepLeaves has the sums of the blocks that a tree is made of appended to leaves, 16 bytes each.
func (s *Summer) KeepLeaves(leaves *[]byte) { s.leaves = leaves }

// TreeSum returns the sum of everything from those of its blocks.
func TreeSum(leaves []byte) [16]byte { return xxh3.Hash128(leaves).Bytes() }

// EndBlock ends a block that is shorter than the others. Without one that has
// begun it does nothing.
func (s *Summer) EndBlock() {
	if s.n == 0 {
		return
	}
	if s.tree {
		s.leaf(s.part.Sum128().Bytes())
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

// Whole returns the sum of everything written, XXH3-128 or that of a tree, or nothing
// when it was not wanted. It ends the last block.
func (s *Summer) Whole() [16]byte {
	if s.whole == nil {
		return [16]byte{}
	}
	if s.tree {
		s.EndBlock()
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
