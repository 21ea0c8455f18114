package program

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
)

// countAgain adds to s what the line names more than once. It is copied once;
// rsync counts it each time.
func (r *run) countAgain(ctx context.Context, t *tree, s *rsyncx.Stats) error {
	m, several := t.source.(*merged)
	if !several {
		return r.countPaths(ctx, t.source, t.only, t.again, s)
	}
	m.mu.Lock()
	add(s, &m.again)
	m.mu.Unlock()
	for _, p := range m.parts {
		if err := r.countPaths(ctx, p.Source, p.only, p.again, s); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) countPaths(ctx context.Context, src rsyncx.Source, only, again []string, s *rsyncx.Stats) error {
	for _, path := range again {
		e, err := src.Lstat(ctx, path)
		var one *rsyncx.PathError
		switch {
		case errors.As(err, &one):
			continue // it was told of when it was copied
		case err != nil:
			return fmt.Errorf("look at what is named again: %w", err)
		}
		count(s, &e)
		for dir := leading(only, path); dir > 0; dir-- {
			s.Entries++
			s.Counts.Dirs++
		}
	}
	return nil
}

// leading returns how many directories lie between path and the one of only that brings it.
func leading(only []string, path string) int {
	for _, o := range only {
		if rest, ok := strings.CutPrefix(path, o+"/"); ok {
			return strings.Count(rest, "/")
		}
	}
	return 0
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
