package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/drsync/drsync/internal/hint"
)

const (
	// maxMounts bounds how many mount points of a source are remembered: each costs a
	// question in every run.
	maxMounts = 64
	// maxMountsBytes bounds their paths.
	maxMountsBytes = 64 << 10
	// maxSourceFile bounds what is remembered of a source, in bytes, quoted.
	maxSourceFile = 4*maxMountsBytes + 16*maxMounts + 64
)

// mounts are the directories of a source that other file systems are mounted on: one
// that is empty and on the root's own is not mounted now, and what the
// destination has of it must stay.
type mounts struct {
	tops  MountTops
	paths []string // known to be mount points now, sorted
	bytes int      // of paths
}

// MountTops tells of the directories of one walk which are the top of another
// file system than the one above them. The zero value is ready.
type MountTops struct {
	root   uint64 // device of the root
	last   string // the top that was met last
	device uint64 // of that
}

// Top is asked about every directory, in the order of the walk.
func (m *MountTops) Top(path string, self *Entry) bool {
	switch {
	case path == "":
		*m = MountTops{root: self.Dev}
		return false
	case self.Dev == m.root, self.Dev == 0:
		return false
	case m.last != "" && self.Dev == m.device && strings.HasPrefix(path, m.last+"/"):
		return false
	}
	m.last, m.device = strings.Clone(path), self.Dev
	return true
}

func (m *mounts) add(path string) {
	at, found := slices.BinarySearch(m.paths, path)
	if !found && len(m.paths) < maxMounts && m.bytes+len(path) <= maxMountsBytes {
		m.paths = slices.Insert(m.paths, at, strings.Clone(path))
		m.bytes += len(path)
	}
}

// stillMounted refuses a source of whose remembered mount points one is empty and on
// the file system of the root.
func (s *stager) stillMounted(ctx context.Context, root *Entry, before []string) error {
	s.mounts = mounts{}
	for _, path := range before {
		e, err := s.src.Lstat(ctx, path)
		var single *PathError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.As(err, &single):
			s.mounts.add(path)
			continue
		case err != nil:
			return fmt.Errorf("look at %s, where a file system was mounted on the source: %w", Printable(path), err)
		case !isDir(&e):
			continue
		case e.Dev != root.Dev:
			s.mounts.add(path)
			continue
		}
		empty, err := s.emptyThere(ctx, path)
		if err != nil {
			return err
		}
		if empty {
			return hint.With(refused("%s of the source had a file system of its own the last time, and is an empty directory now", Printable(path)),
				"mount it on the source; if it is meant to be empty, accept that for one run (--new-source)")
		}
	}
	return nil
}

// emptyThere reports whether a directory of the source has nothing in it.
func (s *stager) emptyThere(ctx context.Context, path string) (bool, error) {
	for d, err := range s.src.Walk(ctx, WalkOptions{Only: []string{path}}) {
		var single *PathError
		switch {
		case errors.As(err, &single):
			return false, nil // the real walk meets it too
		case err != nil:
			return false, fmt.Errorf("list %s of the source: %w", Printable(path), err)
		case d.Path == path:
			return len(d.Entries) == 0, nil
		}
	}
	return false, ctxOr(ctx, nil)
}

// mounted notes whether d is a mount point of the source.
func (s *stager) mounted(d *Dir) {
	if (s.o.SameSource || s.o.NewSource) && (d.Path == "" || !d.Same) && s.mounts.tops.Top(d.Path, &d.Self) {
		s.mounts.add(d.Path)
	}
}

// knownSource is what is remembered of a source.
type knownSource struct {
	ino    uint64 // of its root
	mounts []string
}

func (k *knownSource) text() []byte {
	text := fmt.Appendf(nil, "1 %d\n", k.ino)
	for _, path := range k.mounts {
		text = append(strconv.AppendQuote(append(text, "mount "...), path), '\n')
	}
	return text
}

func parseKnownSource(text string) (k knownSource, ok bool) {
	first, rest, _ := strings.Cut(text, "\n")
	number, ok := strings.CutPrefix(first, "1 ")
	ino, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || ino == 0 {
		return knownSource{}, false
	}
	k.ino = ino
	for line := range strings.Lines(rest) {
		quoted, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "mount ")
		path, err := strconv.Unquote(quoted)
		if !ok || err != nil || path == "" || CheckPath(path) != nil || len(k.mounts) == maxMounts {
			return knownSource{}, false
		}
		k.mounts = append(k.mounts, path)
	}
	return k, true
}
