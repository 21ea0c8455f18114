package rsyncx

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// entry decides about one name that the source has. here is what the
// destination has under that name, or nil.
func (s *stager) entry(f *frame, e *Entry, here *info) error {
	path := joinPath(f.path, e.Name)
	s.count(e)
	s.racy.listed(e.Mtime)
	switch {
	case isRegular(e):
		s.stats.Bytes += e.Size
	case isSymlink(e):
		s.stats.Bytes += int64(len(e.Target))
	}
	if s.passedOver(path, e, here) {
		f.ignore(e)
		return nil
	}
	if s.unsafe(path, e) || !s.carries(path, e) || s.unwanted(path, e, here) {
		return nil
	}
	s.own(e)
	if err := s.bearings(path, e); err != nil {
		return err
	}
	if here != nil && here.Mode&unix.S_IFMT == e.Mode&unix.S_IFMT {
		s.bears(f.fd, e.Name, here)
	}
	cleared := here != nil && here.isDir() != isDir(e)
	if cleared {
		ok, err := s.makeWay(f, e, here)
		if err != nil || !ok {
			f.ignore(e)
			return err
		}
		here = nil
	} else if here != nil && here.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT && here.mount {
		s.blocked(path, e)
		return nil
	}
	if isDir(e) {
		return s.directory(f, e, here)
	}
	group, follower, err := s.group(path, e)
	if err != nil {
		return err
	}
	switch {
	case isRegular(e):
		return s.regular(f, path, e, here, group)
	case follower && s.groups[group].state != groupAlt:
		return s.follow(f, path, e, here, group)
	default:
		return s.special(f, path, e, here, group, cleared)
	}
}

// carries reports whether options, privileges and the source let e travel.
// What does not still shields the destination's copy from deletion.
func (s *stager) carries(path string, e *Entry) bool {
	mode := e.Mode
	switch {
	case isSymlink(e) && !s.o.Links, isDevice(mode) && !s.o.Devices, isNode(mode) && !isDevice(mode) && !s.o.Specials:
		s.skip(path, SkipNonRegular)
		return false
	case isDevice(mode) && !s.cmp.root:
		s.stats.Skipped++
		s.notes.add("a device was left out: only root can make one")
		s.skip(path, "only root can make a device")
		return false
	case isDevice(mode) && !s.can.Devices:
		s.stats.Skipped++
		s.notes.add("a device was left out: the source does not know its number")
		s.skip(path, "the source does not know the device's number")
		return false
	}
	return true
}

// own counts what cannot be given to its owner.
func (s *stager) own(e *Entry) {
	lost := false
	if s.o.Owner && !s.cmp.root && s.ids.uid(e) != uint32(os.Geteuid()) {
		lost = true
		s.notes.add("an owner was not kept: only root can give files away")
	}
	if s.o.Group && !s.cmp.mayGroup(s.ids.gid(e)) {
		lost = true
		s.notes.add("a group was not kept: only root and members can give files to it")
	}
	if lost {
		s.stats.Skipped++
	}
}

func (s *stager) attrs(e *Entry, here *info) attr {
	return s.cmp.target(e, s.ids.uid(e), s.ids.gid(e), here)
}

// fresh is attrs for something that is made anew in a directory whose new names
// inherit the group gid, or none when that is -1.
func (s *stager) fresh(e *Entry, here *info, gid int64) attr {
	a := s.attrs(e, here)
	if gid < 0 {
		gid = s.stageGID
	}
	if a.set&setGID == 0 && gid >= 0 && s.cmp.mayGroup(uint32(gid)) {
		a.set, a.gid = a.set|setGID, uint32(gid)
	}
	return a
}

// rootAttrs compares the attributes of the root itself.
func (s *stager) rootAttrs(e *Entry, now *info) (attr, change) {
	if s.o.KeepRoot {
		return attr{set: setMode, mode: now.Mode & 0o7777}, change{update: '.'}
	}
	s.count(e)
	s.own(e)
	set := s.attrs(e, now)
	ch := s.cmp.attrs(e, set, now, '.')
	switch {
	case s.o.NewRoot && s.o.DryRun && s.o.Existing:
		s.explain("./", SkipNotCreatedDir) // as what stands for it has no say
	case s.o.NewRoot:
		s.newDirectory("", e)
	case ch.any():
		s.changed("", e, ch, "")
	default:
		s.upToDate("", e)
	}
	return set, ch
}

// newDirectory reports a directory that the destination has not, or had not.
func (s *stager) newDirectory(path string, e *Entry) {
	if m := s.alternate(path, e, nil); m.rank > altNone {
		s.altMade(path, e, &m)
		return
	}
	s.created(e)
	s.changed(path, e, change{update: 'c', isNew: true}, "")
}

