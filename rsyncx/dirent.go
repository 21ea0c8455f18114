package rsyncx

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dirent is one name of a directory with its type as far as the directory tells.
type dirent struct {
	name string // a NUL byte follows in memory
	kind uint8  // unix.DT_*, which may be DT_UNKNOWN
}

// dirReader lists directories. What it reads into is used again, so it belongs
// to one goroutine; what it returned last is valid until its next listing, the
// names for ever.
type dirReader struct {
	most  int    // names that are a list; 0 means longDir
	raw   []byte // as the kernel gives it
	names []byte // one behind the other, each with its NUL byte
	ends  []direntEnd
	list  []dirent
}

type direntEnd struct {
	end  int // of the name in names, where its NUL byte is
	kind uint8
}

// direntHead is what stands before the name in a linux_dirent64.
const direntHead = 8 + 8 + 2 + 1

// read lists the directory open at fd in byte order: as a list, or when it is a
// long one as longNames. More than MaxDirBytes of names are an error.
func (r *dirReader) read(fd int) ([]dirent, *longNames, error) {
	if r.raw == nil {
		r.raw = make([]byte, 64<<10)
	}
	r.names, r.ends = r.names[:0], r.ends[:0]
	for {
		n, err := r.next(fd)
		if err != nil {
			return nil, nil, err
		}
		if n == 0 {
			return r.sorted(), nil, nil
		}
		if r.parse(r.raw[:n]); r.isLong() {
			long, err := r.long(fd)
			return nil, long, err
		}
	}
}

// next reads what the kernel gives at a time.
func (r *dirReader) next(fd int) (n int, err error) {
	err = retry(func() (err error) { n, err = unix.ReadDirent(fd, r.raw); return err })
	return max(n, 0), err
}

func (r *dirReader) isLong() bool { return len(r.ends) > r.piece() }

// piece is how many names are a list, and a piece of more.
func (r *dirReader) piece() int { return cmp.Or(r.most, longDir) }

// readLong is read for a directory that is to be handled as a long one.
func (r *dirReader) readLong(fd int) (*longNames, error) {
	list, long, err := r.read(fd)
	if err == nil && long == nil {
		long = &longNames{}
		for i := range list {
			long.add([]byte(list[i].name), list[i].kind)
		}
	}
	return long, err
}

// long goes on with what parse has found so far.
func (r *dirReader) long(fd int) (*longNames, error) {
	all := &longNames{}
	for {
		from := 0
		for _, e := range r.ends {
			all.add(r.names[from:e.end], e.kind)
			from = e.end + 1
		}
		if all.bytes > MaxDirBytes {
			return nil, fmt.Errorf("more than %d bytes of names in one directory", MaxDirBytes)
		}
		r.names, r.ends = r.names[:0], r.ends[:0]
		n, err := r.next(fd)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			all.sort()
			return all, nil
		}
		r.parse(r.raw[:n])
	}
}

func (r *dirReader) parse(raw []byte) {
	for len(raw) > direntHead {
		size := int(binary.NativeEndian.Uint16(raw[16:]))
		if size <= direntHead || size > len(raw) {
			return
		}
		name := raw[direntHead:size]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		kind := raw[18]
		raw = raw[size:]
		if len(name) == 0 || name[0] == '.' && (len(name) == 1 || len(name) == 2 && name[1] == '.') {
			continue
		}
		r.names = append(append(r.names, name...), 0)
		r.ends = append(r.ends, direntEnd{end: len(r.names) - 1, kind: kind})
	}
}

// sorted cuts all names out of one string.
func (r *dirReader) sorted() []dirent {
	all := string(r.names)
	clear(r.list)
	r.list = r.list[:0]
	from := 0
	for _, e := range r.ends {
		r.list = append(r.list, dirent{name: all[from:e.end], kind: e.kind})
		from = e.end + 1
	}
	slices.SortFunc(r.list, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	return r.list
}

// stat describes the name in the directory dir it was read from, without
// copying it for the call.
func (d *dirent) stat(dir int, st *unix.Statx_t) error {
	name := unsafe.Pointer(unsafe.StringData(d.name))
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(name), statxFlags, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(st)), 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

const statxFlags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT

// noStatx reports whether err is the answer of a kernel, or a sandbox, without statx.
func noStatx(err error) bool { return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) }

// infoAt is statMountAt for a name that was just listed.
func (d *dirent) infoAt(dir int, st *unix.Statx_t, into *info) error {
	err := d.stat(dir, st)
	if noStatx(err) {
		*into, err = statAt(dir, d.name)
		return err
	}
	if err == nil {
		into.setStatx(d.name, st)
	}
	return err
}

// entryAt is infoAt for what an Entry holds.
func (d *dirent) entryAt(dir int, st *unix.Statx_t, into *Entry) error {
	err := d.stat(dir, st)
	if noStatx(err) {
		var i info
		i, err = statAt(dir, d.name)
		*into = i.Entry
		return err
	}
	if err == nil {
		into.setStatx(d.name, st)
	}
	return err
}

func (e *Entry) setStatx(name string, st *unix.Statx_t) {
	*e = Entry{
		Name: name, Mode: uint32(st.Mode), Size: int64(st.Size),
		Mtime: Time{Sec: st.Mtime.Sec, Nsec: int32(st.Mtime.Nsec)},
		UID:   st.Uid, GID: st.Gid, Rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino, Nlink: uint64(st.Nlink),
	}
}

func (i *info) setStatx(name string, st *unix.Statx_t) {
	i.Entry.setStatx(name, st)
	i.ctime = Time{Sec: st.Ctime.Sec, Nsec: int32(st.Ctime.Nsec)}
	known := st.Attributes & st.Attributes_mask
	i.mount = known&unix.STATX_ATTR_MOUNT_ROOT != 0
	i.held = known&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0
}

// of makes what read returns out of names that are known, ascending, without their types.
func (r *dirReader) of(names []string) ([]dirent, *longNames) {
	if len(names) > r.piece() {
		all := &longNames{}
		for _, name := range names {
			all.add([]byte(name), unix.DT_UNKNOWN)
		}
		return nil, all
	}
	r.names, r.ends = r.names[:0], r.ends[:0]
	for _, name := range names {
		r.names = append(append(r.names, name...), 0)
		r.ends = append(r.ends, direntEnd{end: len(r.names) - 1, kind: unix.DT_UNKNOWN})
	}
	return r.sorted(), nil
}
