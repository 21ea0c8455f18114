package rsyncx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// What a View follows is opened without access to its content (O_PATH), looked
// at, and only then opened: a link may be changed at any time, a held descriptor
// cannot. Where a descriptor lies is asked of the kernel.

// ErrDangling says that a link to be followed leads nowhere.
var ErrDangling = errors.New("symlink has no referent")

// errOutside says that a link leads to what the source must not read, errLoop
// that it leads to a directory above it.
var (
	errOutside = errors.New("the link leads out of what may be read")
	errLoop    = errors.New("the link leads to a directory above it")
)

// within opens the directories that links may lead into.
func (l *local) within(allowed []string) error {
	for _, path := range allowed {
		fd, err := openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // nothing can be read through it
		}
		if err != nil {
			return fmt.Errorf("open the directory %s: %w", path, err)
		}
		l.allowed = append(l.allowed, fd)
	}
	return nil
}

// mayRead looks where a descriptor lies.
func (l *local) mayRead(fd int) error {
	if !l.confined {
		return nil
	}
	path, err := whereIs(fd)
	if err != nil {
		return err
	}
	for _, top := range append([]int{l.root}, l.allowed...) {
		dir, err := whereIs(top)
		if err == nil && (path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")) {
			return nil
		}
	}
	return errOutside
}

func whereIs(fd int) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil && !strings.HasPrefix(path, "/") {
		err = errOutside // of every mounted file system
	}
	return path, err
}

// follow opens what the link name in dir, at path in the tree, leads to. Without
// an error and a descriptor the link is to be shown as it is.
func (l *local) follow(dir int, name, path, target string) (int, info, error) {
	v := l.view
	must := v.CopyLinks || v.CopyUnsafeLinks && leavesTree(path, target)
	if !must && !v.CopyDirLinks {
		return -1, info{}, nil
	}
	fd, err := openat(dir, name, unix.O_PATH, 0)
	switch {
	case err != nil && !must:
		return -1, info{}, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return -1, info{}, ErrDangling
	case err != nil:
		return -1, info{}, err
	}
	st, err := statFd(fd)
	if err == nil && !must && !st.isDir() {
		unix.Close(fd)
		return -1, info{}, nil
	}
	if err == nil {
		err = l.mayRead(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, info{}, err
	}
	st.Name = name
	return fd, st, nil
}

// reach opens what the view shows at path, without access to its content, by
// one component at a time. A link that is shown as one has its target.
func (l *local) reach(path string) (_ int, st info, err error) {
	if err := CheckPath(path); err != nil {
		return -1, info{}, err
	}
	at, err := openat(l.root, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		st, err = statFd(at)
	}
	done := ""
	for name := range strings.SplitSeq(path, "/") {
		if err != nil || path == "" {
			break
		}
		done = joinPath(done, name)
		parent := at
		at, st, err = l.step(parent, name, done)
		unix.Close(parent)
	}
	if err != nil {
		if at >= 0 {
			unix.Close(at)
		}
		return -1, info{}, gone(err)
	}
	st.User, st.Group = l.owners.of(st.UID, st.GID)
	return at, st, nil
}

// step is reach for one component.
func (l *local) step(dir int, name, path string) (int, info, error) {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, info{}, err
	}
	st, err := statFd(fd)
	if err == nil && isSymlink(&st.Entry) {
		st.Target, err = readLinkAt(fd, "", make([]byte, maxPath+1))
		if err == nil {
			var to int
			var led info
			if to, led, err = l.follow(dir, name, path, st.Target); to >= 0 {
				unix.Close(fd)
				return to, led, err
			}
		}
	}
	st.Name = name
	if err != nil {
		unix.Close(fd)
		return -1, info{}, err
	}
	return fd, st, nil
}

// openReached opens for reading what reach found.
func openReached(fd int) (int, error) {
	return openat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

// openThrough is open of a source with a view.
func (l *local) openThrough(path string) (info, int, error) {
	held, st, err := l.reach(path)
	if err != nil {
		return info{}, -1, err
	}
	defer unix.Close(held)
	if !isRegular(&st.Entry) {
		return info{}, -1, ErrNotRegular
	}
	fd, err := openReached(held)
	if err != nil {
		return info{}, -1, err
	}
	now, err := statFd(fd)
	if err != nil {
		unix.Close(fd)
		return info{}, -1, err
	}
	now.Name, now.User, now.Group = st.Name, st.User, st.Group
	return now, fd, nil
}
