package rsyncx

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// inheritedACL is the default access control list of a directory, which new
// names in it get. Staged ones are made elsewhere and must be given it.
type inheritedACL struct {
	known bool
	list  string // "" is none
}

// inherits returns the list that new names in f get, when the source's lists do not count.
func (s *stager) inherits(f *frame) string {
	if s.cmp.acls {
		return ""
	}
	return s.defaultACL(f)
}

// defaultACL is the default list of f, when nothing else says what new names in it get.
func (s *stager) defaultACL(f *frame) string {
	if f.acl.known || f.fd < 0 || s.pretends() {
		return f.acl.list
	}
	f.acl.known = true
	var buf [4 << 10]byte
	var n int
	err := retry(func() (err error) { n, err = unix.Fgetxattr(f.fd, aclDefault, buf[:]); return err })
	if err == nil && n >= aclHead {
		f.acl.list = string(buf[:n])
	}
	return f.acl.list
}

// bequeath adds what a new name gets from the default list of its directory to
// what it is given: the mode is what it would be had it been made there.
func (s *stager) bequeath(a attr, e *Entry, here *info, list string) attr {
	if list == "" || isSymlink(e) {
		return a
	}
	if !s.o.Perms && here == nil {
		a.mode = a.mode&^0o777 | changeMode(s.o.Chmod, e.Mode)&0o777&aclPerms(list)
	}
	lists := chosen(a.xattrs, setPlain)
	var access, dflt string
	if !repeatsMode([]byte(list)) {
		access = list
	}
	if isDir(e) {
		dflt = list
	}
	if s.cmp.ruled {
		// What the rules do not protect goes again, for what the source has.
		for _, l := range []heldXattr{{aclAccess, access}, {aclDefault, dflt}} {
			if l.value != "" && !s.cmp.rules.carry(l.name) {
				lists = insertXattr(lists, rawXattr+l.name[len(systemXattr):], l.value)
			}
		}
		a.xattrs = lists
		return a
	}
	a.set |= setACLs
	a.xattrs = withACLs(lists, access, dflt)
	return a
}

// withACLs puts access control lists at their place among other attributes.
func withACLs(plain, access, dflt string) string {
	var all []byte
	add := func() {
		for _, l := range []struct{ name, value string }{{aclAccess, access}, {aclDefault, dflt}} {
			if l.value != "" {
				all = AppendXattr(all, l.name, l.value)
			}
		}
		access, dflt = "", ""
	}
	for name, value := range Xattrs(plain) {
		if name > aclAccess {
			add()
		}
		all = AppendXattr(all, name, value)
	}
	add()
	return string(all)
}

// aclPerms is the most that an access control list lets the mode of a new name be.
func aclPerms(list string) (mode uint32) {
	b := []byte(list)
	group, mask := uint32(0), uint32(7)
	masked := false
	for at := aclHead; at+aclEach <= len(b); at += aclEach {
		perm := uint32(binary.LittleEndian.Uint16(b[at+2:])) & 7
		switch binary.LittleEndian.Uint16(b[at:]) {
		case aclOwner:
			mode |= perm << 6
		case aclOwned:
			group = perm
		case aclMask:
			mask, masked = perm, true
		case aclOther:
			mode |= perm
		}
	}
	if masked {
		group = mask
	}
	return mode | group<<3
}
