package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"sync"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/rsyncx"
)

// Place is one way to find blobs on the active: a directory and the path of a
// blob below it.
type Place struct {
	Src  rsyncx.Source
	Path func(sum blob.Sum) string
}

// placeBatch is how many blobs are asked for before the next place is asked for
// those that were not there.
const placeBatch = 4096

// NewSource serves blobs from places. A blob that one place does not have, or
// has with another length, is asked for in the next. A file that cannot be read
// is an error, not a missing blob.
func NewSource(places []Place) Source { return &placeSource{slices.Clone(places), placeBatch} }

type placeSource struct {
	places []Place
	batch  int
}

var _ Source = (*placeSource)(nil)

// Fetch implements Source. With one place the whole of want is one stream;
// with several it goes in batches, since a place can only be asked for what the
// one before it lacks.
func (s *placeSource) Fetch(ctx context.Context, want iter.Seq[blob.Ref]) iter.Seq2[Fetched, error] {
	if len(s.places) == 1 {
		return s.places[0].fetch(ctx, want)
	}
	return func(yield func(Fetched, error) bool) {
		next, stop := iter.Pull(want)
		defer stop()
		batch := make([]blob.Ref, 0, s.batch)
		for {
			batch = batch[:0]
			for len(batch) < s.batch {
				ref, ok := next()
				if !ok {
					break
				}
				batch = append(batch, ref)
			}
			if len(batch) == 0 || !s.fetchBatch(ctx, batch, yield) {
				return
			}
		}
	}
}

func (s *placeSource) fetchBatch(ctx context.Context, batch []blob.Ref, yield func(Fetched, error) bool) bool {
	answers := make(map[blob.Sum]error) // ErrNotFound or ErrCorrupt, so far
	for _, place := range s.places {
		var lacking []blob.Ref
		for f, err := range place.fetch(ctx, slices.Values(batch)) {
			if err != nil {
				yield(Fetched{}, err)
				return false
			}
			if corrupt := errors.Is(f.Err, ErrCorrupt); corrupt || errors.Is(f.Err, ErrNotFound) {
				lacking = append(lacking, f.Ref)
				if corrupt || answers[f.Ref.Sum] == nil {
					answers[f.Ref.Sum] = f.Err
				}
				continue
			}
			if !yield(f, nil) {
				return false
			}
		}
		if batch = lacking; len(batch) == 0 {
			return true
		}
	}
	for _, ref := range batch {
		err := answers[ref.Sum]
		if err == nil {
			err = fmt.Errorf("%s: %w", ref.Sum, ErrNotFound)
		}
		if !yield(Fetched{Ref: ref, Err: err}, nil) {
			return false
		}
	}
	return true
}

// asked is the queue of blobs that a place was asked for and has not answered.
type asked struct {
	mu    sync.Mutex
	queue []blob.Ref
	total int64
}

func (a *asked) push(r blob.Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, r)
	a.total++
}

func (a *asked) pop() (blob.Ref, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		return blob.Ref{}, false
	}
	r := a.queue[0]
	a.queue = a.queue[1:]
	return r, true
}

// fetch answers each of want from this place alone.
func (p Place) fetch(ctx context.Context, want iter.Seq[blob.Ref]) iter.Seq2[Fetched, error] {
	return func(yield func(Fetched, error) bool) {
		var a asked
		paths := func(yield func(rsyncx.Want) bool) {
			for ref := range want {
				if !ref.Sum.Valid() { // Fill never asks for one; a path must never be made of it
					panic("internal error: a malformed blob name was asked for")
				}
				a.push(ref)
				if !yield(rsyncx.Want{Path: p.Path(ref.Sum), Size: ref.Size}) {
					return
				}
			}
		}
		for f, err := range p.Src.Read(ctx, paths) {
			if err != nil {
				yield(Fetched{}, fmt.Errorf("fetch blobs: %w", err))
				return
			}
			ref, ok := a.pop()
			if !ok || f.Path != p.Path(ref.Sum) {
				yield(Fetched{}, fmt.Errorf("fetch blobs: %w: %s was not what was asked for", rsyncx.ErrHostile, rsyncx.Printable(f.Path)))
				return
			}
			if !yield(answer(ref, f), nil) {
				return
			}
		}
		if err := context.Cause(ctx); err != nil {
			yield(Fetched{}, err)
			return
		}
		if ref, left := a.pop(); left {
			yield(Fetched{}, fmt.Errorf("fetch blobs: the source ended before it answered %s", ref.Sum))
		}
	}
}

// answer turns what the source says about one file into what it says about a blob.
func answer(ref blob.Ref, f rsyncx.File) Fetched {
	switch {
	case errors.Is(f.Err, fs.ErrNotExist):
		return Fetched{Ref: ref, Err: fmt.Errorf("%s: %w", f.Path, ErrNotFound)}
	case errors.Is(f.Err, rsyncx.ErrNotRegular):
		return Fetched{Ref: ref, Err: fmt.Errorf("%s: %w: %w", f.Path, ErrCorrupt, f.Err)}
	case f.Err != nil:
		return Fetched{Ref: ref, Err: f.Err}
	case f.Body == nil:
		return Fetched{Ref: ref, Err: fmt.Errorf("%s: %w: neither content nor an error", f.Path, rsyncx.ErrHostile)}
	case f.Entry.Size != ref.Size:
		return Fetched{Ref: ref, Err: fmt.Errorf("%s: %w: %d bytes instead of %d", f.Path, ErrCorrupt, f.Entry.Size, ref.Size)}
	}
	return Fetched{Ref: ref, Body: settled{f.Body}}
}

// settled ends a file that changed while it was read like any other: whether
// the bytes are the blob is for their hash to say, not for the file's times.
type settled struct{ r io.Reader }

func (s settled) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if errors.Is(err, rsyncx.ErrTorn) {
		err = io.EOF
	}
	return n, err
}
