package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drsync/drsync/rsyncx/filter"
)

// maxPruned bounds the memory that empty directories of a source take.
const maxPruned = 4 << 20

// prunes reports whether the entry e of the directory dir is an empty or idle directory to be left out.
func (s *stager) prunes(dir string, e *Entry) bool {
	return len(s.pruned) > 0 && isDir(e) && s.pruned[joinPath(dir, e.Name)]
}

// findEmpty walks the source once before the real walk, for whether a directory
// stays depends on what the walk meets after it.
func (s *stager) findEmpty(ctx context.Context) (err error) {
	if s.o.PruneEmpty {
		p := pruner{guard: s.o.Filter.Root().For(filter.Receiver), backups: s.backups.Root()}
		s.pruned, err = p.walk(ctx, s.src, s.walkOptions())
	}
	return err
}

// EmptyDirs returns the directories that -m leaves out of a walk: a directory that a
// rule of o.Filter keeps at the destination is none of them.
func EmptyDirs(ctx context.Context, src Source, o WalkOptions) (map[string]bool, error) {
	p := pruner{guard: o.Filter.Root().For(filter.Receiver)}
	return p.walk(ctx, src, o)
}

func (p *pruner) walk(ctx context.Context, src Source, o WalkOptions) (map[string]bool, error) {
	p.pruned = make(map[string]bool)
	for d, err := range src.Walk(ctx, o) {
		var unread *PathError
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &unread):
			continue // the real walk meets it too
		case err != nil:
			return nil, fmt.Errorf("list the source: %w", err)
		}
		if err := checkDir(&d); err != nil {
			return nil, err
		}
		if p.arrive(&d); len(p.pruned) > maxPruned {
			return nil, fmt.Errorf("list the source: %w: more than %d empty directories", ErrTooMany, maxPruned)
		}
	}
	p.leave(0)
	return p.pruned, nil
}

// pruner finds the directories without anything but directories in them.
type pruner struct {
	guard *filter.Scope
	// backups is the rule that keeps earlier backups from being deleted, or nil.
	backups *filter.Scope
	open    []prunable
	pruned  map[string]bool
}

// prunable is one directory on the way from the root to the one looked at.
type prunable struct {
	path string
	kept bool
	subs []string // sub-directories that nothing has kept yet
}

func (p *pruner) arrive(d *Dir) {
	if last := len(p.open) - 1; d.After != "" && last >= 0 && p.open[last].path == d.Path {
		p.open[last].take(p, d)
		return
	}
	dir, _ := splitPath(d.Path)
	depth := 0
	for depth < len(p.open) && d.Path != "" && (p.open[depth].path == dir || strings.HasPrefix(dir, p.open[depth].path+"/") || p.open[depth].path == "") {
		depth++
	}
	p.leave(depth)
	at := prunable{path: d.Path, kept: d.Path == "" || p.protected(d.Path)}
	at.take(p, d)
	p.open = append(p.open, at)
}

// take notes the entries of a directory, or of a piece of it.
func (at *prunable) take(p *pruner, d *Dir) {
	for i := range d.Entries {
		e := &d.Entries[i]
		if !isDir(e) {
			at.kept = true
			continue
		}
		if p.protected(joinPath(d.Path, e.Name)) {
			at.kept = true
		} else {
			at.subs = append(at.subs, e.Name)
		}
	}
}

// protected reports whether a rule keeps the directory path at the destination:
// such a one is listed even when it is empty.
func (p *pruner) protected(path string) bool {
	kept, rule := p.guard.Excluded(path, true, filter.Receiver)
	if !kept && rule == "" {
		kept, _ = p.backups.Excluded(path, true, filter.Receiver)
	}
	return kept
}

// leave settles all but the first keep open directories.
func (p *pruner) leave(keep int) {
	for len(p.open) > keep {
		at := p.open[len(p.open)-1]
		p.open = p.open[:len(p.open)-1]
		if !at.kept {
			continue // its parent's listing has it
		}
		for _, name := range at.subs {
			p.pruned[joinPath(at.path, name)] = true
		}
		if len(p.open) == 0 {
			continue
		}
		above := &p.open[len(p.open)-1]
		above.kept = true
		_, name := splitPath(at.path)
		if i, found := slices.BinarySearch(above.subs, name); found {
			above.subs = slices.Delete(above.subs, i, i+1)
		}
	}
}
