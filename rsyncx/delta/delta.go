// Package delta finds what two versions of a file have in common, from sums of
// the blocks of the new one and the bytes of the old one.
//
// It owns one invariant: whatever the sums say, a plan names only what the old
// version has and covers every byte of the new one once, and finding it takes
// time linear in the length of the old version.
//
// It is pure: it reads what it is given, and asks nobody.
package delta

// Sums describes the content of a file, or of a part of it, block by block.
type Sums struct {
	Block  int64    // length of a block, bytes; the last one may be shorter
	Size   int64    // length of what is described, bytes
	Strong []uint64 // XXH3-64 of each block
	Weak   []uint32 // rolling sum of each block; empty when it was not asked for
}

// MaxBlocks is how many sums of one file may be asked for at once.
const MaxBlocks = 1 << 22

// Span is a part of a file, in bytes.
type Span struct{ Off, Len int64 }

// Count returns how many blocks a part of size bytes has.
func Count(size, block int64) int64 {
	if block <= 0 {
		return 0
	}
	return size/block + min(size%block, 1)
}
