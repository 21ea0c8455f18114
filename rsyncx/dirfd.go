package rsyncx

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Everything below a root is reached by one component at a time from a held
// directory descriptor, with O_NOFOLLOW, so no name a peer or a local user
// chooses is ever resolved by the kernel through a symbolic link or "..".

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

// info is what stat says, with what Entry leaves out.
type info struct {
	Entry
	ctime Time
	mount bool // a file system is mounted on it
	held  bool // it is immutable, or can only be appended to: no rename replaces it
	// hidden says that the sender's rules leave it out; known of listings for a
	// digest only.
	hidden bool
}

func (i *info) isDir() bool { return i.Mode&unix.S_IFMT == unix.S_IFDIR }

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// openDir opens the directory name in dir, or dir itself again for ".".
func openDir(dir int, name string) (int, error) { return openat(dir, name, dirFlags, 0) }

func statAt(dir int, name string) (info, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return info{}, err
	}
	return fromStat(name, &st), nil
}

func statFd(fd int) (info, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return info{}, err
	}
	return fromStat("", &st), nil
}

func fromStat(name string, st *unix.Stat_t) info {
	return info{
		Entry: Entry{
			Name: name, Mode: st.Mode, Size: st.Size,
			Mtime: Time{Sec: int64(st.Mtim.Sec), Nsec: int32(st.Mtim.Nsec)},
			UID:   st.Uid, GID: st.Gid, Rdev: uint64(st.Rdev),
			Dev: uint64(st.Dev), Ino: st.Ino, Nlink: uint64(st.Nlink),
		},
		ctime: Time{Sec: int64(st.Ctim.Sec), Nsec: int32(st.Ctim.Nsec)},
	}
}

// readNames lists the directory open at fd in byte order. buf is scratch
// space. More than MaxDirBytes of names are an error.
func readNames(fd int, buf []byte) ([]string, error) {
	var names []string
	total, counted := 0, 0
	for {
		var n int
		err := retry(func() (err error) { n, err = unix.ReadDirent(fd, buf); return err })
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
		for ; counted < len(names); counted++ {
			total += len(names[counted])
		}
		if total > MaxDirBytes {
			return nil, fmt.Errorf("more than %d bytes of names in one directory", MaxDirBytes)
		}
	}
	slices.Sort(names)
	return names, nil
}

func readLinkAt(dir int, name string, buf []byte) (string, error) {
	var n int
	err := retry(func() (err error) { n, err = unix.Readlinkat(dir, name, buf); return err })
	if err != nil {
		return "", err
	}
	if n >= len(buf) {
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}

// readRegularAt returns the content of a small regular file, as filters need it.
func readRegularAt(dir int, name string, limit int64) ([]byte, error) {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readOpen(fd, limit)
}

func readOpen(fd int, limit int64) ([]byte, error) {
	st, err := statFd(fd)
	switch {
	case err != nil:
		return nil, err
	case st.isDir():
		return nil, unix.EISDIR
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, ErrNotRegular
	}
	content, err := io.ReadAll(io.LimitReader(fdReader(fd), limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return content, err
}

// fdReader reads a descriptor that its user closes.
type fdReader int

func (fd fdReader) Read(p []byte) (int, error) {
	var n int
	err := retry(func() (err error) { n, err = unix.Read(int(fd), p); return err })
	switch {
	case err != nil:
		return 0, err
	case n <= 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// descent holds the descriptors from a root down to the directory used last,
// so that neighbours in a sorted list of paths cost one open, not one per level.
type descent struct {
	root  int
	names []string
	fds   []int
}

// dir returns the descriptor of the directory path, valid until the next call.
func (d *descent) dir(path string) (int, error) {
	keep := 0
	rest := path
	for rest != "" && keep < len(d.names) {
		name, tail, _ := strings.Cut(rest, "/")
		if name != d.names[keep] {
			break
		}
		keep, rest = keep+1, tail
	}
	d.cut(keep)
	for rest != "" {
		name, tail, _ := strings.Cut(rest, "/")
		if err := CheckName(name); err != nil {
			return -1, err
		}
		fd, err := openDir(d.top(), name)
		if err != nil {
			return -1, err
		}
		d.names, d.fds, rest = append(d.names, name), append(d.fds, fd), tail
	}
	return d.top(), nil
}

// parent returns the descriptor of the directory that holds path, and the last
// component of path.
func (d *descent) parent(path string) (int, string, error) {
	dir, name := splitPath(path)
	if err := CheckName(name); err != nil {
		return -1, "", err
	}
	fd, err := d.dir(dir)
	return fd, name, err
}

func (d *descent) top() int {
	if len(d.fds) == 0 {
		return d.root
	}
	return d.fds[len(d.fds)-1]
}

func (d *descent) cut(keep int) {
	for _, fd := range d.fds[keep:] {
		unix.Close(fd)
	}
	d.fds, d.names = d.fds[:keep], d.names[:keep]
}

func (d *descent) close() { d.cut(0) }

// start makes root the directory that paths begin at.
func (d *descent) start(root int) {
	if d.root != root {
		d.close()
		d.root = root
	}
}

func splitPath(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// gone turns the errors of a parent that is no directory any more into
// fs.ErrNotExist: what was listed below it is not there.
func gone(err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w: a directory above it was replaced", fs.ErrNotExist)
	}
	return err
}
