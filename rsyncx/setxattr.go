package rsyncx

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"

	"github.com/drsync/drsync/internal/event"
	"golang.org/x/sys/unix"
)

// xattrReaders keeps the buffers of those that set attributes.
var xattrReaders = sync.Pool{New: func() any { return new(xattrReader) }}

// setXattrs makes the extended attributes of what is open at fd those of a, as
// far as a.set says: what a has not is removed. Done again it changes nothing.
// What the file system or the kernel refuses is noted in r.refused, and no error.
func (r *Root) setXattrs(fd int, a attr) error {
	if a.set&(setPlain|setACLs) == 0 {
		return nil
	}
	x := xattrReaders.Get().(*xattrReader)
	defer xattrReaders.Put(x)
	if err := r.readable(fd); err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	if a.set&setRuled != 0 {
		if err := r.setRuled(x, path, a); err != nil {
			return err
		}
		if a.set &^= setPlain | setRuled; a.set&setACLs == 0 {
			return nil
		}
	}
	now, err := x.held(fd, a.set&setPlain != 0, a.set&setACLs != 0)
	if err != nil {
		return r.refuses(err)
	}
	want := chosen(a.xattrs, a.set)
	for name, value := range besides(now, want) {
		if err := r.changeXattr(path, name, value); err != nil {
			return err
		}
	}
	return nil
}

// setRuled removes the attributes of a.gone and sets the plain ones of a.xattrs.
func (r *Root) setRuled(x *xattrReader, path string, a attr) error {
	for name := range Xattrs(a.gone) {
		if err := r.changeXattr(path, realXattr(name), nil); err != nil {
			return err
		}
	}
	for _, acls := range []bool{false, true} { // last of all, as in besides
		for name, value := range Xattrs(chosen(a.xattrs, setPlain)) {
			if name = realXattr(name); isACL(name) != acls {
				continue
			}
			if now, err := x.get(path, name); err == nil && string(now) == value {
				continue
			}
			b := []byte(value)
			if err := r.changeXattr(path, name, &b); err != nil {
				return err
			}
		}
	}
	return nil
}

// changeXattr sets or, without a value, removes one attribute of what is open at path.
func (r *Root) changeXattr(path, name string, value *[]byte) error {
	err := r.do("setxattr", func() error {
		if value == nil {
			return unix.Removexattr(path, name)
		}
		return unix.Setxattr(path, name, *value, 0)
	})
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return r.refuses(wrapXattr(name, err))
}

func wrapXattr(name string, err error) error {
	if err != nil {
		err = fmt.Errorf("set the extended attribute %s: %w", Printable(name), err)
	}
	return err
}

// readable lets a user read and set the attributes of a file or directory of
// his whose mode forbids it. Its own mode is set right behind them.
func (r *Root) readable(fd int) error {
	if os.Geteuid() == 0 {
		return nil
	}
	st, err := statFd(fd)
	if err != nil || st.Mode&0o600 == 0o600 || !isRegular(&st.Entry) && !st.isDir() {
		return err
	}
	return r.setMode(fd, st.Mode&0o7777|0o600)
}

// chosen takes out of a list what set does not speak of.
func chosen(list string, set attrSet) string {
	if list == "" || set&(setPlain|setACLs) == setPlain|setACLs {
		return list
	}
	var some []byte
	for name, value := range Xattrs(list) {
		if isACL(name) == (set&setACLs != 0) {
			some = AppendXattr(some, name, value)
		}
	}
	return string(some)
}

func isACL(name string) bool { return name == aclAccess || name == aclDefault }

// besides yields what makes the list now the list want: first the names to be
// removed, which makes room, with nil, then the values to be set, access control
// lists last: they may forbid a user to set the others.
func besides(now, want string) iter.Seq2[string, *[]byte] {
	return func(yield func(string, *[]byte) bool) {
		if now == want {
			return
		}
		has, wants := map[string]string{}, map[string]bool{}
		for name, value := range Xattrs(now) {
			has[name] = value
		}
		for name := range Xattrs(want) {
			wants[name] = true
		}
		for name := range Xattrs(now) {
			if !wants[name] && !yield(name, nil) {
				return
			}
		}
		for _, acls := range []bool{false, true} {
			for name, value := range Xattrs(want) {
				if old, ok := has[name]; isACL(name) != acls || ok && old == value {
					continue
				}
				if b := []byte(value); !yield(name, &b) {
					return
				}
			}
		}
	}
}

// XattrsNotKept begins the warning about what a destination would not take of
// extended attributes and access control lists.
const XattrsNotKept = "extended attributes or access control lists were not kept: "

// refusals are what a destination would not take of extended attributes. Several
// goroutines may add to it.
type refusals struct {
	mu    sync.Mutex
	count int64
	first string
}

// xattrErrors are about one attribute, not about the disk.
var xattrErrors = []error{unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.E2BIG, unix.ERANGE, unix.EINVAL, unix.ENOSPC, unix.EDQUOT, errXattrsTooLong}

// refuses notes an error that is about one attribute, and returns others.
func (r *Root) refuses(err error) error {
	if err == nil {
		return nil
	}
	if !slices.ContainsFunc(xattrErrors, func(e error) bool { return errors.Is(err, e) }) {
		return err
	}
	r.refused.mu.Lock()
	defer r.refused.mu.Unlock()
	r.refused.count++
	r.refused.first = cmp.Or(r.refused.first, err.Error())
	return nil
}

