package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/drsync/drsync/internal/blob"
)

// Union is several stores seen as one, as a sharding provider does: a blob may
// be in any of them, or in several. New blobs go to the first.
type Union struct{ shards []Local }

var _ Local = (*Union)(nil)

// NewUnion composes shards, of which there is at least one. The Union closes them.
func NewUnion(shards ...Local) *Union { return &Union{shards} }

// Open opens the layout's directories on this host as one store. o.TempDir is
// taken from the layout.
func (l Layout) Open(o DirOptions) (Local, error) {
	if l.Database || len(l.Dirs) == 0 {
		return nil, errors.New("this chain keeps its blobs in the database, there is no directory to open")
	}
	u := &Union{}
	for _, dir := range l.Dirs {
		o.TempDir = dir.TempDir
		d, err := o.Open(dir.Path)
		if err != nil {
			return nil, errors.Join(err, u.Close())
		}
		u.shards = append(u.shards, d)
	}
	if len(u.shards) == 1 {
		return u.shards[0], nil
	}
	return u, nil
}

// mismatched is the length shown for a blob whose copies differ in length: no
// reference matches it, so that it counts as damaged and Put mends it.
const mismatched = -1

// Stat implements Store. When copies differ in length, it returns -1.
func (u *Union) Stat(ctx context.Context, sum blob.Sum) (int64, error) {
	size, found := int64(0), false
	for _, s := range u.shards {
		n, err := s.Stat(ctx, sum)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return 0, err
		case found && n != size:
			return mismatched, nil
		default:
			size, found = n, true
		}
	}
	if !found {
		return 0, fmt.Errorf("look up %s: %w", sum, ErrNotFound)
	}
	return size, nil
}

// Open implements Store: the first copy is opened.
func (u *Union) Open(ctx context.Context, sum blob.Sum) (io.ReadCloser, error) {
	var r io.ReadCloser
	err := u.first(func(s Local) (err error) { r, err = s.Open(ctx, sum); return err })
	return r, err
}

// first calls do for each shard until one does not answer ErrNotFound.
func (u *Union) first(do func(Local) error) (err error) {
	for _, s := range u.shards {
		if err = do(s); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return err
}

// every calls do for all shards; it returns ErrNotFound if all of them do.
func (u *Union) every(do func(Local) error) error {
	var missing error
	done := false
	for _, s := range u.shards {
		switch err := do(s); {
		case errors.Is(err, ErrNotFound):
			missing = err
		case err != nil:
			return err
		default:
			done = true
		}
	}
	if done {
		return nil
	}
	return missing
}

// Put implements Store. Copies of another length that other shards have are
// replaced as well, since the application may read any of them.
func (u *Union) Put(ctx context.Context, ref blob.Ref, r io.Reader) error {
	if err := u.shards[0].Put(ctx, ref, r); err != nil {
		return err
	}
	return u.mend(ctx, ref)
}

func copyBlob(ctx context.Context, ref blob.Ref, from, to Local) error {
	r, err := from.Open(ctx, ref.Sum)
	if err != nil {
		return err
	}
	return errors.Join(to.Put(ctx, ref, r), r.Close())
}

// Delete implements Store: every copy goes.
func (u *Union) Delete(ctx context.Context, sum blob.Sum) error {
	return u.every(func(s Local) error { return s.Delete(ctx, sum) })
}

// List implements Store. When copies differ in length, the length is -1.
func (u *Union) List(ctx context.Context) iter.Seq2[Info, error] {
	return u.merge(func(s Local) iter.Seq2[Info, error] { return s.List(ctx) })
}

// merge yields the union of the shards' sorted streams.
func (u *Union) merge(stream func(Local) iter.Seq2[Info, error]) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		heads := make([]*head, len(u.shards))
		for i, s := range u.shards {
			heads[i] = newHead(stream(s))
			defer heads[i].stop()
		}
		for {
			var least Info
			found := false
			for _, h := range heads {
				if h.err != nil {
					yield(Info{}, h.err)
					return
				}
				if h.more && (!found || h.info.Sum < least.Sum) {
					least, found = h.info, true
				}
			}
			if !found {
				return
			}
			for _, h := range heads {
				if !h.more || h.info.Sum != least.Sum {
					continue
				}
				if h.info.Size != least.Size {
					least.Size = mismatched
				}
				least.ModTime = max(least.ModTime, h.info.ModTime)
				h.advance()
			}
			if !yield(least, nil) {
				return
			}
		}
	}
}

// head is the next element of a stream.
type head struct {
	next func() (Info, error, bool)
	stop func()
	info Info
	err  error
	more bool
}

func newHead(stream iter.Seq2[Info, error]) *head {
	h := &head{}
	h.next, h.stop = iter.Pull2(stream)
	h.advance()
	return h
}

func (h *head) advance() { h.info, h.err, h.more = h.next() }

// Sync implements Store.
func (u *Union) Sync(ctx context.Context) error {
	for _, s := range u.shards {
		if err := s.Sync(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Quarantine implements Quarantiner: every copy goes to its own shard's quarantine.
func (u *Union) Quarantine(ctx context.Context, sum blob.Sum) error {
	return u.every(func(s Local) error { return s.Quarantine(ctx, sum) })
}

// Restore implements Quarantiner: every good copy comes back, and copies of
// another length that stand beside it are replaced. It is ErrCorrupt when only
// bad ones are in quarantine.
func (u *Union) Restore(ctx context.Context, ref blob.Ref) error {
	var bad error
	err := u.every(func(s Local) error {
		err := s.Restore(ctx, ref)
		if errors.Is(err, ErrCorrupt) {
			bad = err
			return ErrNotFound
		}
		return err
	})
	if errors.Is(err, ErrNotFound) && bad != nil {
		return bad
	}
	if err != nil {
		return err
	}
	return u.mend(ctx, ref)
}

// mend replaces copies of a wrong length by one of the right length.
func (u *Union) mend(ctx context.Context, ref blob.Ref) error {
	var good Local
	var wrong []Local
	for _, s := range u.shards {
		size, err := s.Stat(ctx, ref.Sum)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return err
		case size != ref.Size:
			wrong = append(wrong, s)
		case good == nil:
			good = s
		}
	}
	for _, s := range wrong {
		if err := copyBlob(ctx, ref, good, s); err != nil {
			return err
		}
	}
	return nil
}

// Quarantined implements Quarantiner.
func (u *Union) Quarantined(ctx context.Context) iter.Seq2[Info, error] {
	return u.merge(func(s Local) iter.Seq2[Info, error] { return s.Quarantined(ctx) })
}

// Purge implements Quarantiner.
func (u *Union) Purge(ctx context.Context, sum blob.Sum) error {
	return u.every(func(s Local) error { return s.Purge(ctx, sum) })
}

// Free implements Local.
func (u *Union) Free() (int64, error) { return u.shards[0].Free() }

// Paths implements Local.
func (u *Union) Paths(sum blob.Sum) []string {
	var all []string
	for _, s := range u.shards {
		all = append(all, s.Paths(sum)...)
	}
	return all
}

// Close implements Local.
func (u *Union) Close() error {
	var err error
	for _, s := range u.shards {
		err = errors.Join(err, s.Close())
	}
	return err
}
