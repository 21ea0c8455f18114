package rsyncx

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/drsync/drsync/internal/hint"
	"golang.org/x/sys/unix"
)

// Root is a destination directory. Everything this package writes goes through
// one, relative to held descriptors, one name at a time, following no symbolic
// link. Its methods are for one goroutine at a time.
type Root struct {
	path   string
	fd     int
	locked bool
	device uint64

	refused refusals

	// fault, in tests, stands for a crash before a system call that changes something.
	fault func(call string) error
	// long, in tests, stands for longDir.
	long int
	// share, in tests, stands for a file system where files can share blocks.
	share func(to, from int) error
}

// OpenRoot opens the existing directory path as a destination. path itself may
// be or pass through a symbolic link; below it none is followed.
func OpenRoot(path string) (*Root, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the destination %s: %w", path, err)
	}
	st, err := statFd(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open the destination %s: %w", path, err)
	}
	return &Root{path: path, fd: fd, device: st.Dev}, nil
}

// Path returns the path that the Root was opened by.
func (r *Root) Path() string { return r.path }

// Close releases the directory and the lock that Stage or OpenStaged took on it.
func (r *Root) Close() error {
	if r.fd < 0 {
		return nil
	}
	fd := r.fd
	r.fd = -1
	if r.locked { // a child that is just being started may hold the descriptor a moment longer
		_ = unix.Flock(fd, unix.LOCK_UN)
	}
	return unix.Close(fd)
}

// ErrBusy says that another process stages into the same destination.
var ErrBusy = errors.New("another drsync works on this directory")

// lock keeps other processes from staging into the same directory until Close.
func (r *Root) lock() error {
	if r.locked {
		return nil
	}
	err := retry(func() error { return unix.Flock(r.fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", r.path, ErrBusy)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", r.path, err)
	}
	r.locked = true
	return nil
}

// do runs a system call that changes something.
func (r *Root) do(call string, f func() error) error {
	if r.fault != nil {
		if err := r.fault(call); err != nil {
			return err
		}
	}
	return retry(f)
}

func (r *Root) mkdir(dir int, name string, mode uint32) error {
	return r.do("mkdir", func() error { return unix.Mkdirat(dir, name, mode) })
}

func (r *Root) unlink(dir int, name string) error {
	return r.do("unlink", func() error { return unix.Unlinkat(dir, name, 0) })
}

func (r *Root) rmdir(dir int, name string) error {
	return r.do("rmdir", func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
}

func (r *Root) rename(from int, fromName string, to int, toName string) error {
	return r.do("rename", func() error { return unix.Renameat(from, fromName, to, toName) })
}

// renameNew is rename to a name that must be free.
func (r *Root) renameNew(from int, fromName string, to int, toName string) error {
	return r.do("rename", func() error {
		err := unix.Renameat2(from, fromName, to, toName, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system that cannot promise it
			if _, err := statAt(to, toName); !errors.Is(err, fs.ErrNotExist) {
				return cmp.Or(err, error(unix.EEXIST))
			}
			err = unix.Renameat(from, fromName, to, toName)
		}
		return err
	})
}

// create makes a new file of ours for writing.
func (r *Root) create(dir int, name string, mode uint32) (fd int, err error) {
	err = r.do("create", func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// createFile is create of a file that nobody else may open.
func (r *Root) createFile(dir int, name string) (*os.File, error) {
	fd, err := r.create(dir, name, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// free returns the bytes that may still be written.
func (r *Root) free() (int64, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(r.fd, &st) }); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", r.path, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

func (r *Root) syncFS() error {
	if err := r.do("syncfs", func() error { return unix.Syncfs(r.fd) }); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", r.path, err)
	}
	return nil
}

// openState opens drsync's own directory, made if absent when make is set.
// Whoever can write into it could make us publish what they like, so it must be
// ours alone; the destination itself may well belong to somebody else.
func (r *Root) openState(make bool) (state, stage int, err error) {
	if make {
		if err := r.makeState(); err != nil {
			return -1, -1, err
		}
	}
	if state, err = r.openPrivate(r.fd, stateDir); err != nil {
		return -1, -1, err
	}
	if make {
		if err := r.mkdir(state, stageDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			unix.Close(state)
			return -1, -1, fmt.Errorf("make %s/%s in %s: %w", stateDir, stageDir, r.path, err)
		}
	}
	if stage, err = r.openPrivate(state, stageDir); err != nil {
		unix.Close(state)
		return -1, -1, err
	}
	return state, stage, nil
}

// makeState leaves the modification time of the root as it was: staging shows nowhere.
func (r *Root) makeState() error {
	before, err := statFd(r.fd)
	if err == nil {
		err = r.mkdir(r.fd, stateDir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = r.disinherit(stateDir)
	}
	if err == nil {
		err = r.setTime(r.fd, before.Mtime)
	}
	if err != nil {
		return fmt.Errorf("make %s in %s: %w", stateDir, r.path, err)
	}
	return nil
}

// disinherit takes from a new directory of ours what the default access control
// list of the root has given it: that may shut us out, or let others in.
func (r *Root) disinherit(name string) error {
	fd, err := openat(r.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	if _, err := unix.Getxattr(path, aclDefault, nil); err != nil {
		return nil // the usual case: there is none, or none is possible
	}
	for _, acl := range []string{aclDefault, aclAccess} {
		err := r.do("removexattr", func() error { return unix.Removexattr(path, acl) })
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	return r.setMode(fd, 0o700)
}

// dropState removes drsync's own directory if nothing is left in it.
func (r *Root) dropState() error {
	before, err := statFd(r.fd)
	if err == nil {
		err = r.rmdir(r.fd, stateDir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EBUSY):
		return nil
	case err == nil:
		err = r.setTime(r.fd, before.Mtime)
	}
	if err != nil {
		return fmt.Errorf("remove %s from %s: %w", stateDir, r.path, err)
	}
	return nil
}

func (r *Root) openPrivate(dir int, name string) (int, error) {
	fd, err := openDir(dir, name)
	if err != nil {
		return -1, fmt.Errorf("open %s in %s: %w", name, r.path, err)
	}
	st, err := statFd(fd)
	if err == nil && (int(st.UID) != os.Geteuid() || st.Mode&0o022 != 0) {
		err = hint.New(fmt.Sprintf("%s below %s belongs to user %d with mode %04o: others could write into it", name, r.path, st.UID, st.Mode&0o7777),
			"remove it if it is not in use; drsync makes its own")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// removeAll removes name in dir with all that is in it.
func (r *Root) removeAll(dir int, name string) error {
	err := r.unlink(dir, name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	if os.Geteuid() != 0 {
		if err := r.unlock(dir, name); err != nil {
			return err
		}
	}
	fd, err := openDir(dir, name)
	if err != nil {
		return err
	}
	err = r.empty(fd)
	unix.Close(fd)
	if err != nil {
		return err
	}
	return r.rmdir(dir, name)
}

// unlock lets us into a directory of ours that has its final mode already.
func (r *Root) unlock(dir int, name string) error {
	fd, err := openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	st, err := statFd(fd)
	if err != nil || st.Mode&0o700 == 0o700 {
		return err
	}
	return r.setMode(fd, 0o700)
}

// empty removes all that is in the directory open at fd.
func (r *Root) empty(fd int) error {
	list, err := openDir(fd, ".")
	if err != nil {
		return err
	}
	names, err := readNames(list, make([]byte, 64<<10))
	unix.Close(list)
	for _, name := range names {
		if err := r.removeAll(fd, name); err != nil {
			return err
		}
	}
	return err
}
