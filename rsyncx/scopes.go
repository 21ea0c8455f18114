package rsyncx

import (
	"context"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// scopes reads the per-directory filter files of both sides, each for its own.
// With DeleteAfter the destination's are those that it will have; without deletion
// it has no say, and they are not read.
func (s *stager) scopes(ctx context.Context, f *frame, d *Dir) (err error) {
	if !s.o.Filter.PerDirectory() || !f.only.Rules() {
		return nil
	}
	theirs := func(name string) ([]byte, error) { return readRules(ctx, s.src, joinPath(f.path, name)) }
	if f.rules, err = f.rules.Enter(f.path, theirs); err != nil {
		return err
	}
	if !s.o.Delete && !s.o.Force || s.o.deleted {
		return nil // nothing is in danger
	}
	f.guard, err = f.guard.Enter(f.path, func(name string) ([]byte, error) {
		switch {
		case s.o.DeleteAfter && !s.o.DryRun && s.comes(f, d, name):
			return theirs(name)
		case f.fd < 0:
			return nil, fs.ErrNotExist
		}
		return readRulesAt(s.dst.fd, f.fd, f.path, name)
	})
	return err
}

// comes reports whether the destination will have the source's copy of name in
// the directory f, and not what it has now.
func (s *stager) comes(f *frame, d *Dir, name string) bool {
	i, found := slices.BinarySearchFunc(d.Entries, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
	if !found || !s.lets(f, &d.Entries[i]) {
		return false
	}
	e := &d.Entries[i]
	var here *info
	if i, found := slices.BinarySearchFunc(f.dst, name, func(h info, name string) int { return strings.Compare(h.Name, name) }); found {
		here = &f.dst[i]
	}
	told := s.o.Event
	s.o.Event = nil // the same is asked again when its turn comes
	defer func() { s.o.Event = told }()
	path := joinPath(f.path, name)
	switch {
	case s.passedOver(path, e, here), s.unwanted(path, e, here), isSymlink(e) && (!s.o.Links || s.unsafe(path, e)):
		return false
	case !isRegular(e) || here == nil || here.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT:
		return isRegular(e) || isSymlink(e)
	case s.o.Append && here.Size >= e.Size:
		return false
	}
	return s.cmp.quick(e, here) != same || s.racy.suspect(path, e)
}
