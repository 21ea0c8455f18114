package rsyncx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// lister lists one directory after the other. What it holds is scratch.
type lister struct {
	reader dirReader
	link   []byte
	stat   unix.Statx_t
	owners ownerMemo
	xattrs xattrReader
}

// ownerMemo spares asking for the owner of the entry before again.
type ownerMemo struct {
	known       bool
	uid, gid    uint32
	user, group string
}

func (m *ownerMemo) fill(e *Entry, names *ownerNames) {
	if !m.known || m.uid != e.UID || m.gid != e.GID {
		m.known, m.uid, m.gid = true, e.UID, e.GID
		m.user, m.group = names.of(e.UID, e.GID)
	}
	e.User, e.Group = m.user, m.group
}

// list opens d and finds out what is in it: of a long one only the names, since its
// pieces are listed one by one.
func (l *lister) list(w *localWalk, d *walkDir) {
	if l.link == nil {
		l.link = make([]byte, maxPath+1)
	}
	if d.of != nil {
		d.err = l.piece(w, d)
		return
	}
	fd, err := l.open(w, d)
	if err != nil || fd < 0 {
		d.err = err
		return
	}
	if err = l.enter(w, d, fd); err == nil {
		err = l.entries(w, d, fd)
	}
	d.err = err
	if d.unopened = len(d.kids) + d.pieces; d.unopened > 0 && err == nil {
		d.fd = fd
		return
	}
	unix.Close(fd)
}

// open opens d and fills its own entry. One that cannot be listed, or is not
// any more what it was, has no descriptor; then d says what there is to be said.
func (l *lister) open(w *localWalk, d *walkDir) (int, error) {
	if d.parent == nil {
		return l.openRoot(w, d)
	}
	fd, err := l.openKid(w, d)
	w.opened(d.parent)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		for _, path := range d.only.only {
			d.unreadable(path, fs.ErrNotExist)
		}
		d.unreadable(d.path, fs.ErrNotExist) // removed or replaced since it was listed
		return -1, nil
	case err != nil:
		d.unreadable(d.path, err)
		return -1, nil
	}
	self, err := statFd(fd)
	if err != nil {
		d.unreadable(d.path, err)
	}
	d.device = self.Dev // that of each name of the line is its own
	if d.parent.only.All() {
		d.device = d.parent.device
	}
	if err != nil || w.o.OneFileSystem && self.Dev != d.device {
		unix.Close(fd)
		return -1, nil
	}
	d.dev, d.ino = self.Dev, self.Ino
	d.dir.Self = self.Entry
	d.dir.Self.Name = d.kid.name
	l.owners.fill(&d.dir.Self, &w.owners)
	return l.selfXattrs(w, d, fd), nil
}

// selfXattrs fills those of the directory itself, and returns its descriptor, or
// -1 when they cannot be read.
func (l *lister) selfXattrs(w *localWalk, d *walkDir, fd int) int {
	if !w.o.Xattrs && !w.o.ACLs {
		return fd
	}
	var err error
	l.xattrs.owners, l.xattrs.rules = &w.owners, xattrRules{d.scope, filter.Sender}
	if d.dir.Self.Xattrs, err = l.xattrs.held(fd, w.o.Xattrs, w.o.ACLs); err != nil {
		d.unreadable(d.path, err)
		unix.Close(fd)
		return -1
	}
	return fd
}

func (l *lister) openKid(w *localWalk, d *walkDir) (int, error) {
	if !d.kid.linked {
		return openDir(d.parent.fd, d.kid.name)
	}
	held, _, err := w.local.step(d.parent.fd, d.kid.name, d.path)
	if err != nil {
		return -1, err
	}
	defer unix.Close(held)
	return openDir(held, ".")
}

func (l *lister) openRoot(w *localWalk, d *walkDir) (int, error) {
	self, err := w.lstat("")
	if err != nil {
		return -1, fmt.Errorf("stat %s: %w", w.path, err)
	}
	d.device, d.dev, d.ino = self.Dev, self.Dev, self.Ino
	d.dir.Self = self
	fd, err := openDir(w.root, ".")
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", w.path, err)
	}
	return l.selfXattrs(w, d, fd), nil
}

func (l *lister) enter(w *localWalk, d *walkDir, fd int) (err error) {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if !d.only.Rules() {
		return nil
	}
	d.scope, err = d.scope.Enter(d.path, func(name string) ([]byte, error) { return readRulesAt(w.root, fd, d.path, name) })
	return err
}

