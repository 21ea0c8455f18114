package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// frame is one directory on the way from the root to the one looked at.
type frame struct {
	path   string
	fd     int    // of the destination's directory; -1 when it has none yet
	lock   func() // closes fd, and the directory to its owner as it was; may be nil
	mount  bool   // it, or one above it, is a mount point below the root
	owned  bool   // by us, so that Publish can make it writable
	dev    uint64
	dst    []info        // the destination's entries that were not passed, ascending; of a long directory some of them
	long   *longNames    // of the destination, while the entries of a long directory are looked at
	at     int           // first of long that is not among dst and was not
	around []info        // the destination's entries, for as long as they are looked at, with Fuzzy
	extra  []info        // those that the source has not
	gone   []uint32      // the same of long
	early  bool          // they were decided about before everything else
	srcDev uint64        // the source's number for the file system of its directory, or 0
	rules  *filter.Scope // for what the source sends
	guard  *filter.Scope // for what the destination would lose
	only   Selection     // of what is looked at

	subs  []sub // directories among the source's entries, ascending
	next  int   // first of subs that was not passed yet
	gid   int64 // that new names inherit, or -1
	acl   inheritedACL
	set   attr // attributes for the directory itself
	quiet attr // those of set that differ: all there is to do when nothing changes inside
	needs bool // set must be applied whatever happens inside
	tree  tree // that it belongs to when the destination has none yet
	dirty bool // something inside will be made, replaced or removed
}

// sub is a directory listed in its parent.
type sub struct {
	name  string
	dst   *info // nil when Publish makes it
	set   attr
	quiet attr
	needs bool
	mount bool
	gid   int64 // of the directory
	tree  tree  // when dst is nil
	acl   inheritedACL
	// ignored says that it stays out: its filter or what stands in its place says so.
	ignored bool
	owed    bool // the source has to list it too, or say why not
}

