package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/drsync/drsync/rsyncx"
)

// list prints the entries of the sources.
func (r *run) list(ctx context.Context, t *tree, rules ruleSet) error {
	for _, e := range r.left {
		r.show(e)
	}
	if t.source == nil {
		return r.closing(rsyncx.Stats{}, t)
	}
	set, err := rules.build(t, false, t.path, t.path)
	if err != nil {
		return usage(err)
	}
	// rsync says how it lists, when it has been asked to say anything.
	if r.c.Info("FLIST") > 0 {
		r.header()
	}
	o := rsyncx.WalkOptions{
		Filter: set, Only: t.only, Flat: t.flat,
		OneFileSystem: r.c.Options.OneFileSystem, OmitMounts: r.c.Options.OmitMounts,
	}
	var empty map[string]bool
	if r.c.Options.PruneEmpty {
		if empty, err = rsyncx.EmptyDirs(ctx, t.source, o); err != nil {
			return err
		}
	}
	show := lister{run: r, tree: t, onTheWay: map[string]rsyncx.Entry{}}
	if t.only != nil {
		show.leads = (&unimplied{only: t.only}).leads
	}
	for d, err := range t.source.Walk(ctx, o) {
		var one *rsyncx.PathError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &one) && errors.Is(err, fs.ErrNotExist) && t.only == nil:
			r.worse(Vanished)
			r.problem("file has vanished: %s", quoted(one.Path))
			continue
		case errors.As(err, &one):
			r.sourceError("readlink_stat", one.Path, one.Err)
			continue
		case err != nil:
			return fmt.Errorf("list the source: %w", err)
		}
		if d.Path == "" && d.After == "" && !t.keepRoot {
			d.Self.Mode = r.c.Options.SentMode(&d.Self)
			count(&show.stats, &d.Self)
			r.out.line(r.c.Listed(&d.Self, ""))
		}
		for i := range d.Entries {
			e := &d.Entries[i]
			if isDir(e) && empty[below(d.Path, e.Name)] {
				continue
			}
			e.Mode = r.c.Options.SentMode(e)
			show.entry(below(d.Path, e.Name), e)
		}
	}
	return r.closing(show.stats, t)
}

// lister prints entries. Directories that only lead to others wait until one of
// those comes: where all of them are hidden rsync does not list them.
type lister struct {
	*run
	tree     *tree
	leads    func(path string) bool // nil leads nowhere
	onTheWay map[string]rsyncx.Entry
	stats    rsyncx.Stats
}

func (l *lister) entry(path string, e *rsyncx.Entry) {
	if l.leads != nil && isDir(e) && l.leads(path) {
		if !l.c.NoImplied || !l.c.Relative {
			l.onTheWay[path] = *e
		}
		return
	}
	if len(l.onTheWay) > 0 {
		l.way(above(path))
	}
	l.line(path, e)
}

// way prints what leads to path, and path, unless it was printed.
func (l *lister) way(path string) {
	if path == "" {
		return
	}
	l.way(above(path))
	if e, waits := l.onTheWay[path]; waits {
		delete(l.onTheWay, path)
		l.line(path, &e)
	}
}

func (l *lister) line(path string, e *rsyncx.Entry) {
	count(&l.stats, e)
	if !l.c.Options.Links {
		e.Target = "" // which counts all the same
	}
	l.out.line(l.c.Listed(e, l.tree.lead+path))
}
