package delta

import (
	"errors"
	"io"
	"math/bits"

	"github.com/zeebo/xxh3"
)

const (
	// maxChain bounds how many blocks are compared at one place of the old version.
	maxChain = 16
	// For every byte that the search goes on it may spend so many on strong sums that fit nothing. A
	// peer that chooses its sums so that all of them look right gains nothing by it.
	creditPerByte = 8
	// searchBuffer is the least length of the part of the old version in memory, in bytes.
	searchBuffer = 1 << 20
)

// searcher looks for blocks anywhere in the old version.
type searcher struct {
	b      *Blocks
	block  int
	filter []uint64 // one bit for each value of the upper bits of a weak sum
	shift  uint     // what is left of a weak sum is its bit
	heads  []int32  // first block of a chain, plus 1
	mask   uint32
	next   []int32 // of the chain, plus 1
	twin   []int32 // another block with the same sums, plus 1
	left   int     // blocks that are not found yet
	credit int64

	compared int64 // comparisons with a block, and strong sums made, for tests
	hashed   int64
}

// Search finds blocks that are not found yet anywhere in the given parts of old,
// by their rolling sums; nil is all of its oldSize bytes.
func (b *Blocks) Search(old io.ReaderAt, oldSize int64, parts []Span) error {
	_, err := b.search(old, oldSize, parts)
	return err
}

func (b *Blocks) search(old io.ReaderAt, oldSize int64, parts []Span) (*searcher, error) {
	if len(b.sums.Weak) == 0 {
		return nil, nil
	}
	if parts == nil {
		parts = []Span{{Len: oldSize}}
	}
	s := newSearcher(b)
	for _, p := range parts {
		if s.left == 0 {
			break
		}
		p.Off = max(p.Off, 0)
		if p.Len = min(p.Len, oldSize-p.Off); p.Len < b.sums.Block {
			continue
		}
		if err := s.part(old, p); err != nil {
			return s, err
		}
	}
	return s, b.tail(old, oldSize)
}

func newSearcher(b *Blocks) *searcher {
	s := &searcher{b: b, block: int(b.sums.Block), next: make([]int32, len(b.at)), twin: make([]int32, len(b.at))}
	width := max(15, min(23, bits.Len(uint(len(b.at)))+6))
	s.filter, s.shift = make([]uint64, 1<<(width-6)), uint(32-width)
	size := 1 << max(8, bits.Len(uint(len(b.at)))+1)
	s.heads, s.mask = make([]int32, size), uint32(size-1)
	// Backwards, so that of equal blocks the first is found first.
	for i := len(b.at) - 1; i >= 0; i-- {
		if b.old[i] < 0 && b.length(i) == b.sums.Block {
			s.left++
			s.insert(i)
		}
	}
	return s
}

// insert adds block i to its chain, unless that is too long: then the block
// counts as missing.
func (s *searcher) insert(i int) {
	weak := s.b.sums.Weak[i]
	head := &s.heads[weak&s.mask]
	n := 0
	for at := *head; at != 0; at = s.next[at-1] {
		k := at - 1
		if s.b.sums.Weak[k] == weak && s.b.sums.Strong[k] == s.b.sums.Strong[i] {
			s.twin[i], s.twin[k] = s.twin[k], int32(i+1)
			return
		}
		if n++; n == maxChain {
			return
		}
	}
	s.next[i], *head = *head, int32(i+1)
	bit := weak >> s.shift
	s.filter[bit/64] |= 1 << (bit % 64)
}

// part searches one part of the old version, which is at least a block long.
func (s *searcher) part(old io.ReaderAt, p Span) error {
	buf := make([]byte, min(p.Len, max(searchBuffer, 4*int64(s.block))))
	have, off := 0, p.Off // buf[:have] is what old has from off on
	end := p.Off + p.Len
	for {
		n, err := old.ReadAt(buf[have:have+int(min(int64(len(buf)-have), end-off-int64(have)))], off+int64(have))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if have += n; have < s.block {
			return nil
		}
		done := s.window(buf[:have], off)
		if n == 0 || s.left == 0 || off+int64(have) >= end {
			return nil
		}
		have = copy(buf, buf[done:have])
		off += int64(done)
	}
}

