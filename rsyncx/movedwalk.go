package rsyncx

import "golang.org/x/sys/unix"

// leftOver notes a file whose content may be what the source has under another
// name, and returns its number or 0. is tells what becomes of it: leftTaken when it stays.
func (s *stager) leftOver(path string, here *info, is leftoverState) int32 {
	if !s.o.Renames || !s.can.Sums || s.pretends() || !isRegular(&here.Entry) || here.Size == 0 || here.mount {
		return 0
	}
	// What is left of a limited deletion, or lives on as a backup, must not become another file.
	if s.o.DeleteLimited || s.o.Backup {
		is |= leftTaken
	}
	return s.moved.add(s.movedKey(&here.Entry), path, is)
}

// outdated notes what a file that looks changed is about to replace, if it comes to that.
func (s *stager) outdated(w *wish) {
	if !w.hasOld || w.old.Size == w.listed && s.cmp.sameTime(w.old.Mtime, w.entry.Mtime) {
		return
	}
	is := leftoverState(0)
	if s.inPlace(w) {
		is = leftTaken // what is written to it would show under every name
	}
	w.left = s.leftOver(w.path, &w.old, is)
}

// replaced says that Publish will put another file in the place of the old one of w.
func (s *stager) replaced(w *wish) {
	if w.left > 0 && !s.pretends() {
		s.moved.get(w.left).is |= leftGone
	}
}

// survey notes what is at a name that only the destination has and that stays.
func (s *stager) survey(parent int, path string, here *info) {
	if !s.o.Renames || s.moved.full || here.mount {
		return
	}
	if !here.isDir() {
		s.leftOver(path, here, leftTaken)
		return
	}
	fd, err := openDir(parent, here.Name)
	if err != nil {
		return // nothing of it is needed
	}
	defer unix.Close(fd)
	// What goes wrong leaves out some that might have been found.
	_, _ = s.lister.each(fd, path, func(in *info) error {
		if in.Dev == here.Dev {
			s.survey(fd, joinPath(path, in.Name), in)
		}
		return nil
	})
}
