package program

import (
	"context"
	"errors"
	"fmt"

	"github.com/drsync/drsync/rsyncx"
)

// list prints the entries of the sources.
func (r *run) list(ctx context.Context, t *tree, rules ruleSet) error {
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
	leads := func(string) bool { return false }
	if r.c.NoImplied && r.c.Relative {
		leads = (&unimplied{only: t.only}).leads
	}
	var stats rsyncx.Stats
	for d, err := range t.source.Walk(ctx, o) {
		var one *rsyncx.PathError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &one):
			r.sourceError("readlink_stat", one.Path, one.Err)
			continue
		case err != nil:
			return fmt.Errorf("list the source: %w", err)
		}
		if d.Path == "" && d.After == "" && !t.keepRoot {
			d.Self.Mode = r.c.Options.SentMode(&d.Self)
			count(&stats, &d.Self)
			r.out.line(r.c.Listed(&d.Self, ""))
		}
		for i := range d.Entries {
			e := &d.Entries[i]
			if isDir(e) && leads(below(d.Path, e.Name)) {
				continue
			}
			if !r.c.Options.Links {
				e.Target = ""
			}
			e.Mode = r.c.Options.SentMode(e)
			count(&stats, e)
			r.out.line(r.c.Listed(e, t.lead+below(d.Path, e.Name)))
		}
	}
	return r.closing(stats, t)
}