func (f *frame) close() {
	if f.lock != nil {
		f.lock()
		f.fd, f.lock = -1, nil
	}
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// walk compares the whole source with the destination, directory by directory.
func (s *stager) walk(ctx context.Context) (err error) {
	options := s.walkOptions()
	if s.only, err = options.Select(); err != nil {
		return err
	}
	options.Hidden = s.o.Explain && s.o.Filter.Len() > 0 && !s.o.deleteOnly
	s.gathers = s.needsWhole()
	if s.same = s.sameDirs(); s.same != nil {
		options.Same, options.Digest = s.same.same, s.same.digest
		defer func() {
			s.same.close()
			s.same = nil
		}()
	}
	for d, err := range s.src.Walk(ctx, options) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var unread *PathError
		switch {
		case errors.As(err, &unread):
			if err := s.unreadable(unread); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("list the source: %w", err)
		}
		if err := s.arrive(ctx, &d); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(s.frames) == 0 {
		return fmt.Errorf("list the source: %w: its root was not listed", ErrNoListing)
	}
	if s.piece.Upto != "" {
		return hostile(s.piece.Path, "its last piece was not listed")
	}
	return s.unwind(0)
}

func (s *stager) unreadable(e *PathError) error {
	if err := CheckPath(e.Path); err != nil {
		return err
	}
	if s.stats.Unreadable+s.stats.Vanished >= s.o.MaxEntries {
		return fmt.Errorf("list the source: %w", ErrTooMany)
	}
	if owed := s.excuses(e.Path); errors.Is(e.Err, fs.ErrNotExist) && (owed || s.unnamed(e.Path)) {
		s.vanished(e.Path)
		return nil
	}
	s.stats.Unreadable++
	s.warn(e.Path, "cannot be read on the source: "+Printable(e.Err.Error()))
	return nil
}

// arrive takes the next directory of the walk, or the next piece of one.
func (s *stager) arrive(ctx context.Context, d *Dir) error {
	if d.Same && s.same == nil {
		return hostile(d.Path, "nobody said that it is the same here")
	}
	if err := checkDir(d); err != nil {
		return err
	}
	if err := s.inTurn(d); err != nil {
		return err
	}
	s.ancient(d)
	if d.After == "" {
		s.mounted(d)
	}
	if s.gathers && !d.Piece().whole() {
		var err error
		if d, err = s.gather(d); d == nil {
			return err
		}
	}
	if d.After == "" {
		f, err := s.enter(d)
		if s.at = f; err != nil || f == nil {
			return err
		}
		if !d.Same { // of which Self is not told
			f.srcDev = d.Self.Dev
		}
		s.frames = append(s.frames, f)
	}
	f := s.at
	if f == nil {
		return nil // a piece of what is not wanted
	}
	if err := s.list(f, d); err != nil {
		return err
	}
	if d.After == "" {
		if err := s.scopes(ctx, f, d); err != nil {
			return err
		}
	}
	if d.Same {
		if err := s.sameEntries(f, d); err != nil {
			return err
		}
	}
	return s.entries(f, d)
}

// sameEntries fills in what the source did not send of a directory, since it is
// what the destination has.
func (s *stager) sameEntries(f *frame, d *Dir) (err error) {
	if f.fd < 0 || len(d.Entries) > 0 {
		return hostile(d.Path, "it was not said to be the same here")
	}
	d.Entries = shown(make([]Entry, 0, len(f.dst)), f.dst)
	return s.mayList(len(d.Entries))
}

// enter opens the destination's side of d, which must be the root or follow
// from a directory seen before. It returns nil for one that is not wanted.
func (s *stager) enter(d *Dir) (*frame, error) {
	if len(s.frames) == 0 {
		if d.Path != "" {
			return nil, hostile(d.Path, "it came before the root")
		}
		return s.enterRoot(d)
	}
	if !comesAfter(s.last, d.Path) {
		return nil, hostile(d.Path, "it came after %q", Printable(s.last))
	}
	s.last = d.Path
	if s.ignored != "" && strings.HasPrefix(d.Path, s.ignored+"/") {
		return nil, nil
	}
	dir, name := splitPath(d.Path)
	depth := s.depth(dir)
	if depth < 0 {
		return nil, hostile(d.Path, "its parent was not listed as a directory")
	}
	if err := s.unwind(depth + 1); err != nil {
		return nil, err
	}
	parent := s.frames[depth]
	i, found := slices.BinarySearchFunc(parent.subs, name, func(c sub, name string) int { return strings.Compare(c.name, name) })
	if !found {
		return nil, hostile(d.Path, "its parent does not list it as a directory")
	}
	for ; parent.next < i; parent.next++ {
		if err := s.passed(parent, &parent.subs[parent.next]); err != nil {
			return nil, err
		}
	}
	parent.next = i + 1
	only, into := parent.only.entered(name, d.Path, parent.rules)
	if !into {
		return nil, hostile(d.Path, "the walk was not to go there")
	}
	c := &parent.subs[i]
	if c.ignored {
		s.ignored = d.Path
		return nil, nil
	}
	f := &frame{path: d.Path, fd: -1, only: only, set: c.set, quiet: c.quiet, needs: c.needs, mount: c.mount, tree: c.tree, acl: c.acl, rules: parent.rules, guard: parent.guard}
	if t := d.Self.Mtime; !d.Same && t.Sec == f.set.mtime.Sec {
		f.set.mtime = t // that of an entry that was said to be the same is the destination's
	}
	f.gid = inherited(c.set, c.gid)
	if c.dst == nil {
		return f, nil
	}
	fd, lock, err := s.unlock(parent.fd, c.dst)
	if errors.Is(err, unix.EACCES) {
		s.ignored = d.Path
		return nil, s.shutOut(d.Path, errShut)
	}
	if err != nil {
		return nil, fmt.Errorf("open the directory %s of the destination: %w", Printable(d.Path), err)
	}
	f.fd, f.lock, f.dev = fd, lock, c.dst.Dev
	return f, s.workable(f, c.dst)
}

// inherited is the group that names in a directory get when none is set: with
// setgid that of the directory. Staged files are made elsewhere and must be given it.
func inherited(dir attr, gid int64) int64 {
	if dir.mode&unix.S_ISGID == 0 {
		return -1
	}
	if dir.set&setGID != 0 {
		return int64(dir.gid)
	}
	return gid
}

// depth returns which frame stands for the directory path, or -1.
func (s *stager) depth(path string) int {
	for i := len(s.frames) - 1; i >= 0; i-- {
		if s.frames[i].path == path {
			return i
		}
	}
	return -1
}

func (s *stager) enterRoot(d *Dir) (*frame, error) {
	now, err := statFd(s.dst.fd)
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", s.dst.path, err)
	}
	fd, err := openDir(s.dst.fd, ".")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.dst.path, err)
	}
	f := &frame{fd: fd, dev: now.Dev, only: s.only, rules: s.o.Filter.Root().For(filter.Sender), guard: s.o.Filter.Root().For(filter.Receiver)}
	d.Self.Name = ""
	if err := s.bearings("", &d.Self); err != nil {
		return nil, err
	}
	s.bears(fd, ".", &now)
	set, ch := s.rootAttrs(&d.Self, &now)
	f.set, f.quiet, f.needs = set, set.only(ch), ch.any()
	if err := s.beforeBackups("", f.quiet); err != nil {
		f.close()
		return nil, err
	}
	f.gid = inherited(set, int64(now.GID))
	return f, s.workable(f, &now)
}

