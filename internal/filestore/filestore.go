// Package filestore reads and writes blobs where the application's chain of
// storage providers keeps them.
//
// Its invariant: a blob that Put wrote is whole and has the hash that is its
// name, or is not there at all; and nothing but Delete and Quarantine ever
// takes a blob away.
package filestore

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/drsync/drsync/internal/blob"
)

// ErrNotFound says that a store or source does not have a blob.
var ErrNotFound = errors.New("blob not found")

// Store is a place for blobs on this host: one provider or a composed chain.
// Methods may be called from several goroutines at once. A malformed Sum is an
// error of every method and touches nothing.
type Store interface {
	// Stat returns the length of a blob, or ErrNotFound.
	Stat(ctx context.Context, sum blob.Sum) (size int64, err error)
	Open(ctx context.Context, sum blob.Sum) (io.ReadCloser, error)
	// Put reads r to its end and stores it as sum if its hash and length are
	// those of ref; otherwise it returns ErrCorrupt and nothing changes. It
	// replaces a blob of the same name in one step. What it wrote is durable
	// after Sync.
	Put(ctx context.Context, ref blob.Ref, r io.Reader) error
	Delete(ctx context.Context, sum blob.Sum) error
	// List yields every well-formed blob ascending by name, and nothing else
	// that may lie in the same directories.
	List(ctx context.Context) iter.Seq2[Info, error]
	// Sync makes everything that was Put durable.
	Sync(ctx context.Context) error
}

// Info is a blob as found in a store.
type Info struct {
	blob.Ref
	ModTime int64 // Unix seconds; when it came to this store
}

// ErrCorrupt says that bytes do not have the hash or length that their name promises.
var ErrCorrupt = errors.New("content does not match its name")

// Quarantiner is an optional ability of a Store: to move a blob aside, from
// where it can come back, instead of deleting it.
type Quarantiner interface {
	Quarantine(ctx context.Context, sum blob.Sum) error
	// Restore brings a blob back, or returns ErrNotFound. The content is verified first.
	Restore(ctx context.Context, ref blob.Ref) error
	// Quarantined yields what is in quarantine, ascending; ModTime is when it was put there.
	Quarantined(ctx context.Context) iter.Seq2[Info, error]
	// Purge deletes a blob from quarantine.
	Purge(ctx context.Context, sum blob.Sum) error
}

// Source serves blobs of the active, many in one stream.
type Source interface {
	// Fetch yields one answer for each wanted blob, in any order. What is wrong
	// with one blob is in Fetched.Err (ErrNotFound when the active has it
	// nowhere); an error of the iterator ends it. Nothing is verified yet.
	Fetch(ctx context.Context, want iter.Seq[blob.Ref]) iter.Seq2[Fetched, error]
}

// Fetched is one blob on its way. Body is valid until the iterator's next turn.
type Fetched struct {
	Ref  blob.Ref
	Body io.Reader
	Err  error
}