// tell adds what was refused since the last time to stats and notes, and warns once.
func (f *refusals) tell(stats *Stats, n *notes, sink event.Sink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count > 0 {
		text := XattrsNotKept + f.first
		stats.Skipped += f.count
		n.addTimes(text, f.count)
		sink.Emit(event.Event{Kind: event.Warning, Text: text})
	}
	f.count, f.first = 0, ""
}

// unknownXattrs stands for the attributes of a name that cannot be read. It is
// no list, and differs from all.
const unknownXattrs = "\xff"

// An access control list is a version of four bytes, then entries of a tag, the
// permissions, and the number of a user or group.
const (
	aclHead  = 4
	aclEach  = 8
	aclOwner = 0x01
	aclUser  = 0x02
	aclOwned = 0x04 // the group
	aclGroup = 0x08
	aclMask  = 0x10
	aclOther = 0x20
)

// mapACL returns an access control list with the numbers of this host, its
// entries in order. False says that it is none.
func mapACL(acl string, user, group func(uint32) uint32) (string, bool) {
	if len(acl) < aclHead || (len(acl)-aclHead)%aclEach != 0 || binary.LittleEndian.Uint32([]byte(acl[:aclHead])) != 2 {
		return "", false
	}
	b := []byte(acl)
	var entries [][aclEach]byte
	for at := aclHead; at < len(b); at += aclEach {
		e := [aclEach]byte(b[at:])
		id := binary.LittleEndian.Uint32(e[4:])
		switch binary.LittleEndian.Uint16(e[:]) {
		case aclUser:
			id = user(id)
		case aclGroup:
			id = group(id)
		case aclOwner, aclOwned, aclMask, aclOther:
			id = 1<<32 - 1
		default:
			return "", false
		}
		binary.LittleEndian.PutUint32(e[4:], id)
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(x, y [aclEach]byte) int {
		return cmp.Or(cmp.Compare(binary.LittleEndian.Uint16(x[:]), binary.LittleEndian.Uint16(y[:])),
			cmp.Compare(binary.LittleEndian.Uint32(x[4:]), binary.LittleEndian.Uint32(y[4:])))
	})
	b = b[:aclHead]
	for _, e := range entries {
		b = append(b, e[:]...)
	}
	return string(b), true
}

// besideMode is an access control list without what the mode says as well.
func besideMode(acl string) string {
	b := []byte(acl)
	masked := false
	for at := aclHead; at+aclEach <= len(b); at += aclEach {
		masked = masked || binary.LittleEndian.Uint16(b[at:]) == aclMask
	}
	for at := aclHead; at+aclEach <= len(b); at += aclEach {
		switch tag := binary.LittleEndian.Uint16(b[at:]); {
		case tag == aclOwner, tag == aclOther, tag == aclMask, tag == aclOwned && !masked:
			binary.LittleEndian.PutUint16(b[at+2:], 0)
		}
	}
	return string(b)
}

// parts takes a list apart into what the letters x and a stand for.
func xattrParts(list string) (plain, acls string) {
	var p, a []byte
	for name, value := range Xattrs(list) {
		switch name {
		case aclAccess:
			a = AppendXattr(a, name, besideMode(value))
		case aclDefault:
			a = AppendXattr(a, name, value)
		default:
			p = AppendXattr(p, name, value)
		}
	}
	return string(p), string(a)
}

// xattrsDiffer tells whether two lists differ in attributes and in access control lists.
func xattrsDiffer(a, b string) (plain, acls bool) {
	switch {
	case a == b:
		return false, false
	case a == unknownXattrs || b == unknownXattrs:
		return true, true
	}
	plainA, aclsA := xattrParts(a)
	plainB, aclsB := xattrParts(b)
	return plainA != plainB, aclsA != aclsB
}

// bearings makes the list that the source tells of e what can be compared with
// those of this host and given to something here: with its numbers, and without
// what we do not take. The source is not trusted with the rest.
func (s *stager) bearings(path string, e *Entry) error {
	if e.Xattrs == "" {
		return nil
	}
	if !s.cmp.xattrs && !s.cmp.acls {
		e.Xattrs = ""
		return nil
	}
	var names aclOwners
	user := func(id uint32) uint32 { return s.ids.user(id, names.users[id]) }
	group := func(id uint32) uint32 { return s.ids.group(id, names.groups[id]) }
	var list []heldXattr
	for name, value := range Xattrs(e.Xattrs) {
		switch {
		case name == aclNames: // it comes before the lists
			var ok bool
			if names, ok = parseACLNames(value); !ok {
				return hostile(path, "names of the owners in an access control list that are none")
			}
			continue
		case isACL(name):
			if !s.cmp.acls || isSymlink(e) || name == aclDefault && !isDir(e) {
				continue
			}
			var ok bool
			if value, ok = mapACL(value, user, group); !ok {
				return hostile(path, "an access control list that is none")
			}
			if name == aclAccess && repeatsMode([]byte(value)) {
				continue
			}
		case !s.cmp.xattrs:
			continue
		default:
			if name = s.cmp.rules.takes(name); name == "" {
				continue
			}
		}
		list = append(list, heldXattr{name, value})
	}
	e.Xattrs = encodeXattrs(list)
	return nil
}

// bears fills the attributes that the destination's name here has, when they are asked for.
func (s *stager) bears(dir int, name string, here *info) {
	if !s.cmp.xattrs && !s.cmp.acls {
		return
	}
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err == nil {
		here.Xattrs, err = s.xattrs.held(fd, s.cmp.xattrs, s.cmp.acls && !isSymlink(&here.Entry))
		unix.Close(fd)
	}
	if err != nil {
		here.Xattrs = unknownXattrs
	}
}
