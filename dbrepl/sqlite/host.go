package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
)

// dressLike gives a staged file the owner and mode of the visible database,
// or, before the first publish, what its directory suggests.
func (e *Engine) dressLike(path string) error {
	uid, gid, mode, err := e.attributes()
	if err != nil {
		return err
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return hint.With(fmt.Errorf("give the database its owner: %w", err),
			"run drsync as root or as the account that owns "+e.f.live)
	}
	return os.Chmod(path, mode)
}

func (e *Engine) attributes() (uid, gid int, mode fs.FileMode, err error) {
	fi, err := os.Lstat(e.f.live)
	if errors.Is(err, fs.ErrNotExist) {
		if fi, err = os.Stat(e.f.dir); err == nil {
			mode = fi.Mode().Perm()&0o660 | 0o600
		}
	} else if err == nil {
		mode = fi.Mode().Perm()
	}
	if err != nil {
		return 0, 0, 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, 0, fmt.Errorf("%s: no owner", fi.Name())
	}
	return int(st.Uid), int(st.Gid), mode, nil
}

// refuseInUse fails when any process has the visible database open for
// writing. The kernel tells by granting or refusing a read lease, which is given
// back at once; where it grants none for other reasons (file systems without
// leases, files of other owners), the locks that settle takes must do.
func (e *Engine) refuseInUse() error {
	f, err := os.Open(e.f.live)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return inUse(e.f.live, nil)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return err
	}
	return nil
}

// ErrInUse is wrapped by errors about a standby's database that another process has open for writing.
var ErrInUse = errors.New("another process has the database open for writing")

func inUse(path string, cause error) error {
	err := fmt.Errorf("%s: %w", path, ErrInUse)
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return hint.With(err, "stop the application on this host: a standby's database is replaced as a whole")
}

// enoughSpace refuses a database that would fill the file system.
func (e *Engine) enoughSpace(need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(e.f.dir, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return hint.With(fmt.Errorf("the database has %d bytes, %s has room for %d", need, e.f.dir, free),
			"the standby keeps the visible database, the one before it and the captured one")
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

func pageSizeOf(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return pageSize(f)
}

// refuseLog refuses a database that says that it is used with a write-ahead log:
// whoever only reads it would make one beside it.
func refuseLog(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var versions [2]byte // for writing and for reading
	if _, err := f.ReadAt(versions[:], 18); err != nil {
		return noEOF(err)
	}
	if versions != [2]byte{1, 1} {
		return fmt.Errorf("it is of format %d and %d, a copy is of 1", versions[0], versions[1])
	}
	return nil
}
