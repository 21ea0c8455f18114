package rsyncx

import (
	"slices"
	"strings"
)

// maxExcused bounds the directories of which the source said that they cannot be listed.
// When there are more, each of them has been said, and what else is missing is not.
const maxExcused = 1 << 16

// owes reports whether the source has to list the directory e of f, or say why not: one
// that is on another file system it may pass over without a word, unless it was asked for by name
// or leads to what was.
func (s *stager) owes(f *frame, e *Entry) bool {
	_, into := f.only.Enter(e.Name)
	return into && !s.o.Shallow && (!s.o.OneFileSystem || !f.only.All() || f.srcDev != 0 && f.srcDev == e.Dev)
}

// excuses notes that the source has said what is wrong with path, which is why the
// directories that lead there may be missing as well. It reports whether path is
// a directory that it owes.
func (s *stager) excuses(path string) bool {
	if s.excused == nil {
		s.excused = make(map[string]struct{})
	}
	for at := path; at != "" && len(s.excused) < maxExcused; at, _ = splitPath(at) {
		s.excused[at] = struct{}{}
	}
	dir, name := splitPath(path)
	depth := s.depth(dir)
	if depth < 0 {
		return false
	}
	f := s.frames[depth]
	i, found := slices.BinarySearchFunc(f.subs, name, func(c sub, name string) int { return strings.Compare(c.name, name) })
	return found && i >= f.next && f.subs[i].owed
}

// unnamed reports whether path is one that nobody asked for by name: only where it is
// listed is it known that it was there.
func (s *stager) unnamed(path string) bool {
	dir, name := splitPath(path)
	in, into := s.only.at(dir)
	return path != "" && into && in.All() && !in.names(name)
}

// vanished says that something is gone that was there when it was listed.
func (s *stager) vanished(path string) {
	s.stats.Vanished++
	s.warn(path, "vanished on the source before it was read")
}
