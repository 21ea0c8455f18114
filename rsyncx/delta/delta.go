// Package delta finds what two versions of a file have in common, from sums of
// the blocks of one and the bytes of the other.
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