// workable lets Publish work in a directory whose mode forbids it. Root needs no leave.
func (s *stager) workable(f *frame, now *info) error {
	f.owned = int(now.UID) == os.Geteuid()
	if s.cmp.root || !f.owned || now.Mode&0o700 == 0o700 {
		return nil
	}
	f.needs = true
	return s.op(partClear, op{kind: opEnter, path: f.path, attr: attr{set: setMode, mode: now.Mode&0o7777 | 0o700}})
}

// entries goes through both sides of a directory, or of a piece of it, name by name.
func (s *stager) entries(f *frame, d *Dir) error {
	if err := s.extrasFirst(f, d); err != nil {
		return err
	}
	if s.o.Fuzzy {
		f.around = f.dst
	}
	extra, all := s.extra, true
	if d.Partial || !f.only.All() { // what was not looked at may well be there
		all = false
		extra = func(*frame, *info) error { return nil }
	}
	for i := range d.Entries {
		e := &d.Entries[i]
		here, err := s.meet(f, d.Upto, e.Name, extra)
		if err != nil {
			return err
		}
		if !d.Same && !s.lets(f, e) {
			s.sayHidden(f, e)
			f.ignore(e)
			if here == nil {
				continue
			}
			if err := extra(f, here); err != nil {
				return err
			}
			continue
		}
		s.stats.Entries++
		if here != nil && all {
			s.sayKept(f, here)
		}
		if err := s.entry(f, e, here); err != nil {
			if err = s.shutOut(joinPath(f.path, e.Name), err); err != nil {
				return err
			}
			f.ignore(e)
		}
	}
	if _, err := s.meet(f, d.Upto, "", extra); err != nil || d.Upto != "" {
		return err
	}
	return s.extras(f)
}

// ignore keeps a directory of the source out with all that comes below it.
func (f *frame) ignore(e *Entry) {
	if last := len(f.subs) - 1; isDir(e) && (last < 0 || f.subs[last].name != e.Name) {
		f.subs = append(f.subs, sub{name: e.Name, ignored: true})
	}
}

// lets applies our own filter to what the source sent.
func (s *stager) lets(f *frame, e *Entry) bool {
	if e.Name == stateDir && (f.path == "" || s.ownState(e)) || s.prunes(f.path, e) {
		return false
	}
	if isDir(e) && f.only.Leads(e.Name) {
		return true // no matter what the rules say
	}
	if !f.only.All() && !f.only.Asked(e.Name) {
		return false
	}
	if f.rules == nil {
		return true
	}
	hidden, _ := f.rules.Excluded(joinPath(f.path, e.Name), isDir(e), filter.Sender)
	return !hidden
}

