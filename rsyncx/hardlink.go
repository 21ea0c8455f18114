package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/drsync/drsync/internal/event"
	"golang.org/x/sys/unix"
)

// maxLinkGroups bounds the memory that a source's hard links take.
const maxLinkGroups = 4 << 20

// linkKey tells the names of one inode of the source.
type linkKey struct {
	dev, ino uint64
	kind     uint32
}

// linkGroup is one name of an inode that has several. The others become links to
// it, when it is known what became of it. As in rsync it is, of regular files, the
// first whose name the destination has, or that an alternate directory helps to
// make, or else the last.
type linkGroup struct {
	path     string
	found    bool // the destination has a file of that name, or will without it being fetched
	again    bool // this is the second name that the others wait for
	state    groupState
	dev, ino uint64 // of the destination's file, when kept
	at       place  // of the staged one, when replaced
	// altDev and altIno tell the file of an alternate directory that it is another name of.
	altDev, altIno uint64
}

type groupState uint8

const (
	groupFailed   groupState = iota // not there, or not yet
	groupKept                       // the destination's own file
	groupReplaced                   // a new file
	groupAlt                        // left out: an alternate directory has it; another name may be made
)

// group returns the group that e belongs to, or -1, and whether another name
// of it came before.
func (s *stager) group(path string, e *Entry) (id int, follower bool, err error) {
	if !s.o.HardLinks || !s.can.HardLinks || e.Nlink < 2 || e.Ino == 0 {
		return -1, false, nil
	}
	key := linkKey{dev: e.Dev, ino: e.Ino, kind: e.Mode & unix.S_IFMT}
	if id, ok := s.groupOf[key]; ok {
		s.several = true
		return id, true, nil
	}
	if len(s.groups) >= maxLinkGroups {
		return -1, false, fmt.Errorf("list the source: %w: more than %d files with several names", ErrTooMany, maxLinkGroups)
	}
	if s.groupOf == nil {
		s.groupOf = make(map[linkKey]int)
	}
	id = len(s.groups)
	s.groups = append(s.groups, linkGroup{path: path})
	s.groupOf[key] = id
	return id, false, nil
}

// follows reports whether another name of e's inode came before.
func (s *stager) follows(e *Entry) bool {
	if !s.o.HardLinks || !s.can.HardLinks || e.Nlink < 2 {
		return false
	}
	_, ok := s.groupOf[linkKey{dev: e.Dev, ino: e.Ino, kind: e.Mode & unix.S_IFMT}]
	return ok
}

func (s *stager) groupKept(id int, here *info) {
	if id >= 0 {
		g := &s.groups[id]
		g.state, g.dev, g.ino = groupKept, here.Dev, here.Ino
	}
}

// led reports whether the group has the name that others are linked to.
func (s *stager) led(id int) bool { return id >= 0 && s.groups[id].found }

// isKept reports whether here is another name of the destination's own file that the
// group is linked to.
func (s *stager) isKept(id int, here *info) bool {
	if id < 0 || here == nil {
		return false
	}
	g := &s.groups[id]
	return g.state == groupKept && here.Dev == g.dev && here.Ino == g.ino
}

// keeps makes the destination's own file path the one that others are linked to.
func (s *stager) keeps(id int, path string, here *info) {
	if id >= 0 {
		s.groups[id].path, s.groups[id].found = path, true
		s.groupKept(id, here)
	}
}

// mayLead makes w the name of its group that is fetched, until there is a better one.
func (s *stager) mayLead(w *wish) {
	if w.group >= 0 && !s.led(w.group) {
		g := &s.groups[w.group]
		g.path, g.found = w.path, w.hasOld || w.alt > 0
	}
}

// leaders leaves among what is wanted one name of each group at most, and puts the
// others aside to become links.
func (s *stager) leaders() error {
	if !s.several {
		return nil
	}
	if err := s.wanted.flush(); err != nil {
		return err
	}
	all := s.wanted
	defer all.close()
	var err error
	if s.wanted, err = s.newSpool("leaders"); err != nil {
		s.wanted = all
		return err
	}
	for r := all.records(); ; {
		record, err := r.next()
		if err != nil {
			return endOf(err)
		}
		w, err := parseWish(record)
		if err != nil {
			return err
		}
		to := s.wanted
		if w.group >= 0 && (s.groups[w.group].state == groupKept || s.groups[w.group].path != w.path) {
			to = s.linked
			if !w.compare {
				s.wantedBytes -= w.listed
			}
		}
		if err := to.add(w.append); err != nil {
			return err
		}
	}
}

