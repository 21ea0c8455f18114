package delta

import (
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/xxh3"
)

// Blocks are the blocks of the new version whose sums are known, and where the
// old version has them, as far as that was found.
type Blocks struct {
	sums Sums
	size int64   // of the new version, bytes
	at   []int64 // where each block is in the new version
	old  []int64 // where the old version has it, or -1
}

// ErrSums says that sums are not those that were asked for.
var ErrSums = errors.New("the sums of blocks do not fit what they are of")

// NewBlocks takes the sums of a new version of size bytes: of all of it when spans
// is nil, else of those parts, which are multiples of the block's length but for the end.
func NewBlocks(sums Sums, size int64, spans []Span) (*Blocks, error) {
	if spans == nil {
		spans = []Span{{Len: size}}
	}
	n, total := int64(0), int64(0)
	for _, s := range spans {
		n += Count(s.Len, sums.Block)
		total += s.Len
	}
	if sums.Block <= 0 || total != sums.Size || n != int64(len(sums.Strong)) || n > MaxBlocks || len(sums.Weak) > 0 && len(sums.Weak) != len(sums.Strong) {
		return nil, fmt.Errorf("%w: %d and %d for %d blocks of %d bytes", ErrSums, len(sums.Strong), len(sums.Weak), n, sums.Block)
	}
	b := &Blocks{sums: sums, size: size, at: make([]int64, 0, n), old: make([]int64, n)}
	for _, s := range spans {
		for off := s.Off; off < s.Off+s.Len; off += sums.Block {
			b.at = append(b.at, off)
		}
	}
	for i := range b.old {
		b.old[i] = -1
	}
	return b, nil
}

// length returns that of block i, in bytes.
func (b *Blocks) length(i int) int64 { return min(b.sums.Block, b.size-b.at[i]) }

// SameSums finds the blocks that the old version, of oldSize bytes, has at the
// same offsets, from its sums of the same parts as far as it goes.
// Blocks that its end cuts differently are not found.
func (b *Blocks) SameSums(have Sums, oldSize int64) {
	if have.Block != b.sums.Block {
		return
	}
	for i := 0; i < len(b.at) && i < len(have.Strong); i++ {
		fits := b.at[i]+b.sums.Block <= min(oldSize, b.size) || b.size == oldSize
		if fits && have.Strong[i] == b.sums.Strong[i] {
			b.old[i] = b.at[i]
		}
	}
}

// Same finds the blocks that old, of oldSize bytes, has at the same offsets.
func (b *Blocks) Same(old io.ReaderAt, oldSize int64) error {
	buf := make([]byte, b.sums.Block)
	for i := range b.at {
		n := b.length(i)
		if b.old[i] >= 0 || b.at[i] > oldSize-n {
			continue
		}
		if _, err := old.ReadAt(buf[:n], b.at[i]); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if xxh3.Hash(buf[:n]) == b.sums.Strong[i] {
			b.old[i] = b.at[i]
		}
	}
	return nil
}

// Plan returns what was found, over what base, which may be nil, knows of other parts.
func (b *Blocks) Plan(base *Plan) Plan {
	p := Plan{Size: b.size}
	var before []Copy
	if base != nil {
		before = base.Copies
	}
	for i := range b.at {
		if b.old[i] < 0 {
			continue
		}
		for len(before) > 0 && before[0].New < b.at[i] {
			p.add(before[0])
			before = before[1:]
		}
		p.add(Copy{New: b.at[i], Old: b.old[i], Len: b.length(i)})
	}
	for _, c := range before {
		p.add(c)
	}
	return p
}

// add appends c, to the last one where they adjoin in both versions.
func (p *Plan) add(c Copy) {
	if n := len(p.Copies); n > 0 {
		last := &p.Copies[n-1]
		if last.New+last.Len == c.New && last.Old+last.Len == c.Old {
			last.Len += c.Len
			return
		}
	}
	p.Copies = append(p.Copies, c)
}

// Unfound returns the blocks that were not found in the old version, ascending.
func (b *Blocks) Unfound() []Span {
	var all []Span
	for i, old := range b.old {
		if old < 0 {
			all = append(all, Span{Off: b.at[i], Len: b.length(i)})
		}
	}
	return all
}