// ownState reports whether e is our own directory: the destination lies in the source.
func (s *stager) ownState(e *Entry) bool {
	if e.Ino == 0 {
		return false
	}
	st, err := statAt(s.dst.fd, stateDir)
	return err == nil && st.isDir() && st.Dev == e.Dev && st.Ino == e.Ino
}

// sayHidden says that the source's rules leave e out.
func (s *stager) sayHidden(f *frame, e *Entry) {
	if !s.o.Explain || f.rules == nil || f.path == "" && e.Name == stateDir || !f.only.All() && !f.only.Asked(e.Name) {
		return
	}
	path := joinPath(f.path, e.Name)
	hidden, rule := f.rules.Excluded(path, isDir(e), filter.Sender)
	if !hidden {
		return
	}
	if isDir(e) {
		path += "/"
	}
	s.skip(path, SkipHidden+Printable(rule))
}

// unwind leaves every directory deeper than the first keep frames.
func (s *stager) unwind(keep int) error {
	for len(s.frames) > keep {
		f := s.frames[len(s.frames)-1]
		for ; f.next < len(f.subs); f.next++ {
			if err := s.passed(f, &f.subs[f.next]); err != nil {
				return err
			}
		}
		f.dirty = f.dirty || s.getsBackups(f)
		f.close()
		s.frames = s.frames[:len(s.frames)-1]
		if !f.needs && !f.dirty {
			continue
		}
		set, loose := f.set, s.o.WholeSeconds && f.quiet.set&setTime == 0
		if !f.dirty {
			set, loose = f.quiet, false
		}
		if err := s.dirAttrs(f.tree, f.path, set, loose); err != nil {
			return err
		}
	}
	return nil
}

// passed finishes a directory that the source listed and did not look into.
func (s *stager) passed(f *frame, c *sub) error {
	path := joinPath(f.path, c.name)
	if _, excused := s.excused[path]; c.owed && !excused && len(s.excused) < maxExcused {
		s.stats.Unreadable++
		s.warn(path, "cannot be read on the source: it was listed, and what is in it was not")
	}
	if !c.needs {
		return nil
	}
	return s.dirAttrs(c.tree, path, c.quiet, false)
}

// dirAttrs puts the attributes of a directory aside until nothing changes in it any more.
// Its time is loose when it is set only because something may change: then one that
// is as good, since nothing did, is left.
func (s *stager) dirAttrs(t tree, path string, set attr, loose bool) error {
	if !t.none() {
		now, waits := t.later(path, set)
		if err := s.trees.setLater(t, path, now); err != nil || !waits || s.o.deleteOnly {
			return err
		}
	}
	o := op{kind: opDirAttr, path: path, attr: set}
	if loose {
		o.number = 1 + uint64(max(s.o.ModifyWindow, 0))
	}
	return s.op(partAttrs, o)
}

// touch says that the names in f will change. Below a mount point they cannot:
// staged files come from the root's file system, and rename does not cross.
func (s *stager) touch(f *frame, e *Entry) error {
	if f.mount {
		return crossesMount(joinPath(f.path, e.Name))
	}
	return s.write(f)
}

// write says that the names in f will change, and looks whether we may.
func (s *stager) write(f *frame) error {
	if f.dirty {
		return nil
	}
	f.dirty = true
	if s.cmp.root || f.fd < 0 || f.owned {
		return nil
	}
	if err := unix.Faccessat(f.fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		f.dirty = false
		if f.path != "" {
			return errShut
		}
		return hint.With(fmt.Errorf("write in the directory %s of the destination: %w", Printable(joinPath(s.dst.path, f.path)), err),
			"run drsync as its owner or as root")
	}
	return nil
}