// entries describes what is in d, or finds out its pieces. A directory that cannot
// be read is reported and not yielded.
func (l *lister) entries(w *localWalk, d *walkDir, fd int) error {
	l.reader.most = w.long
	names, long, err := l.names(d, fd)
	if err != nil {
		d.unreadable(d.path, err)
		return nil
	}
	if d.only.All() {
		l.absent(d, fd, names, long)
	}
	d.dir.Path, d.dir.Partial = d.path, !d.only.All()
	if long == nil {
		d.names = int64(len(names))
		return l.describeAll(w, d, fd, names)
	}
	if d.names = int64(long.len()); d.names <= w.o.MaxEntries {
		d.long, d.pieces = long, (long.len()-1)/l.reader.piece()+1
		d.bytes += long.size()
	}
	return nil
}

// piece describes a piece of a long directory.
func (l *lister) piece(w *localWalk, d *walkDir) error {
	long, size := d.of.long, cmp.Or(w.long, longDir)
	from, to := d.number*size, min((d.number+1)*size, long.len())
	d.dir = Dir{Path: d.path, Self: d.of.dir.Self, Partial: d.of.dir.Partial}
	if from > 0 {
		d.dir.After = string(long.name(from - 1))
	}
	if to < long.len() {
		d.dir.Upto = string(long.name(to - 1))
	}
	return l.describeAll(w, d, d.of.fd, long.span(from, to))
}

// describeAll fills the entries of d, which has these names.
func (l *lister) describeAll(w *localWalk, d *walkDir, fd int, names []dirent) error {
	if d.names > w.o.MaxEntries {
		return nil // the consumer counts
	}
	all := make([]Entry, 0, len(names))
	size := 0
	for i := range names {
		if i%1024 == 1023 && w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		n := &names[i]
		if d.path == "" && n.name == stateDir {
			continue
		}
		if w.view != (View{}) && n.kind == unix.DT_LNK {
			n.kind = unix.DT_UNKNOWN // as what it leads to
		}
		if !w.o.Hidden && n.kind != unix.DT_UNKNOWN && l.hidden(d, n.name, n.kind == unix.DT_DIR) {
			continue
		}
		all = append(all, Entry{})
		e := &all[len(all)-1]
		linked, ok := l.entry(w, d, fd, n, e)
		if !ok {
			all = all[:len(all)-1]
			continue
		}
		if size += len(e.Name) + len(e.Target) + len(e.User) + len(e.Group) + len(e.Xattrs); size > MaxDirBytes {
			d.kids = nil
			d.unreadable(d.path, fmt.Errorf("more than %d bytes of names in one directory", MaxDirBytes))
			// The pieces of a long directory follow one another without a gap.
			d.dir.Partial, d.whole = true, d.of != nil
			return nil
		}
		if w.o.Hidden && l.hidden(d, n.name, isDir(e)) {
			continue
		}
		if isDir(e) && !w.beyond(d, e) {
			if _, into := d.only.Enter(e.Name); into {
				d.kids = append(d.kids, kid{name: e.Name, linked: linked})
			}
		}
	}
	d.dir.Entries, d.whole = all, true
	d.bytes += entryBytes*len(all) + size
	return nil
}

// names returns what to look at in d.
func (l *lister) names(d *walkDir, fd int) ([]dirent, *longNames, error) {
	if d.only.All() {
		return l.reader.read(fd)
	}
	names, long := l.reader.of(d.only.Names())
	return names, long, nil
}

// absent tells of what was asked for in a directory of which all is looked at, and is
// not among its names.
func (l *lister) absent(d *walkDir, fd int, names []dirent, long *longNames) {
	for _, name := range d.only.Expected() {
		there := false
		if long == nil {
			_, there = slices.BinarySearchFunc(names, name, func(n dirent, name string) int { return strings.Compare(n.name, name) })
		} else {
			_, err := statAt(fd, name)
			there = !errors.Is(err, fs.ErrNotExist)
		}
		if !there {
			for _, path := range d.only.Missing(name, false) {
				d.unreadable(path, fs.ErrNotExist)
			}
		}
	}
}

