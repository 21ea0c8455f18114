// Package blob names content: a Sum is the hash that is a blob's name, a Ref is
// a Sum with the length a database row gives it.
//
// It owns the rule which names are well formed. Everything that turns a name
// into a path goes through Sum.Valid first.
package blob

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"hash"
)

// Sum is a content hash in lower-case hexadecimal: 40 digits for SHA-1, 64 for
// SHA-256. A Sum that came from outside may be anything; see Valid.
type Sum string

// Valid reports whether s is 40 or 64 lower-case hexadecimal digits.
func (s Sum) Valid() bool {
	if len(s) != 2*sha1.Size && len(s) != 2*sha256.Size {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// NewHash returns the hash function whose digest s is. s must be Valid.
func (s Sum) NewHash() hash.Hash {
	if len(s) == 2*sha256.Size {
		return sha256.New()
	}
	return sha1.New()
}

// Of formats a digest as a Sum.
func Of(digest []byte) Sum { return Sum(fmt.Sprintf("%x", digest)) }

// Ref is a blob as a database row names it. Sum may be malformed when the row is.
type Ref struct {
	Sum  Sum
	Size int64 // bytes
}
