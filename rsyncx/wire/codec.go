package wire

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/drsync/drsync/rsyncx"
)

const (
	modeType = 0o170000
	modeLink = 0o120000
	modeChar = 0o020000
	modeBlk  = 0o060000
)

// decoder takes a payload apart. The first thing that does not fit sets err,
// and everything after it is zero.
type decoder struct {
	b     []byte
	err   error
	names *interned // may be nil
}

// interned keeps strings that come again and again.
type interned struct{ m map[string]string }

func (n *interned) of(raw []byte) string {
	if n == nil {
		return string(raw)
	}
	if s, ok := n.m[string(raw)]; ok {
		return s
	}
	s := string(raw)
	if n.m == nil || len(n.m) >= maxInterned {
		n.m = map[string]string{}
	}
	n.m[s] = s
	return s
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = hostile("a malformed %s", what)
	}
	d.b = nil
}

func (d *decoder) uint(what string, max uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > max {
		d.fail(what)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int(what string) int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(what)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(what string, max int) []byte {
	n := int(d.uint(what, uint64(max)))
	if n > len(d.b) {
		d.fail(what)
		return nil
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) string(what string, max int) string { return string(d.bytes(what, max)) }

// fixed decodes n bytes without a length before them.
func (d *decoder) fixed(what string, n int) []byte {
	if n > len(d.b) {
		d.fail(what)
		return make([]byte, n)
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

// owner is string for names that come again and again.
func (d *decoder) owner(what string) string { return d.names.of(d.bytes(what, maxOwner)) }

// flags decodes one byte of which only the bits of known may be set.
func (d *decoder) flags(what string, known byte) byte {
	if len(d.b) == 0 || d.b[0]&^known != 0 {
		d.fail(what)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

// bits makes a byte of booleans, the first one its lowest bit.
func bits(on ...bool) (b byte) {
	for i, v := range on {
		if v {
			b |= 1 << i
		}
	}
	return b
}

// end returns the decoder's error, or one about bytes that are left over.
func (d *decoder) end(what string) error {
	if d.err == nil && len(d.b) > 0 {
		d.fail(what)
	}
	return d.err
}

func appendUint(b []byte, v int64) []byte { return binary.AppendUvarint(b, uint64(v)) }

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// bounds decodes those of a piece of a directory.
func (d *decoder) bounds() (after, upto string) {
	after, upto = d.string("name", maxName), d.string("name", maxName)
	for _, name := range []string{after, upto} {
		if name != "" && d.err == nil {
			d.err = rsyncx.CheckName(name)
		}
	}
	if upto != "" && upto <= after {
		d.fail("piece of a directory")
	}
	return after, upto
}

// Flags of an encoded entry.
const (
	sameOwner  = 1 << iota // as the entry before in the same frame
	sameDev                // as the entry before in the same frame
	hasInode               // Dev, Ino and Nlink follow
	ownXattrs              // other extended attributes than the entry before in the same frame
	entryFlags = 1<<iota - 1
)

// appendEntry appends e, told apart from last, the entry before it in the frame.
func appendEntry(b []byte, e, last *rsyncx.Entry) []byte {
	var flags byte
	if e.UID == last.UID && e.GID == last.GID && e.User == last.User && e.Group == last.Group {
		flags |= sameOwner
	}
	if e.Ino != 0 || e.Dev != 0 || e.Nlink != 0 {
		flags |= hasInode
		if e.Dev == last.Dev {
			flags |= sameDev
		}
	}
	if e.Xattrs != last.Xattrs {
		flags |= ownXattrs
	}
	b = append(b, flags)
	b = appendString(b, e.Name)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = binary.AppendVarint(b, e.Mtime.Sec)
	b = binary.AppendUvarint(b, uint64(e.Mtime.Nsec))
	if flags&sameOwner == 0 {
		b = binary.AppendUvarint(b, uint64(e.UID))
		b = binary.AppendUvarint(b, uint64(e.GID))
		b = appendString(b, e.User)
		b = appendString(b, e.Group)
	}
	if flags&hasInode != 0 {
		if flags&sameDev == 0 {
			b = binary.AppendUvarint(b, e.Dev)
		}
		b = binary.AppendUvarint(b, e.Ino)
		b = binary.AppendUvarint(b, e.Nlink)
	}
	if flags&ownXattrs != 0 {
		b = appendString(b, e.Xattrs)
	}
	switch e.Mode & modeType {
	case modeLink:
		b = appendString(b, e.Target)
	case modeChar, modeBlk:
		b = binary.AppendUvarint(b, e.Rdev)
	}
	return b
}

// entry decodes what appendEntry wrote. The name is not checked.
func (d *decoder) entry(last *rsyncx.Entry) rsyncx.Entry {
	var e rsyncx.Entry
	flags := d.flags("entry", entryFlags)
	e.Name = d.string("name", maxName)
	e.Mode = uint32(d.uint("mode", math.MaxUint32))
	e.Size = int64(d.uint("size", math.MaxInt64))
	e.Mtime.Sec = d.int("time")
	e.Mtime.Nsec = int32(d.uint("time", 999_999_999))
	if flags&sameOwner != 0 {
		e.UID, e.GID, e.User, e.Group = last.UID, last.GID, last.User, last.Group
	} else {
		e.UID = uint32(d.uint("owner", math.MaxUint32))
		e.GID = uint32(d.uint("group", math.MaxUint32))
		e.User = d.owner("owner name")
		e.Group = d.owner("group name")
	}
	if flags&hasInode != 0 {
		e.Dev = last.Dev
		if flags&sameDev == 0 {
			e.Dev = d.uint("device", math.MaxUint64)
		}
		e.Ino = d.uint("inode", math.MaxUint64)
		e.Nlink = d.uint("link count", math.MaxUint64)
	}
	if e.Xattrs = last.Xattrs; flags&ownXattrs != 0 {
		e.Xattrs = d.string("list of extended attributes", maxXattrs)
		if d.err == nil {
			d.err = rsyncx.CheckXattrs(e.Xattrs)
		}
	}
	switch e.Mode & modeType {
	case modeLink:
		e.Target = d.string("link target", maxTarget)
		if strings.IndexByte(e.Target, 0) >= 0 {
			d.fail("link target")
		}
	case modeChar, modeBlk:
		e.Rdev = d.uint("device number", math.MaxUint64)
	}
	if d.err != nil {
		return rsyncx.Entry{}
	}
	return e
}

// weight is what an entry counts for against rsyncx.MaxDirBytes.
func weight(e *rsyncx.Entry) int {
	return entryCost + len(e.Name) + len(e.Target) + len(e.Xattrs)
}

func appendAbilities(b []byte, a rsyncx.Abilities) []byte {
	return append(b, bits(a.Nanoseconds, a.OwnerNames, a.HardLinks, a.Devices, a.Xattrs, a.Sums, a.Views, a.Digests))
}

// abilities decodes what appendAbilities wrote. Holes is not in it: the frames of
// this protocol always carry them.
func (d *decoder) abilities() rsyncx.Abilities {
	v := d.flags("list of abilities", 255)
	return rsyncx.Abilities{Nanoseconds: v&1 != 0, OwnerNames: v&2 != 0, HardLinks: v&4 != 0, Devices: v&8 != 0,
		Xattrs: v&16 != 0, Sums: v&32 != 0, Views: v&64 != 0, Digests: v&128 != 0, Holes: true}
}

func appendTree(b []byte, t Tree) []byte {
	return append(appendString(b, t.Root), bits(t.View.CopyLinks, t.View.CopyDirLinks, t.View.CopyUnsafeLinks))
}

func (d *decoder) tree() Tree {
	root := d.string("directory", maxRoot)
	v := d.flags("view", 7)
	return Tree{root, rsyncx.View{CopyLinks: v&1 != 0, CopyDirLinks: v&2 != 0, CopyUnsafeLinks: v&4 != 0}}
}
