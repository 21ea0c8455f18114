package rsyncx

import "golang.org/x/sys/unix"

// change is what differs between what the source has and what the destination
// had: the letters of rsync's --itemize-changes.
type change struct {
	update byte // '>' fetched, 'c' made here, 'h' hard link, '.' attributes only
	isNew  bool

	content   bool // by checksum, or the value of a link or device
	size      bool
	time      bool
	timeUnset bool // with time: it becomes the time of the transfer
	perms     bool
	owner     bool
	group     bool
	acls      bool
	xattrs    bool
}

// any reports whether the change is worth a line.
func (c change) any() bool {
	return c.update != '.' || c.isNew || c.content || c.size || c.time || c.perms || c.owner || c.group || c.acls || c.xattrs
}

const deleting = "*deleting  "

// letters returns rsync's eleven letters.
func (c change) letters(mode uint32) string {
	b := []byte{c.update, 'f', '.', '.', '.', '.', '.', '.', '.', '.', '.'}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		b[1] = 'd'
	case unix.S_IFLNK:
		b[1] = 'L'
	case unix.S_IFCHR, unix.S_IFBLK:
		b[1] = 'D'
	case unix.S_IFIFO, unix.S_IFSOCK:
		b[1] = 'S'
	}
	if c.isNew {
		return string(b[:2]) + "+++++++++"
	}
	same := true
	for i, l := range []struct {
		on     bool
		letter byte
	}{{c.content, 'c'}, {c.size, 's'}, {c.time, 't'}, {c.perms, 'p'}, {c.owner, 'o'}, {c.group, 'g'}} {
		if l.on {
			b[2+i], same = l.letter, false
		}
	}
	if c.acls {
		b[9], same = 'a', false
	}
	if c.xattrs {
		b[10], same = 'x', false
	}
	if c.time && c.timeUnset {
		b[4] = 'T'
	}
	if same && c.update != '>' {
		return string(b[:2]) + "         "
	}
	return string(b)
}
