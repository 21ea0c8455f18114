package program

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/drsync/drsync/rsyncx"
)

// renamed shows one name of a source's root under another.
type renamed struct {
	rsyncx.Source
	name, as string
}

var _ rsyncx.Source = (*renamed)(nil)

func (r *renamed) Abilities() rsyncx.Abilities {
	a := r.Source.Abilities()
	a.Digests = false
	return a
}

// swap puts to in front of a path instead of from.
func swap(path, from, to string) string {
	if path == from {
		return to
	}
	if rest, ok := strings.CutPrefix(path, from+"/"); ok {
		return to + "/" + rest
	}
	return path
}

func (r *renamed) theirs(path string) string { return swap(path, r.as, r.name) }

func (r *renamed) ours(path string) string { return swap(path, r.name, r.as) }

func (r *renamed) Lstat(ctx context.Context, path string) (rsyncx.Entry, error) {
	e, err := r.Source.Lstat(ctx, r.theirs(path))
	if path == r.as {
		e.Name = r.as
	}
	return e, err
}

// Walk shows nothing but the name.
func (r *renamed) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	o.Only, o.Same = []string{r.name}, nil
	return func(yield func(rsyncx.Dir, error) bool) {
		for d, err := range r.Source.Walk(ctx, o) {
			var one *rsyncx.PathError
			if errors.As(err, &one) {
				err = &rsyncx.PathError{Path: r.ours(one.Path), Err: one.Err}
			}
			if d.Path == "" {
				for i := range d.Entries {
					d.Entries[i].Name = r.ours(d.Entries[i].Name)
				}
			} else {
				d.Path = r.ours(d.Path)
				d.Self.Name = d.Path[strings.LastIndexByte(d.Path, '/')+1:]
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

func (r *renamed) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		for f, err := range r.Source.Read(ctx, mapped(want, func(w *rsyncx.Want) { w.Path = r.theirs(w.Path) })) {
			f.Path = r.ours(f.Path)
			if !yield(f, err) {
				return
			}
		}
	}
}

func (r *renamed) Sums(ctx context.Context, want iter.Seq[rsyncx.SumWant]) iter.Seq2[rsyncx.FileSums, error] {
	return func(yield func(rsyncx.FileSums, error) bool) {
		for f, err := range r.Source.Sums(ctx, mapped(want, func(w *rsyncx.SumWant) { w.Path = r.theirs(w.Path) })) {
			f.Path = r.ours(f.Path)
			if !yield(f, err) {
				return
			}
		}
	}
}

func mapped[T any](seq iter.Seq[T], change func(*T)) iter.Seq[T] {
	return func(yield func(T) bool) {
		for v := range seq {
			change(&v)
			if !yield(v) {
				return
			}
		}
	}
}