// implied reports whether KeepImplied is about the directory e.
func (s *stager) implied(f *frame, e *Entry) bool {
	return s.o.KeepImplied && !f.only.All() && f.only.Leads(e.Name) && !f.only.Asked(e.Name)
}

func (s *stager) directory(f *frame, e *Entry, here *info) error {
	path := joinPath(f.path, e.Name)
	c := sub{name: e.Name, dst: here, set: s.attrs(e, here), mount: f.mount}
	if here != nil {
		own := *here // the rest of the listing need not stay for it
		c.dst = &own
	}
	c.owed = s.owes(f, e)
	implied := s.implied(f, e)
	if implied && here != nil {
		c.set = attr{set: setMode, mode: here.Mode & 0o7777}
	}
	if here == nil {
		acl := s.inherits(f)
		if implied {
			acl = s.defaultACL(f)
		}
		c.set = s.bequeath(s.fresh(e, nil, f.gid), e, nil, acl)
		c.acl = inheritedACL{known: true, list: s.cmp.handedDown(acl, c.set.xattrs)}
		c.gid = int64(os.Getegid())
		if implied && len(s.o.Chmod) > 0 {
			c.set.mode = e.Mode & 0o7777 // that is for what is sent
		}
		if implied && acl != "" { // which counts instead of the umask
			c.set.mode = c.set.mode&^0o777 | aclPerms(acl)
		}
		if f.gid >= 0 && (!s.o.Perms || implied) {
			c.set.mode |= unix.S_ISGID // as mkdir does
		}
		if implied {
			c.set.uid, c.set.gid = uint32(os.Geteuid()), uint32(os.Getegid())
		}
		if implied && f.gid >= 0 {
			c.set.gid = uint32(f.gid)
		}
		c.needs, c.quiet = true, c.set
		if err := s.touch(f, e); err != nil {
			return err
		}
		f.subs = append(f.subs, c)
		if !implied { // of which rsync says nothing
			s.newDirectory(path, e)
		}
		t, o, err := s.trees.mkdir(f.tree, path)
		if err != nil {
			return err
		}
		f.subs[len(f.subs)-1].tree = t
		if o.kind == opTree {
			return s.op(partDirs, o)
		}
		return nil
	}
	c.gid = int64(here.GID)
	c.mount = f.mount || here.mount || here.Dev != f.dev
	ch := s.cmp.attrs(e, c.set, here, '.')
	c.set = s.cmp.overMode(c.set)
	c.quiet = c.set.only(ch)
	if err := s.beforeBackups(path, c.quiet); err != nil {
		return err
	}
	if c.needs = ch.any(); c.needs {
		s.changed(path, e, ch, "")
	} else {
		s.upToDate(path, e)
	}
	f.subs = append(f.subs, c)
	return nil
}

// regular decides by the quick check whether a file is fetched. Of a group all names
// are wanted until all are known; see leaders.
func (s *stager) regular(f *frame, path string, e *Entry, here *info, group int) error {
	w := wish{path: path, group: group, listed: e.Size, gid: f.gid, tree: f.tree}
	w.mount, w.entry, w.acl = f.mount, *e, s.inherits(f)
	if here != nil && isRegular(&here.Entry) {
		w.old, w.hasOld = *here, true
		if s.o.Inplace {
			s.sharing.add(here, e)
		}
	}
	if !s.led(group) { // else it becomes a link
		if done, err := s.altFile(f, &w, e, here); done || err != nil {
			return err
		}
	}
	if !w.hasOld && w.alt > 0 && s.o.Append && w.old.Size >= e.Size {
		return nil // nothing could be appended to it
	}
	if w.hasOld {
		v := s.cmp.quick(e, here)
		if v == same && s.racy.suspect(path, e) {
			v = unsure
		}
		switch {
		case s.led(group): // it becomes a link
		case v == same:
			s.keeps(group, path, here)
			return s.adjust(path, e, here)
		case v == unsure:
			w.compare = true
		case s.o.Append && here.Size >= e.Size:
			return nil // it has not grown
		}
	}
	if here != nil && here.mount {
		s.blocked(path, e)
		return nil
	}
	if here != nil && here.held && !w.compare && group < 0 && !s.o.DryRun {
		s.holds(&w)
		return nil
	}
	if here != nil && !w.hasOld && s.backsUp(path) {
		if err := s.keepOld(path, here); err != nil {
			return err
		}
	}
	if s.isKept(group, here) {
		// It is linked as it should be.
	} else if group >= 0 && f.mount {
		f.dirty = true // it may be
	} else if s.inPlace(&w) && w.old.Nlink < 2 && group < 0 && !f.mount && len(s.alts) == 0 {
		// The names in f stay as they are, and so does its time.
	} else if err := s.touch(f, e); err != nil && !w.compare {
		return err
	}
	s.mayLead(&w)
	s.outdated(&w)
	if !w.hasOld && w.alt == 0 && s.o.Fuzzy && e.Size >= deltaLeast {
		w.like = s.similar(e, f.around)
	}
	if !w.compare {
		s.wantedBytes += e.Size
	}
	return s.wanted.add(w.append)
}

