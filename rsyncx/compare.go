package rsyncx

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// comparer decides, from what two sides say of a name, what differs and what
// to set. It looks at nothing else.
type comparer struct {
	o           Options
	nanoseconds bool // both sides know them
	root        bool
	groups      []int // that we may give files to when not root
	umask       uint32
	xattrs      bool // they are asked for, and the source tells them
	acls        bool
	rules       xattrRules
	ruled       bool // rules are filter rules
}

func newComparer(o Options, can Abilities) comparer {
	c := comparer{o: o, nanoseconds: can.Nanoseconds, root: os.Geteuid() == 0, umask: currentUmask(),
		xattrs: o.Xattrs && can.Xattrs, acls: o.ACLs && can.Xattrs}
	c.rules = xattrRules{o.Filter.Root().For(filter.Receiver), filter.Receiver}
	c.ruled = c.xattrs && c.rules.given()
	if !c.root {
		c.groups, _ = os.Getgroups() // without them only our own group is left
		c.groups = append(c.groups, os.Getegid())
	}
	return c
}

// currentUmask reads the mask without changing it, as umask(2) would for all threads.
func currentUmask() uint32 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			if mask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32); err == nil {
				return uint32(mask) & 0o777
			}
		}
	}
	return 0o077
}

func (c *comparer) sameTime(a, b Time) bool {
	switch {
	case c.o.ModifyWindow > 0:
		return a.Sec-b.Sec <= c.o.ModifyWindow && b.Sec-a.Sec <= c.o.ModifyWindow
	case c.o.WholeSeconds:
		return a.Sec == b.Sec
	}
	return a.Sec == b.Sec && (!c.nanoseconds || a.Nsec == b.Nsec)
}

// exactly reports whether a file that was found the same by its content has
// another time all the same, which Checksum brings up to date without a word.
func (c *comparer) exactly(e *Entry, d *info) bool {
	a, b := e.Mtime, d.Mtime
	if !c.nanoseconds {
		a.Nsec, b.Nsec = 0, 0
	}
	return c.o.Checksum && isRegular(e) && a != b
}

// newer reports whether the destination's file d is newer than e, for Update.
// In whole seconds that is rsync's comparison, which takes a file that is less
// than ModifyWindow older for a newer one.
func (c *comparer) newer(d, e Time) bool {
	if c.o.WholeSeconds {
		return e.Sec-d.Sec < c.o.ModifyWindow
	}
	return d.Sec > e.Sec || d.Sec == e.Sec && c.nanoseconds && d.Nsec > e.Nsec
}

// keepsTime reports whether names of this type get the source's modification time.
func (c *comparer) keepsTime(mode uint32) bool {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.o.Times && !c.o.OmitDirTimes
	case unix.S_IFLNK:
		return c.o.Times && !c.o.OmitLinkTimes
	}
	return c.o.Times
}

// keptMode is the mode of what exists at the destination without Perms.
func (c *comparer) keptMode(e *Entry, now, asked uint32) uint32 {
	now &= 0o7777
	switch {
	case !c.o.Executability || !isRegular(e):
	case asked&0o111 == 0:
		now &^= 0o111
	case now&0o111 == 0:
		now |= now & 0o444 >> 2
	}
	return now
}

func (c *comparer) mayGroup(gid uint32) bool { return c.root || slices.Contains(c.groups, int(gid)) }

// verdict is what the quick check says of two regular files.
type verdict uint8

const (
	same verdict = iota
	differs
	unsure // the content has to be compared
)

func (c *comparer) quick(e *Entry, d *info) verdict {
	switch {
	case e.Size != d.Size:
		return differs
	case c.o.Checksum:
		return unsure
	case c.o.SizeOnly:
		return same
	case c.o.IgnoreTimes, !c.sameTime(e.Mtime, d.Mtime):
		return differs
	}
	return same
}

