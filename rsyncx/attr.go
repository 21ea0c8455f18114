package rsyncx

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// attr is what to set on a name. Which fields count is in set.
type attr struct {
	set   attrSet
	mode  uint32 // permission bits
	uid   uint32
	gid   uint32
	mtime Time
	// xattrs is a list as AppendXattr encodes it, with all that the name shall have
	// of what setPlain and setACLs speak of.
	xattrs string
	// gone, with setRuled, are the attributes to remove, as AppendXattr encodes them
	// without values.
	gone string
}

type attrSet uint8

const (
	setMode attrSet = 1 << iota
	setUID
	setGID
	setTime
	setPlain // extended attributes that are no access control lists
	setACLs
	setRuled // beside setPlain: by rules xattrs are not all, and what it does not name stays unless it is in gone
)

// apply sets a on an open descriptor, which may be one of O_PATH: owner first,
// since changing it clears setuid and file capabilities; then extended attributes,
// since an access control list has its say in the mode; then mode; then time.
func (r *Root) apply(fd int, a attr) error {
	if a.set&(setUID|setGID) != 0 {
		uid, gid := -1, -1
		if a.set&setUID != 0 {
			uid = int(int32(a.uid))
		}
		if a.set&setGID != 0 {
			gid = int(int32(a.gid))
		}
		if err := r.do("chown", func() error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) }); err != nil {
			return fmt.Errorf("set the owner: %w", err)
		}
	}
	if err := r.setXattrs(fd, a); err != nil {
		return err
	}
	if a.set&setMode != 0 {
		if err := r.setMode(fd, a.mode); err != nil {
			return err
		}
	}
	if a.set&setTime != 0 {
		if err := r.setTime(fd, a.mtime); err != nil {
			return err
		}
	}
	return nil
}

func (r *Root) setMode(fd int, mode uint32) error {
	err := r.do("chmod", func() error {
		err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
		if err == unix.EOPNOTSUPP || err == unix.EPERM || err == unix.EINVAL { // before Linux 6.6, or filtered
			err = unix.Fchmodat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), mode, 0)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set the mode: %w", err)
	}
	return nil
}

func (r *Root) setTime(fd int, t Time) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(0)}
	times[1].Sec, times[1].Nsec = t.Sec, int64(t.Nsec)
	err := r.do("utimes", func() error {
		err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
		if err == unix.EINVAL { // before Linux 5.8
			err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times, 0)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set the modification time: %w", err)
	}
	return nil
}
