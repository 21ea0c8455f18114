package rsyncx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	// aclNames is no attribute of a file: a source tells by it the names of the users and
	// groups in its access control lists.
	aclNames = "system.drsync_acl_names"
	// rsyncXattr is the prefix of what rsync keeps for itself.
	rsyncXattr = "user.rsync.%"
	// rawXattr is put in place of systemXattr in the name of an access control list
	// that rules make an attribute like any other, its numbers those of the source.
	rawXattr    = "system.drsync_raw."
	systemXattr = "system."
)

// xattrReader reads extended attributes. It belongs to one goroutine.
type xattrReader struct {
	names []byte
	value []byte
	// owners, unless it is nil, knows the names of those in access control lists,
	// which are then told in an attribute aclNames.
	owners *ownerNames
	rules  xattrRules
}

// held returns the encoded attributes of what is open at fd, which may be of
// O_PATH and of any type: those that rsync -X takes along when plain is set, the
// access control lists when acls is.
func (r *xattrReader) held(fd int, plain, acls bool) (string, error) {
	// The kernel gives attributes of such a descriptor by this path only. It leads
	// to the very thing that is held, a symbolic link included.
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	names, err := r.list(path)
	if err != nil {
		return "", err
	}
	var list, owners []byte
	var raw []heldXattr
	for _, name := range names {
		acl := isACL(name)
		if !(acl && acls) && !(plain && r.rules.carry(name)) {
			continue
		}
		value, err := r.get(path, name)
		if errors.Is(err, unix.ENODATA) {
			continue // gone since it was listed
		}
		if err != nil {
			return "", fmt.Errorf("read the extended attribute %s: %w", name, err)
		}
		if acl && !acls {
			raw = append(raw, heldXattr{rawXattr + name[len(systemXattr):], string(value)})
			continue
		}
		if name == aclAccess && repeatsMode(value) {
			continue
		}
		if acl && r.owners != nil {
			owners = appendACLNames(owners, value, r.owners)
		}
		list = AppendXattr(list, name, value)
		if len(list) > maxXattrs {
			return "", errXattrsTooLong
		}
	}
	all := string(list)
	if n := len(list) + len(owners) + 64; owners != nil && n <= maxXattrs { // else they go by number
		all = insertXattr(all, aclNames, string(owners))
	}
	for _, x := range raw {
		all = insertXattr(all, x.name, x.value)
	}
	if len(all) > maxXattrs {
		return "", errXattrsTooLong
	}
	return all, nil
}

type heldXattr struct{ name, value string }

var errXattrsTooLong = fmt.Errorf("more than %d bytes of extended attributes", maxXattrs)

// XattrsOf returns the encoded extended attributes of path, a symbolic link not
// being followed: with o.Xattrs those that rsync -X would replace at a
// destination by the rules of o.Filter, with o.ACLs the access control lists.
func XattrsOf(path string, o *WalkOptions) (string, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	r := xattrReader{rules: xattrRules{o.Filter.Root(), filter.Receiver}}
	return r.held(fd, o.Xattrs, o.ACLs)
}

// list returns the names, ascending.
func (r *xattrReader) list(path string) ([]string, error) {
	if r.names == nil {
		r.names = make([]byte, 64<<10) // as much as Linux allows
	}
	var n int
	err := retry(func() (err error) { n, err = unix.Listxattr(path, r.names); return err })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil, nil // a file system without any
	}
	if err != nil {
		return nil, fmt.Errorf("list the extended attributes: %w", err)
	}
	var names []string
	for raw := range bytes.SplitSeq(r.names[:n], []byte{0}) {
		if len(raw) > 0 {
			names = append(names, string(raw))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// get returns a value that is valid until the next call.
func (r *xattrReader) get(path, name string) ([]byte, error) {
	if r.value == nil {
		r.value = make([]byte, 64<<10) // as much as Linux allows
	}
	var n int
	err := retry(func() (err error) { n, err = unix.Getxattr(path, name, r.value); return err })
	if err != nil {
		return nil, err
	}
	return r.value[:n], nil
}

// repeatsMode reports whether an access control list says no more than the mode
// does: it names no user, no group, and has no mask.
func repeatsMode(acl []byte) bool {
	const head, each = 4, 8
	if len(acl) < head {
		return false
	}
	for acl = acl[head:]; len(acl) >= each; acl = acl[each:] {
		switch binary.LittleEndian.Uint16(acl) {
		case 0x01, 0x04, 0x20: // owner, group, others
		default:
			return false
		}
	}
	return true
}