// target returns the attributes that e asks for, over d, or over nothing when d
// is nil. uid and gid are those of this host.
func (c *comparer) target(e *Entry, uid, gid uint32, d *info) attr {
	a := attr{}
	if !isSymlink(e) {
		asked := changeMode(c.o.Chmod, e.Mode)
		a.set = setMode
		switch {
		case c.o.Perms:
			a.mode = asked & 0o7777
		case d != nil:
			a.mode = c.keptMode(e, d.Mode, asked)
		default:
			a.mode = asked & 0o777 &^ c.umask
		}
	}
	if c.o.Owner && c.root {
		a.set, a.uid = a.set|setUID, uid
	}
	if c.o.Group && c.mayGroup(gid) {
		a.set, a.gid = a.set|setGID, gid
	}
	if c.keepsTime(e.Mode) {
		a.set, a.mtime = a.set|setTime, e.Mtime
	}
	if c.xattrs {
		a.set, a.xattrs = a.set|setPlain, e.Xattrs
	}
	if c.ruled {
		a.set |= setRuled
		if d != nil {
			a.gone = goneXattrs(d.Xattrs, e.Xattrs)
		}
	}
	if c.acls && !isSymlink(e) {
		a.set, a.xattrs = a.set|setACLs, e.Xattrs
	}
	return a
}

// copied is what goes along with the copy for a backup, beside what always does,
// and what the directories for it get of those that it comes from.
func (c *comparer) copied() (set attrSet) {
	for _, kept := range []struct {
		on  bool
		set attrSet
	}{{c.o.Perms, setMode}, {c.o.Owner, setUID}, {c.o.Group, setGID}} {
		if kept.on {
			set |= kept.set
		}
	}
	if c.xattrs {
		set |= setPlain
	}
	if c.ruled {
		set |= setRuled
	}
	if c.acls {
		set |= setACLs
	}
	return set
}

// attrs compares the attributes wanted with those of d, which is of the same type.
func (c *comparer) attrs(e *Entry, a attr, d *info, update byte) change {
	ch := change{
		update: update,
		size:   isRegular(e) && e.Size != d.Size,
		perms:  a.set&setMode != 0 && c.permsDiffer(a.mode, d.Mode&0o7777),
		owner:  a.set&setUID != 0 && a.uid != d.UID,
		group:  a.set&setGID != 0 && a.gid != d.GID,
	}
	if c.keepsTime(e.Mode) {
		ch.time = !c.sameTime(e.Mtime, d.Mtime)
	} else {
		ch.time, ch.timeUnset = update == '>' || update == 'c', !c.o.Times
	}
	if c.xattrs || c.acls {
		ch.xattrs, ch.acls = xattrsDiffer(e.Xattrs, d.Xattrs)
		ch.xattrs, ch.acls = ch.xattrs && c.xattrs, ch.acls && c.acls && !isSymlink(e)
	}
	return ch
}

// handedDown is the default access control list of a new directory, which inherits
// one and is given these attributes.
func (c *comparer) handedDown(inherited, xattrs string) string {
	if !c.ruled || c.acls {
		return inherited
	}
	for name, value := range Xattrs(xattrs) {
		if realXattr(name) == aclDefault {
			return value
		}
	}
	return ""
}

// overMode takes the mode out of a for something that is there: without Perms an
// access control list that comes as an attribute brings its own.
func (c *comparer) overMode(a attr) attr {
	if !c.ruled || c.o.Perms || a.set&setPlain == 0 {
		return a
	}
	for name := range Xattrs(a.xattrs) {
		if name != aclAccess && realXattr(name) == aclAccess {
			a.set &^= setMode
		}
	}
	return a
}

func (c *comparer) permsDiffer(want, now uint32) bool {
	if c.o.Perms {
		return want != now
	}
	return c.o.Executability && (want&0o111 != 0) != (now&0o111 != 0)
}

func (a attr) only(ch change) attr {
	keep := a.set & setMode // cheap, and chown clears setuid
	if ch.owner {
		keep |= a.set & setUID
	}
	if ch.group {
		keep |= a.set & setGID
	}
	if ch.time || ch.xattrs { // as rsync does, to the nanosecond
		keep |= a.set & setTime
	}
	if ch.xattrs {
		keep |= a.set & (setPlain | setRuled)
	}
	if ch.acls {
		keep |= a.set & setACLs
	}
	if a.set = keep; a.set&(setPlain|setACLs) == 0 {
		a.xattrs = ""
	}
	if a.set&setRuled == 0 {
		a.gone = ""
	}
	return a
}

func isNode(mode uint32) bool {
	switch mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK:
		return true
	}
	return false
}

func isDevice(mode uint32) bool {
	t := mode & unix.S_IFMT
	return t == unix.S_IFCHR || t == unix.S_IFBLK
}
