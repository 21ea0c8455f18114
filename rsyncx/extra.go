package rsyncx

import (
	"fmt"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// extra decides about a name that only the destination has.
func (s *stager) extra(f *frame, here *info) error {
	path := joinPath(f.path, here.Name)
	if !s.o.Delete {
		s.survey(f.fd, path, here)
		return nil
	}
	if s.protected(f.guard, path, here.isDir()) {
		return nil
	}
	if err := s.write(f); err != nil {
		return err
	}
	_, err := s.doom(f.fd, path, here, f.guard, func(o op) error { return s.op(partDelete, o) })
	return err
}

func (s *stager) protected(guard *filter.Scope, path string, dir bool) bool {
	if guard == nil {
		return false
	}
	kept, rule := guard.Excluded(path, dir, filter.Receiver)
	if kept && s.o.Event != nil {
		s.skip(path, "protected by the rule "+Printable(rule))
	}
	return kept
}

// doom passes to del what removes one name with all that is in it, children
// first, and reports whether something must stay: a protected name, or a mount point.
func (s *stager) doom(parent int, path string, here *info, guard *filter.Scope, del func(op) error) (stays bool, err error) {
	if here.mount {
		s.info(path, "cannot delete mount point: "+Printable(path))
		return true, nil
	}
	if !here.isDir() {
		s.leftOver(path, here, true)
		return false, del(op{kind: opRemove, path: path})
	}
	fd, err := openDir(parent, here.Name)
	if err != nil {
		return false, fmt.Errorf("open the directory %s of the destination: %w", Printable(path), err)
	}
	defer unix.Close(fd)
	locked := !s.cmp.root && here.Mode&0o700 != 0o700
	if locked {
		enter := op{kind: opEnter, path: path, attr: attr{set: setMode, mode: here.Mode&0o7777 | 0o700}}
		if err := s.op(partClear, enter); err != nil {
			return false, err
		}
	}
	guard, err = guard.Doomed().Enter(path, func(name string) ([]byte, error) { return readRegularAt(fd, name, maxMergeFile) })
	if err != nil {
		return false, err
	}
	all, err := s.listAt(fd, path)
	if err != nil {
		return false, err
	}
	s.destSeen += int64(len(all))
	for i := range all {
		child := joinPath(path, all[i].Name)
		if all[i].Dev != here.Dev {
			all[i].mount = true
		}
		if s.protected(guard, child, all[i].isDir()) {
			stays = true
			continue
		}
		left, err := s.doom(fd, child, &all[i], guard, del)
		if err != nil {
			return false, err
		}
		stays = stays || left
	}
	if stays {
		s.info(path, "cannot delete non-empty directory: "+Printable(path))
		if locked {
			err = s.op(partAttrs, op{kind: opDirAttr, path: path, attr: attr{set: setMode, mode: here.Mode & 0o7777}})
		}
		return true, err
	}
	return false, del(op{kind: opRmdir, path: path})
}

// makeWay clears the place of an entry from something of another type. A
// directory goes only when deletion is on or it is empty.
func (s *stager) makeWay(f *frame, e *Entry, here *info) (bool, error) {
	path := joinPath(f.path, e.Name)
	if here.mount {
		s.blocked(path, e)
		return false, nil
	}
	if err := s.touch(f, e); err != nil {
		return false, err
	}
	if !here.isDir() {
		return true, s.op(partClear, op{kind: opRemove, path: path})
	}
	if !s.o.Delete {
		empty, err := emptyAt(f.fd, e.Name, s.names)
		if err != nil {
			return false, fmt.Errorf("list the directory %s of the destination: %w", Printable(path), err)
		}
		if !empty {
			s.blocked(path, e)
			return false, nil
		}
	}
	stays, err := s.doom(f.fd, path, here, f.guard, func(o op) error {
		if o.path != path { // the directory itself is replaced, not deleted
			s.deleted(o)
		}
		return s.op(partClear, o)
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
