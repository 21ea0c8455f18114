package rsyncx

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// extra takes a name that only the destination has; see extras.
func (s *stager) extra(f *frame, here *info) error {
	defer s.aloud()()
	path := joinPath(f.path, here.Name)
	switch {
	case !s.o.Delete || s.o.deleted:
		s.survey(f.fd, path, here)
	case f.early || s.protected(f.guard, path, here.isDir()):
	case f.long != nil:
		f.gone = append(f.gone, uint32(f.long.past(here.Name)-1))
	default:
		f.extra = append(f.extra, *here)
	}
	return nil
}

// extrasFirst decides about the extra names of a directory before anything in it
// makes way for another type, when only so many may go.
func (s *stager) extrasFirst(f *frame, d *Dir) error {
	if !s.o.Delete || s.o.deleted || !s.o.DeleteLimited || s.o.DeleteAfter || d.Same || d.Partial || !f.only.All() {
		return nil
	}
	entries := d.Entries
	for i := range f.dst {
		here := &f.dst[i]
		for len(entries) > 0 && entries[0].Name < here.Name {
			entries = entries[1:]
		}
		if len(entries) > 0 && entries[0].Name == here.Name && s.lets(f, &entries[0]) {
			continue
		}
		if err := s.extra(f, here); err != nil {
			return err
		}
	}
	f.early = true
	return s.extras(f)
}