// window searches data, which is at least a block long and lies at off, and
// returns how far it came: less than a block is left.
func (s *searcher) window(data []byte, off int64) int {
	var r rolling
	fresh := true
	at, last := 0, len(data)-s.block
	for at <= last {
		if fresh {
			r = rolling{}
			r.write(data[at : at+s.block])
			fresh = false
		}
		i := roll(data[at:last], data[at+s.block:], &r, uint64(s.block), s.filter, s.shift)
		hit := i >= 0
		if !hit {
			i = last - at
		}
		at += i
		s.credit += int64(i+1) * creditPerByte
		if !hit {
			return at + 1
		}
		if run := s.match(data[at:], off+int64(at), r.sum()); run > 0 {
			at, fresh = at+run, true
			if s.left == 0 {
				return at
			}
			continue
		}
		if at == last {
			return at + 1
		}
		r.roll(data[at], data[at+s.block], uint64(s.block))
		at++
	}
	return at
}

// roll moves a window of size bytes on until the filter says that it may be a
// block, and returns how many bytes that were; or to the end of what there is,
// and returns -1. It is where a search spends its time, so it is by itself: what it
// needs stays in registers.
func roll(out, in []byte, r *rolling, size uint64, filter []uint64, shift uint) int {
	a, b := r.a, r.b
	h := a*spreadA + b*spreadB
	in = in[:len(out)]
	last := uint64(len(filter) - 1)
	shift += 32
	for i, gone := range out {
		bit := h >> shift
		if filter[(bit/64)&last]&(1<<(bit%64)) != 0 {
			r.a, r.b = a, b
			return i
		}
		a += uint64(in[i]) - uint64(gone)
		b += a - size*uint64(gone)
		h = a*spreadA + b*spreadB
	}
	r.a, r.b = a, b
	bit := h >> shift
	if filter[(bit/64)&last]&(1<<(bit%64)) != 0 {
		return len(out)
	}
	return -1
}

func (r *rolling) roll(out, in byte, size uint64) {
	r.a += uint64(in) - uint64(out)
	r.b += r.a - size*uint64(out)
}

// match looks whether the block at the beginning of data is one of those
// looked for, perhaps found already, and how many that follow it in the new version
// follow here too. It returns how many bytes that are.
func (s *searcher) match(data []byte, off int64, weak uint32) int {
	var strong uint64
	known := false
	for at := s.heads[weak&s.mask]; at != 0; at = s.next[at-1] {
		k := int(at - 1)
		s.compared++
		if s.b.sums.Weak[k] != weak {
			continue
		}
		if !known {
			if s.credit < 0 {
				return 0
			}
			strong, known = xxh3.Hash(data[:s.block]), true
			s.hashed += int64(s.block)
			s.credit -= int64(s.block)
		}
		if strong != s.b.sums.Strong[k] {
			continue
		}
		s.credit += int64(s.block) // well spent
		s.found(k, off)
		return s.run(k, data, off)
	}
	return 0
}

// found notes that the old version has block k, and what equals it, at off.
func (s *searcher) found(k int, off int64) {
	// Behind one that was found already all were.
	for s.b.old[k] < 0 {
		s.b.old[k] = off
		s.left--
		if s.twin[k] == 0 {
			return
		}
		k = int(s.twin[k] - 1)
	}
}

// run follows the new version from block k on for as long as the old one agrees.
func (s *searcher) run(k int, data []byte, off int64) int {
	n := s.block
	for k+1 < len(s.b.at) && n+s.block <= len(data) && s.b.at[k+1] == s.b.at[k]+int64(s.block) && s.b.length(k+1) == int64(s.block) {
		k++
		s.hashed += int64(s.block)
		if xxh3.Hash(data[n:n+s.block]) != s.b.sums.Strong[k] {
			break
		}
		s.found(k, off+int64(n))
		n += s.block
	}
	return n
}

// tail looks for the last, shorter block at the end of the old version.
func (b *Blocks) tail(old io.ReaderAt, oldSize int64) error {
	i := len(b.at) - 1
	if i < 0 || b.old[i] >= 0 || b.length(i) == b.sums.Block || b.length(i) > oldSize {
		return nil
	}
	buf := make([]byte, b.length(i))
	off := oldSize - int64(len(buf))
	if _, err := old.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if xxh3.Hash(buf) == b.sums.Strong[i] {
		b.old[i] = off
	}
	return nil
}
