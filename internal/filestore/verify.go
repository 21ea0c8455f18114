package filestore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/drsync/drsync/internal/blob"
)

// Problem is a named blob that a store does not have as it should.
type Problem struct {
	Ref   blob.Ref
	Kind  ProblemKind
	Found int64 // bytes; for WrongLength. -1 when copies differ.
}

// ProblemKind says what is wrong with a blob.
type ProblemKind string

const (
	Absent      ProblemKind = "missing"
	WrongLength ProblemKind = "wrong length"
	WrongHash   ProblemKind = "wrong hash"
	Malformed   ProblemKind = "malformed name"
)

func (p Problem) String() string {
	if p.Kind == WrongLength {
		return fmt.Sprintf("%q: %d bytes instead of %d", string(p.Ref.Sum), p.Found, p.Ref.Size)
	}
	return fmt.Sprintf("%q: %s", string(p.Ref.Sum), p.Kind)
}

// Verify yields every blob of want that store lacks or has with another length,
// and, when deep is set, other content. want ascends. It changes nothing.
func Verify(ctx context.Context, want iter.Seq2[blob.Ref, error], store Store, deep bool) iter.Seq2[Problem, error] {
	return func(yield func(Problem, error) bool) {
		for c, err := range compare(ctx, want, store) {
			if err != nil {
				yield(Problem{}, fmt.Errorf("verify blobs: %w", err))
				return
			}
			p := Problem{Ref: c.ref, Found: c.found}
			switch c.state {
			case absent:
				p.Kind = Absent
			case wrongLength:
				p.Kind = WrongLength
			case misnamed:
				p.Kind = Malformed
			case present:
				if deep {
					p.Kind, err = checkContent(ctx, c.ref, store)
				}
			}
			if err != nil {
				yield(Problem{}, fmt.Errorf("verify blobs: %w", err))
				return
			}
			if p.Kind != "" && !yield(p, nil) {
				return
			}
		}
	}
}

// checkContent reads a blob, in a union every copy of it.
func checkContent(ctx context.Context, ref blob.Ref, store Store) (ProblemKind, error) {
	stores := []Store{store}
	if u, ok := store.(*Union); ok {
		stores = stores[:0]
		for _, s := range u.shards {
			stores = append(stores, s)
		}
	}
	copies := 0
	for _, s := range stores {
		r, err := s.Open(ctx, ref.Sum)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return "", err
		}
		copies++
		err = verified(ctx, ref, r, nil)
		if cerr := r.Close(); err == nil {
			err = cerr
		}
		if errors.Is(err, ErrCorrupt) {
			return WrongHash, nil
		}
		if err != nil {
			return "", fmt.Errorf("read %s: %w", ref.Sum, err)
		}
	}
	if copies == 0 {
		return Absent, nil
	}
	return "", nil
}
