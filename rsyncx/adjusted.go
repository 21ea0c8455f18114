package rsyncx

// maxAdjusted bounds the memory that adjusted takes.
const maxAdjusted = 1 << 16

// adjusted remembers the files of the destination that have several names and get
// other attributes by one of them: under the next name they have those by then, as
// they have for rsync, which sets them at once. Past its bound a file is taken for
// what it was.
type adjusted map[inode]attr

// inode tells a file of the destination.
type inode struct{ dev, ino uint64 }

// of returns here as it will be.
func (a adjusted) of(here *info) *info {
	if here.Nlink < 2 {
		return here
	}
	set, ok := a[inode{here.Dev, here.Ino}]
	if !ok {
		return here
	}
	after := *here
	if set.set&setMode != 0 {
		after.Mode = here.Mode&^0o7777 | set.mode
	}
	if set.set&setUID != 0 {
		after.UID = set.uid
	}
	if set.set&setGID != 0 {
		after.GID = set.gid
	}
	if set.set&setTime != 0 {
		after.Mtime = set.mtime
	}
	if set.set&(setPlain|setACLs) != 0 {
		after.Xattrs = set.xattrs
	}
	return &after
}

// add notes what is set on here.
func (a *adjusted) add(here *info, set attr) {
	if here.Nlink < 2 || set.set == 0 || len(*a) >= maxAdjusted {
		return
	}
	if *a == nil {
		*a = make(adjusted)
	}
	key := inode{here.Dev, here.Ino}
	if before, ok := (*a)[key]; ok {
		set = before.with(set)
	}
	(*a)[key] = set
}

// with returns a with what more sets in place of its own.
func (a attr) with(more attr) attr {
	if more.set&setMode == 0 {
		more.mode = a.mode
	}
	if more.set&setUID == 0 {
		more.uid = a.uid
	}
	if more.set&setGID == 0 {
		more.gid = a.gid
	}
	if more.set&setTime == 0 {
		more.mtime = a.mtime
	}
	if more.set&(setPlain|setACLs) == 0 {
		more.xattrs = a.xattrs
	}
	more.set |= a.set
	return more
}