// special makes symbolic links, devices, named pipes and sockets. cleared says
// that a directory made way for it.
func (s *stager) special(f *frame, path string, e *Entry, here *info, group int, cleared bool) error {
	old := here
	if here != nil && class(here.Mode) != class(e.Mode) {
		here = nil // replaced by a rename, reported as new
	}
	if here != nil {
		equal, err := s.sameValue(f, e, here)
		if err != nil {
			return err
		}
		if equal {
			s.keeps(group, path, here)
			return s.adjust(path, e, here)
		}
		if here.mount {
			s.blocked(path, e)
			return nil
		}
	}
	var like *altMatch
	if old == nil && !cleared {
		done, m, err := s.altNode(f, path, e, group)
		if done || err != nil {
			return err
		}
		like = m
	}
	if err := s.touch(f, e); err != nil {
		return err
	}
	own := here
	if own == nil && old != nil && !isSymlink(&old.Entry) {
		own = old // whose permissions stay without Perms, whatever it is; those of a link are none
	}
	at, err := s.content.node(f.tree, path, e, s.bequeath(s.fresh(e, own, f.gid), e, here, s.inherits(f)), s.pretends())
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) {
		s.stats.Skipped++
		s.notes.add("a link or special file was left out: this host does not let us make it")
		s.warn(path, "cannot be made: "+Printable(err.Error()))
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case here != nil:
		ch := s.cmp.attrs(e, s.attrs(e, here), here, 'c')
		ch.content = true
		// rsync compares with the new one, which has none yet.
		plain, acls := xattrsDiffer(e.Xattrs, "")
		ch.xattrs, ch.acls = plain && s.cmp.xattrs, acls && s.cmp.acls
		s.changed(path, e, ch, "")
	case like != nil:
		s.altMade(path, e, like)
	default:
		s.created(e)
		s.changed(path, e, change{update: 'c', isNew: true}, "")
	}
	if old != nil {
		if err := s.keepOld(path, old); err != nil {
			return err
		}
		s.leftOver(path, old, leftGone)
	}
	s.groupReplaced(group, path, at)
	return s.placed(path, at, e.Mode&unix.S_IFMT, 0)
}

// class puts together the types that rsync reports as a change of one another.
func class(mode uint32) uint32 {
	switch t := mode & unix.S_IFMT; t {
	case unix.S_IFBLK:
		return unix.S_IFCHR
	case unix.S_IFSOCK:
		return unix.S_IFIFO
	default:
		return t
	}
}

// sameValue compares what a link points to or which device a node is.
func (s *stager) sameValue(f *frame, e *Entry, here *info) (bool, error) {
	switch {
	case here.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT:
		return false, nil
	case isSymlink(e):
		target, err := readLinkAt(f.fd, e.Name, make([]byte, maxPath+1))
		if err != nil {
			return false, fmt.Errorf("read the link %s of the destination: %w", Printable(joinPath(f.path, e.Name)), err)
		}
		return target == e.Target, nil
	case isDevice(e.Mode):
		return e.Rdev == here.Rdev, nil
	}
	return true, nil
}

// adjust brings the attributes of a name up to date whose content already is.
func (s *stager) adjust(path string, e *Entry, here *info) error {
	here = s.adjusted.of(here)
	set := s.attrs(e, here)
	ch := s.cmp.attrs(e, set, here, '.')
	only := s.cmp.overMode(set.only(ch))
	if s.cmp.exactly(e, here) {
		only.set |= set.set & setTime
	}
	if ch.any() {
		s.changed(path, e, ch, "")
	} else if s.upToDate(path, e); only.set&setTime == 0 {
		return nil
	}
	if !s.o.DryRun { // which leaves them, for rsync's eyes too
		s.adjusted.add(here, only)
	}
	return s.op(partLinks, op{kind: opAttr, path: path, kindOf: here.Mode & unix.S_IFMT, dev: here.Dev, ino: here.Ino, attr: only})
}

// holds reports a file that Publish could not put in place, so that it is not fetched. As
// in rsync it is itemized all the same.
func (s *stager) holds(w *wish) {
	s.itemized(w, &w.entry)
	s.stats.Left++
	s.notes.add(noteLeft)
	s.warn(w.path, "left as it was: "+unix.EPERM.Error())
}

// blocked reports a name whose place cannot be cleared.
func (s *stager) blocked(path string, e *Entry) {
	s.stats.Skipped++
	s.notes.add("an entry was left out: what stands in its place cannot be removed")
	s.warn(path, "could not make way for new "+typeName(e.Mode))
}

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device file"
	case unix.S_IFIFO, unix.S_IFSOCK:
		return "special file"
	}
	return "regular file"
}