// entry describes one name, and reports whether it was seen through a link and
// whether it is one of the listing.
func (l *lister) entry(w *localWalk, d *walkDir, fd int, n *dirent, e *Entry) (linked, ok bool) {
	err := error(unix.ENAMETOOLONG)
	if len(d.path)+1+len(n.name) <= maxPath {
		if err = l.describe(fd, n, e); err == nil && isSymlink(e) && w.view != (View{}) {
			linked, err = l.through(w, d, fd, e)
		}
	}
	if err != nil || !isDir(e) {
		for _, path := range d.only.Missing(n.name, !errors.Is(err, fs.ErrNotExist)) {
			d.unreadable(path, fs.ErrNotExist)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if d.only.All() && !d.only.names(n.name) && !l.hidden(d, n.name, false) && !l.hidden(d, n.name, true) {
			d.unreadable(joinPath(d.path, n.name), fs.ErrNotExist) // gone since the names were read
		}
		return false, false
	case err != nil:
		if !l.hidden(d, n.name, false) && !l.hidden(d, n.name, true) {
			d.unreadable(joinPath(d.path, n.name), err)
		}
		return false, false
	case !d.only.All() && !isDir(e) && !d.only.Asked(n.name):
		return false, false
	case w.o.Hidden && l.hidden(d, n.name, isDir(e)):
		return false, true // nobody needs more of it
	case (n.kind == unix.DT_UNKNOWN || isDir(e) != (n.kind == unix.DT_DIR)) && l.hidden(d, n.name, isDir(e)):
		return false, false // its type was not known, or changed
	case w.o.OmitMounts && w.beyond(d, e):
		return false, false
	}
	l.owners.fill(e, &w.owners)
	if w.o.Xattrs || w.o.ACLs {
		return linked, l.xattrsOf(w, d, fd, e, linked)
	}
	return linked, true
}

// beyond reports whether e of d is a directory of another file system that is not
// looked into. What was named itself, or leads there, is.
func (w *localWalk) beyond(d *walkDir, e *Entry) bool {
	return w.o.OneFileSystem && isDir(e) && d.only.All() && e.Dev != d.device
}

// xattrsOf fills the extended attributes of e. An entry without them would look
// as if it had none, and is left out.
func (l *lister) xattrsOf(w *localWalk, d *walkDir, fd int, e *Entry, linked bool) bool {
	path := joinPath(d.path, e.Name)
	var held int
	var err error
	if linked {
		held, _, err = w.step(fd, e.Name, path)
	} else {
		held, err = openat(fd, e.Name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	}
	if err == nil {
		l.xattrs.owners, l.xattrs.rules = &w.owners, xattrRules{d.scope, filter.Sender}
		e.Xattrs, err = l.xattrs.held(held, w.o.Xattrs, w.o.ACLs && !isSymlink(e))
		unix.Close(held)
	}
	if err != nil {
		d.unreadable(path, err)
	}
	return err == nil
}

// describe fills e, again if the name becomes something else in between.
func (l *lister) describe(fd int, n *dirent, e *Entry) error {
	for try := 0; ; try++ {
		if err := n.entryAt(fd, &l.stat, e); err != nil || !isSymlink(e) {
			return err
		}
		target, err := readLinkAt(fd, n.name, l.link)
		if errors.Is(err, unix.EINVAL) && try < 3 {
			continue
		}
		e.Target = target
		return err
	}
}

// through puts what a link leads to in place of the link, where the view says so.
func (l *lister) through(w *localWalk, d *walkDir, fd int, e *Entry) (linked bool, err error) {
	held, st, err := w.follow(fd, e.Name, joinPath(d.path, e.Name), e.Target)
	if err != nil || held < 0 {
		return false, err
	}
	unix.Close(held)
	for up := d; up != nil && st.isDir(); up = up.parent {
		if up.dev == st.Dev && up.ino == st.Ino {
			return false, errLoop
		}
	}
	*e = st.Entry
	return true, nil
}

// hidden asks the filter, which has no say about directories that lead to
// something that was asked for.
func (l *lister) hidden(d *walkDir, name string, dir bool) bool {
	if d.scope == nil || dir && d.only.Leads(name) {
		return false
	}
	hidden, _ := d.scope.Excluded(joinPath(d.path, name), dir, filter.Sender)
	return hidden
}

func (d *walkDir) unreadable(path string, err error) {
	d.errs = append(d.errs, &PathError{Path: path, Err: err})
}
