package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/drsync/drsync/rsyncx/filter"
)

// findIdle looks once, before the real walk, at what leads to Only: as in rsync a
// directory that leads to nothing but what is missing, or what rules leave out,
// is left out itself. The walk meets it too early to know.
func (s *stager) findIdle(ctx context.Context) error {
	o := s.walkOptions()
	o.Flat = true
	if !leadsAnywhere(o.Only) {
		return nil
	}
	sel, err := o.Select()
	if err != nil {
		return err
	}
	idle := make(map[string]bool)
	for d, err := range s.src.Walk(ctx, o) {
		var unread *PathError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &unread):
			continue // the real walk meets it too
		case err != nil:
			return fmt.Errorf("list the source: %w", err)
		}
		if err := checkDir(&d); err != nil {
			return err
		}
		if sel.idle(&d, idle); len(idle) > maxPruned {
			return fmt.Errorf("list the source: %w: more than %d directories on the way to names", ErrTooMany, maxPruned)
		}
	}
	for path := range idle {
		if !s.o.Flat && sel.within(path, s.o.Filter.Root()) {
			continue
		}
		if s.pruned == nil {
			s.pruned = make(map[string]bool)
		}
		s.pruned[path] = true
	}
	return nil
}

// within reports whether path lies in a directory that was asked for and that no rule hides.
func (s Selection) within(path string, rules *filter.Scope) bool {
	for at := 0; ; {
		name, _, more := strings.Cut(path[at:], "/")
		if !more {
			return false
		}
		if s.Asked(name) {
			if hidden, _ := rules.Excluded(path[:at+len(name)], true, filter.Sender); !hidden {
				return true
			}
		}
		s, _ = s.Enter(name)
		at += len(name) + 1
	}
}

func leadsAnywhere(only []string) bool {
	for _, path := range only {
		if strings.Contains(path, "/") {
			return true
		}
	}
	return false
}

// idle adds the directories of d that only lead, and takes out those above it
// when d has something that was asked for.
func (s Selection) idle(d *Dir, idle map[string]bool) {
	in, into := s.at(d.Path)
	if !into {
		return
	}
	busy := false
	for i := range d.Entries {
		e := &d.Entries[i]
		switch {
		case in.all, in.Asked(e.Name):
			busy = true
		case isDir(e) && in.Leads(e.Name):
			idle[joinPath(d.Path, e.Name)] = true
		}
	}
	for path := d.Path; busy && path != "" && idle[path]; path, _ = splitPath(path) {
		delete(idle, path)
	}
}