func (s *stager) groupElsewhere(id int) {
	if id >= 0 && s.groups[id].state == groupFailed {
		s.groups[id].state = groupAlt
	}
}

// groupReplaced makes the staged file path the one that others are linked to.
func (s *stager) groupReplaced(id int, path string, at place) {
	if id >= 0 {
		g := &s.groups[id]
		g.path, g.found, g.state, g.at = path, true, groupReplaced, at
	}
}

// there reports whether the others can be linked to the group's name.
func (g *linkGroup) there() bool { return g.state == groupKept || g.state == groupReplaced }

// leaveOut leaves out a file that an alternate directory has. One of several names is put
// aside: as in rsync it becomes a link if another of them has to be made after all.
func (s *stager) leaveOut(w *wish) error {
	if w.group < 0 {
		return s.altClear(w)
	}
	s.groupElsewhere(w.group)
	w.elsewhere = true
	return s.linked.add(w.append)
}

// follow puts a later name of a group aside that is no regular file.
func (s *stager) follow(f *frame, path string, e *Entry, here *info, group int) error {
	w := wish{path: path, group: group, listed: e.Size, entry: *e, mount: f.mount, gid: f.gid, acl: s.inherits(f), tree: f.tree}
	if here != nil { // of another type, too: rsync compares the link with what it replaces
		w.old, w.hasOld = *here, true
	}
	if here != nil && here.mount {
		s.blocked(path, e)
		return nil
	}
	f.dirty = f.dirty || !s.isKept(group, here)
	return s.linked.add(w.append)
}

// links decides about the names put aside. Where the first name could not be had, or was
// left out, one of the others is fetched in its stead. Without that either, each is
// fetched by itself.
func (s *stager) links(ctx context.Context) error {
	alone, err := s.newSpool("alone")
	if err != nil {
		return err
	}
	defer alone.close()
	lead, err := s.newSpool("lead")
	if err != nil {
		return err
	}
	defer lead.close()
	aside := s.linked
	defer aside.close()
	if s.linked, err = s.newSpool("later"); err != nil {
		s.linked = nil
		return err
	}
	if err := eachAside(aside, func(w *wish) error { return s.link(w, lead, alone) }); err != nil {
		return err
	}
	if err := s.fetchAll(ctx, lead); err != nil {
		return err
	}
	if err := eachAside(s.linked, func(w *wish) error { return s.link(w, nil, alone) }); err != nil {
		return err
	}
	return s.fetchAll(ctx, alone)
}

func eachAside(list *spool, do func(*wish) error) error {
	if err := list.flush(); err != nil {
		return err
	}
	for r := list.records(); ; {
		record, err := r.next()
		if err != nil {
			return endOf(err)
		}
		w, err := parseWish(record)
		if err != nil {
			return err
		}
		if err := do(&w); err != nil {
			return err
		}
	}
}

// linkedAlready is upToDate for a name of a group that is one at the destination.
func (s *stager) linkedAlready(w *wish) {
	if s.o.Explain {
		s.o.Event.Emit(event.Event{Kind: event.Skip, Text: SkipUpToDate, Name: w.path, Target: w.entry.Target, Itemize: change{update: 'h'}.letters(w.entry.Mode), Entry: s.eventEntry(&w.entry)})
	}
}