// extras decides about the names that only the destination has in f, in rsync's
// order, on which depends what DeleteUpTo leaves.
func (s *stager) extras(f *frame) error {
	doomed, gone, long := f.extra, f.gone, f.long
	f.extra, f.gone, f.long = nil, nil, nil
	deletionOrder(doomed)
	defer s.aloud()()
	for i := range doomed {
		if err := s.doomExtra(f, &doomed[i]); err != nil {
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	_, err := s.lister.eachOf(f.fd, f.path, long, gone, func(here *info) error { return s.doomExtra(f, here) })
	return err
}

func (s *stager) doomExtra(f *frame, here *info) error {
	path := joinPath(f.path, here.Name)
	dirty, doomed, backedUp := f.dirty, s.doomed, s.backedUp
	if err := s.write(f); err != nil {
		return s.shutOut(path, err)
	}
	_, err := s.doom(f.fd, path, here, f.guard, s.delete)
	if s.doomed == doomed && s.backedUp == backedUp {
		f.dirty = dirty // it stays, and so does the directory's time
	}
	return err
}

// aloud lets the first half of DeleteBefore, which is silent about all else, tell
// what comes of extra names, until the function that it returns is called.
func (s *stager) aloud() (hush func()) {
	if !s.o.deleteOnly {
		return func() {}
	}
	silent := s.o.Event
	s.o.Event = s.out.sink
	return func() { s.o.Event = silent }
}

// deletionOrder sorts names as rsync deletes them: directories first, the last
// in its order of names first.
func deletionOrder(names []info) {
	slices.SortFunc(names, func(a, b info) int {
		if a.isDir() != b.isDir() {
			if a.isDir() {
				return -1
			}
			return 1
		}
		if a.isDir() {
			return strings.Compare(b.Name+"/", a.Name+"/")
		}
		return strings.Compare(b.Name, a.Name)
	})
}

// remover removes one name, and says whether it, or its backup, stays where it was.
type remover func(path string, here *info) (stays bool, err error)

// delete removes what the source has not, up to the limit.
func (s *stager) delete(path string, here *info) (stays bool, err error) {
	if !s.mayDelete() {
		s.undoomed++
		return true, nil
	}
	s.doomed++
	o, stays := s.removal(path, here)
	if o.kind == opBackup && s.backupDir != "" && strings.HasPrefix(path, s.backupDir) {
		o.number |= backupEarly
	}
	return stays, s.op(partDelete, o)
}

// mayDelete tells whether DeleteUpTo leaves room for one more.
func (s *stager) mayDelete() bool {
	return !s.o.DeleteLimited || s.stats.Deleted+s.doomed < s.o.DeleteUpTo
}

// removal returns what removes a name or makes a backup of it. stays says that
// the backup is in the same directory.
func (s *stager) removal(path string, here *info) (o op, stays bool) {
	switch {
	case here.isDir():
		return op{kind: opRmdir, path: path, kindOf: here.Mode & unix.S_IFMT}, false
	case !s.backsUp(path), s.unsafeOld(path, here):
		o := op{kind: opRemove, path: path, kindOf: here.Mode & unix.S_IFMT}
		if s.o.Backup {
			o.dev, o.ino = here.Dev, here.Ino // a backup that this run makes may take its place
		}
		return o, false
	}
	return s.backup(path, here, backupMove), s.o.BackupDir == ""
}

// doom removes one name with all that is in it, children first, and reports
// whether something must stay: a protected name, a mount point, a backup.
func (s *stager) doom(parent int, path string, here *info, guard *filter.Scope, del remover) (stays bool, err error) {
	switch {
	case here.mount && !s.o.OneFileSystem: // rsync would delete what is mounted there
		s.info(path, "cannot delete mount point: "+Printable(path))
		return true, nil
	case here.mount:
		text := "cannot delete mount point: "
		if s.o.OmitMounts {
			text = "[generator] skipping mount-point dir "
		}
		if s.o.Explain {
			s.info(path, text+Printable(path))
		}
		return true, nil
	}
	if !here.isDir() {
		stays, err := del(path, here)
		if is := leftGoes; err == nil {
			if stays {
				is = leftTaken
			}
			s.leftOver(path, here, is)
		}
		return stays, err
	}
	fd, lock, err := s.unlock(parent, here)
	if errors.Is(err, unix.EACCES) {
		return true, s.shutOut(path, errShut)
	}
	if err != nil {
		return false, fmt.Errorf("open the directory %s of the destination: %w", Printable(path), err)
	}
	defer lock()
	locked := !s.cmp.root && here.Mode&0o700 != 0o700
	if locked {
		enter := op{kind: opEnter, path: path, attr: attr{set: setMode, mode: here.Mode&0o7777 | 0o700}}
		if err := s.op(partClear, enter); err != nil {
			return false, err
		}
	}
	guard, err = guard.Doomed().Enter(path, func(name string) ([]byte, error) { return readRulesAt(s.dst.fd, fd, path, name) })
	if err != nil {
		return false, err
	}
	stays = s.holdsBackups(path)
	backedUp := s.backedUp
	seen, err := s.lister.each(fd, path, func(in *info) error {
		child := joinPath(path, in.Name)
		if in.Dev != here.Dev {
			in.mount = true
		}
		if s.protected(guard, child, in.isDir()) {
			stays = true
			return nil
		}
		left, err := s.doom(fd, child, in, guard, del)
		stays = stays || left
		return err
	})
	s.destSeen += seen
	if err != nil {
		return false, err
	}
	if stays || s.backedUp > backedUp && s.keepsOwn(path) {
		s.info(path, "cannot delete non-empty directory: "+Printable(path))
		if locked {
			err = s.op(partAttrs, op{kind: opDirAttr, path: path, attr: attr{set: setMode, mode: here.Mode & 0o7777}})
		}
		return true, err
	}
	return del(path, here)
}

// makeWay clears the place of an entry from something of another type. A
// directory goes only when deletion is on or forced, or it is empty.
func (s *stager) makeWay(f *frame, e *Entry, here *info) (bool, error) {
	path := joinPath(f.path, e.Name)
	if here.mount {
		s.blocked(path, e)
		return false, nil
	}
	if err := s.touch(f, e); err != nil {
		return false, err
	}
	if here.isDir() && !s.o.Delete && !s.o.Force {
		empty, err := emptyAt(f.fd, e.Name, s.names)
		if err != nil {
			return false, fmt.Errorf("list the directory %s of the destination: %w", Printable(path), err)
		}
		if !empty {
			s.info(path, "cannot delete non-empty directory: "+Printable(path))
			s.blocked(path, e)
			return false, nil
		}
	}
	stays, err := s.doom(f.fd, path, here, f.guard, func(child string, here *info) (bool, error) {
		if child != path && !s.mayDelete() {
			s.stats.NotDeleted++
			return true, nil
		}
		o, stays := s.removal(child, here)
		if child != path { // that itself is replaced, not deleted
			s.deleted(o)
		} else {
			stays = false
		}
		return stays, s.op(partClear, o)
	})
	if stays {
		s.blocked(path, e)
	}
	return !stays && err == nil, err
}

func emptyAt(dir int, name string, buf []byte) (bool, error) {
	fd, err := openDir(dir, name)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	names, err := readNames(fd, buf)
	return len(names) == 0, err
}

func (s *stager) info(path, text string) {
	s.o.Event.Emit(event.Event{Kind: event.Info, Name: path, Text: text})
}
