package rsyncx

import (
	"crypto/md5"
	"crypto/sha1"
	"hash"

	"github.com/zeebo/xxh3"
	"golang.org/x/crypto/md4" //nolint:staticcheck // rsync offers this sum by name; what travels is proved by another

	"github.com/drsync/drsync/rsyncx/delta"
)

// SumKind is an algorithm for sums of whole files, of those that rsync has. The
// zero one is what drsync checks everything by that travels; the others decide
// only where somebody asks for them.
type SumKind uint8

const (
	SumXXH128 SumKind = iota
	SumXXH3
	SumXXH64
	SumMD5
	SumSHA1
	SumMD4
	sumKinds
)

// ParseSumKind knows the names that rsync gives the algorithms.
func ParseSumKind(name string) (SumKind, bool) {
	switch name {
	case "xxh128", "auto":
		return SumXXH128, true
	case "xxh3":
		return SumXXH3, true
	case "xxh64", "xxhash":
		return SumXXH64, true
	case "md5":
		return SumMD5, true
	case "sha1":
		return SumSHA1, true
	case "md4":
		return SumMD4, true
	}
	return 0, false
}

// Known reports whether k is one of the above.
func (k SumKind) Known() bool { return k < sumKinds }

// Len is the length of a sum, in bytes.
func (k SumKind) Len() int {
	switch k {
	case SumXXH3, SumXXH64:
		return 8
	case SumSHA1:
		return 20
	}
	return 16
}

// hasher makes a sum beside the XXH3-128, which needs none: then it is nil.
func (k SumKind) hasher() hash.Hash {
	switch k {
	case SumXXH3:
		return xxh3.New()
	case SumXXH64:
		return delta.NewXXH64()
	case SumMD5:
		return md5.New()
	case SumSHA1:
		return sha1.New()
	case SumMD4:
		return md4.New()
	}
	return nil
}

// Of returns the sum of the kind that was asked for.
func (f *FileSums) Of(k SumKind) []byte {
	if k == SumXXH128 {
		return f.Whole[:]
	}
	return f.Other
}
