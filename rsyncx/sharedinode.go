package rsyncx

// maxSharing bounds the memory that sharedInodes takes.
const maxSharing = 1 << 16

// sharedInodes are the files of the destination that have several names, by what the
// source has under those. A file is written to in its place only when all of its
// names that are copied are one file at the source, too, and then once: else one of
// them would show the content of another. Past its bound nothing with several
// names is written to.
type sharedInodes struct {
	like  map[inode]linkKey
	mixed map[inode]bool
	// written are those that a name has been decided for. Only who puts files down looks at it.
	written map[inode]bool
}

// add notes that a name of the destination's file here is e at the source.
func (s *sharedInodes) add(here *info, e *Entry) {
	if here.Nlink < 2 {
		return
	}
	if s.like == nil {
		*s = sharedInodes{map[inode]linkKey{}, map[inode]bool{}, map[inode]bool{}}
	}
	key, is := inode{here.Dev, here.Ino}, linkKey{dev: e.Dev, ino: e.Ino}
	before, known := s.like[key]
	switch {
	case !known && len(s.like) < maxSharing:
		s.like[key] = is
	case known && (before != is || e.Ino == 0):
		s.mixed[key] = true
	}
}

// parts reports whether the names of here become files of their own.
func (s *sharedInodes) parts(here *info) bool {
	if here.Nlink < 2 {
		return false
	}
	key := inode{here.Dev, here.Ino}
	_, known := s.like[key]
	return !known || s.mixed[key]
}

// write notes that here is written to, and reports whether it was already.
func (s *sharedInodes) write(here *info) (again bool) {
	key := inode{here.Dev, here.Ino}
	if here.Nlink < 2 || s.written[key] {
		return here.Nlink > 1
	}
	s.written[key] = true
	return false
}
