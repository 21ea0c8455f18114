package rsyncx

import "encoding/binary"

// The numbers in an access control list are the source's. Its names for them are
// a list of entries: the tag of the list's entry, the number and the name.

// appendACLNames adds the names that the users and groups of acl have here. One
// may be added twice.
func appendACLNames(b []byte, acl []byte, names *ownerNames) []byte {
	for at := aclHead; at+aclEach <= len(acl); at += aclEach {
		id := binary.LittleEndian.Uint32(acl[at+4:])
		name := ""
		tag := acl[at]
		switch tag {
		case aclUser:
			name, _ = names.of(id, 0)
		case aclGroup:
			_, name = names.of(0, id)
		}
		if name != "" {
			b = appendText(binary.AppendUvarint(append(b, tag), uint64(id)), name)
		}
	}
	return b
}

// aclOwners are the source's names of users and groups in one entry's lists.
type aclOwners struct{ users, groups map[uint32]string }

// parseACLNames decodes what appendACLNames wrote. False says that it is something else.
func parseACLNames(text string) (o aclOwners, ok bool) {
	o = aclOwners{users: map[uint32]string{}, groups: map[uint32]string{}}
	d := decoder{b: []byte(text)}
	for len(d.b) > 0 && !d.bad {
		tag, id, name := d.byte(), d.uint32(), d.text()
		switch {
		case d.bad || len(name) > maxOwnerName:
			return o, false
		case tag == aclUser:
			o.users[id] = name
		case tag == aclGroup:
			o.groups[id] = name
		default:
			return o, false
		}
	}
	return o, !d.bad
}

// insertXattr puts one more attribute at its place in an encoded list.
func insertXattr(list, name, value string) string {
	var all []byte
	done := false
	for n, v := range Xattrs(list) {
		if n > name && !done {
			all, done = AppendXattr(all, name, value), true
		}
		all = AppendXattr(all, n, v)
	}
	if !done {
		all = AppendXattr(all, name, value)
	}
	return string(all)
}