// link decides about one of several names. lead takes the one that the others of its group
// wait for in the second place; it is nil when none comes any more.
func (s *stager) link(w *wish, lead, alone *spool) error {
	g := &s.groups[w.group]
	switch {
	case w.elsewhere && (w.mount || !g.there() && lead == nil):
		return s.altClear(w)
	case !g.there() && isRegular(&w.entry):
		return s.unled(w, lead, alone)
	case !g.there():
		s.blocked(w.path, &w.entry)
		return nil
	case g.state == groupKept && w.hasOld && w.old.Dev == g.dev && w.old.Ino == g.ino:
		s.linkedAlready(w)
		return nil
	case w.mount:
		return crossesMount(w.path)
	}
	if !w.tree.none() && !s.o.DryRun {
		if done, err := s.linkNow(w, g, alone); err != nil || !done {
			return err
		}
	}
	ch := change{update: 'h', isNew: !w.hasOld}
	if w.hasOld {
		ch = s.cmp.attrs(&w.entry, s.attrs(&w.entry, &w.old), &w.old, 'c')
		ch.update = 'h'
		if isSymlink(&w.entry) && s.o.Perms { // which matter where it replaces something else
			ch.perms = w.old.Mode&0o7777 != w.entry.Mode&0o7777
		}
	} else if m, had := s.altLinked(w, g); had {
		ch = s.cmp.attrs(&w.entry, m.set, &m.info, 'h')
	} else {
		s.created(&w.entry)
	}
	if w.hasOld {
		if err := s.keepOld(w.path, &w.old); err != nil {
			return err
		}
	}
	s.stats.Linked++
	s.replaced(w)
	s.linkSaid(w, ch, g)
	if !w.tree.none() {
		return nil
	}
	return s.op(partLinks, op{kind: opLink, path: w.path, target: g.path})
}

// unled is link for a regular file of a group whose name is not there.
func (s *stager) unled(w *wish, lead, alone *spool) error {
	g := &s.groups[w.group]
	if lead == nil {
		w.group = -1
		if done, err := s.altFile(nil, w, &w.entry, nil); done || err != nil {
			return err
		}
		if !w.compare { // which may leave it out
			s.separate()
		}
		return alone.add(w.append)
	}
	// What was left out says that the content is elsewhere, so that one must lead which
	// surely is not.
	if w.elsewhere || g.again || g.state == groupAlt && s.alternate(w.path, &w.entry, w.own()).rank != altNone {
		return s.linked.add(w.append)
	}
	g.again, g.path = true, w.path
	return lead.add(w.append)
}

func (s *stager) separate() {
	s.notes.add("a hard link became a separate file: its other name could not be read")
}

// altLinked looks for a new name of a group in the alternate directories: with
// LinkDest for one of the file that the group is, else for its like.
func (s *stager) altLinked(w *wish, g *linkGroup) (m altMatch, had bool) {
	if len(s.alts) == 0 || w.elsewhere || s.o.AltDest != LinkDest && !isRegular(&w.entry) {
		return m, false
	}
	m = s.alternate(w.path, &w.entry, nil)
	if s.o.AltDest == LinkDest {
		return m, g.altIno != 0 && m.info.Dev == g.altDev && m.info.Ino == g.altIno
	}
	return m, m.rank >= altValue
}

// linkSaid reports a name that becomes a link to the first of its group: not as a
// change where an alternate directory has the same link.
func (s *stager) linkSaid(w *wish, ch change, g *linkGroup) {
	quiet := ch
	if quiet.update = '.'; quiet.any() || w.hasOld || s.o.AltDest != LinkDest {
		s.changed(w.path, &w.entry, ch, g.path)
		return
	}
	if s.o.Explain {
		s.o.Event.Emit(event.Event{Kind: event.Skip, Text: SkipUpToDate, Itemize: ch.letters(w.entry.Mode), Name: w.path, Target: g.path, Entry: s.eventEntry(&w.entry)})
	}
}

// linkNow makes a name in a new directory a link to the first of its group,
// wherever that lies until Publish. When it cannot be, the name is left to alone.
func (s *stager) linkNow(w *wish, g *linkGroup, alone *spool) (bool, error) {
	var err error
	if g.state == groupKept {
		err = s.content.linkKept(w.tree, w.path, g)
	} else {
		err = s.content.linkStaged(w.tree, w.path, g)
	}
	if err == nil {
		return true, nil
	}
	if !slices.ContainsFunc(placeErrors, func(e error) bool { return errors.Is(err, e) }) && !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.EXDEV) {
		return false, err
	}
	if !isRegular(&w.entry) {
		s.blocked(w.path, &w.entry)
		return false, nil
	}
	w.group = -1
	s.separate()
	return false, alone.add(w.append)
}
