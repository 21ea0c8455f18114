package program

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// countAgain adds to s what the line names more than once. It is copied once;
// rsync counts it each time.
func (r *run) countAgain(ctx context.Context, t *tree, rules *filter.Rules, s *rsyncx.Stats) error {
	m, several := t.source.(*merged)
	if !several {
		return r.countNamed(ctx, part{Source: t.source, named: t.named, flat: t.flat}, rules, s)
	}
	m.mu.Lock()
	add(s, &m.again)
	m.mu.Unlock()
	for _, p := range m.parts {
		if err := r.countNamed(ctx, p, rules, s); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) countNamed(ctx context.Context, p part, rules *filter.Rules, s *rsyncx.Stats) error {
	items := make(map[string]bool, len(p.named))
	for _, path := range p.named {
		items[path] = true
	}
	seen := make(map[string]bool, len(p.named))
	again := func(path string) bool {
		first := !seen[path]
		seen[path] = true
		return !first || brought(path, items, p.flat, rules)
	}
	last := "" // the directory of the path before
	for _, path := range p.named {
		dir := path[:max(strings.LastIndexByte(path, '/'), 0)]
		for at := 0; dir != "" && r.c.Relative && !r.c.NoImplied && at < len(dir); {
			at += 1 + strings.IndexByte(dir[at:]+"/", '/')
			if lead := (dir + "/")[:at-1]; lead != last && !strings.HasPrefix(last, lead+"/") && again(lead) {
				s.Entries++
				s.Counts.Dirs++
			}
		}
		last = dir
		if !again(path) {
			continue
		}
		e, err := p.Lstat(ctx, path)
		var one *rsyncx.PathError
		switch {
		case errors.As(err, &one):
			continue // it was told of when it was copied
		case err != nil:
			return fmt.Errorf("look at what is named again: %w", err)
		}
		count(s, &e)
	}
	return nil
}

// brought reports whether path comes with an item above it.
func brought(path string, items map[string]bool, flat bool, rules *filter.Rules) bool {
	if flat || path == "" {
		return false
	}
	for above := path; above != ""; {
		if hidden, _ := rules.Root().Excluded(above, above != path, filter.Sender); hidden {
			return false
		}
		above = above[:max(strings.LastIndexByte(above, '/'), 0)]
		if items[above] {
			return true
		}
	}
	return false
}

// count adds one entry of a listing.
func count(s *rsyncx.Stats, e *rsyncx.Entry) {
	s.Entries++
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.Counts.Files++
		s.Bytes += e.Size
	case unix.S_IFDIR:
		s.Counts.Dirs++
	case unix.S_IFLNK:
		s.Counts.Links++
		s.Bytes += int64(len(e.Target))
	case unix.S_IFCHR, unix.S_IFBLK:
		s.Counts.Devices++
	default:
		s.Counts.Specials++
	}
}

func add(s, more *rsyncx.Stats) {
	s.Entries += more.Entries
	s.Bytes += more.Bytes
	s.Counts.Files += more.Counts.Files
	s.Counts.Dirs += more.Counts.Dirs
	s.Counts.Links += more.Counts.Links
	s.Counts.Devices += more.Counts.Devices
	s.Counts.Specials += more.Counts.Specials
}
