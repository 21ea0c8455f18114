package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/blob"
)

// begin is what every method of a Dir checks first.
func (d *Dir) begin(ctx context.Context, sum blob.Sum) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if !sum.Valid() {
		return malformed(sum)
	}
	if d.root < 0 {
		return d.wrap("look up", sum, fs.ErrNotExist)
	}
	return nil
}

func (d *Dir) beginWrite(ctx context.Context, sum blob.Sum) error {
	if d.readOnly {
		return fmt.Errorf("%s: %w", d.path, ErrReadOnly)
	}
	return d.begin(ctx, sum)
}

// malformed is the error for a name that must never become a path.
func malformed(sum blob.Sum) error {
	if len(sum) > 64 {
		return fmt.Errorf("a name of %d bytes is no blob name", len(sum))
	}
	return fmt.Errorf("%q is no blob name", string(sum))
}

// wrap says what was being done with which blob; what does not exist becomes ErrNotFound.
func (d *Dir) wrap(doing string, sum blob.Sum, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	return fmt.Errorf("%s %s in %s: %w", doing, sum, d.path, err)
}

// openPrefix opens the directory ab below root; it may not be a symbolic link.
func (d *Dir) openPrefix(root int, sum blob.Sum) (int, error) {
	for {
		fd, err := unix.Openat(root, string(sum[:2]), dirFlags, 0)
		if err == unix.EINTR {
			continue
		}
		return fd, notADirectory(err)
	}
}

// makePrefix opens the directory ab below root and creates it if need be.
func (d *Dir) makePrefix(root int, sum blob.Sum) (int, error) {
	return d.makeDir(root, string(sum[:2]))
}

// makeDir opens the directory name below parent. One that it creates gets the
// store's owner and mode.
func (d *Dir) makeDir(parent int, name string) (int, error) {
	fd, err := unix.Openat(parent, name, dirFlags, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return fd, notADirectory(err)
	}
	err = unix.Mkdirat(parent, name, d.own.dirMode&0o777|0o700)
	created := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return -1, fmt.Errorf("create directory %s: %w", name, err)
	}
	if fd, err = unix.Openat(parent, name, dirFlags, 0); err != nil {
		return -1, notADirectory(err)
	}
	if created {
		if err := d.own.give(fd, d.own.dirMode); err != nil {
			return -1, errors.Join(fmt.Errorf("create directory %s: %w", name, err), unix.Close(fd))
		}
	}
	return fd, nil
}

// give sets owner and mode of an open file; the owner first, since changing it
// takes set-id bits away.
func (o ownership) give(fd int, mode uint32) error {
	if o.chown {
		if err := unix.Fchown(fd, o.uid, o.gid); err != nil {
			return fmt.Errorf("give to user %d, group %d: %w", o.uid, o.gid, err)
		}
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("set mode %#o: %w", mode, err)
	}
	return nil
}

// openIn opens a blob below root, which must be a regular file.
func (d *Dir) openIn(root int, sum blob.Sum) (*os.File, error) {
	dir, err := d.openPrefix(root, sum)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, string(sum), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
			return nil, fmt.Errorf("%w: something that is no regular file has its name", ErrNotFound)
		}
		return nil, err
	}
	f := os.NewFile(uintptr(fd), d.path+"/"+Fanned(sum))
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		if err == nil {
			err = fmt.Errorf("%w: something that is no regular file has its name", ErrNotFound)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// statBlob describes name in dir. What is no regular file is no blob.
func statBlob(dir int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			err = fmt.Errorf("%w: something that is no regular file has its name", ErrNotFound)
		}
		return st, err
	}
}

func (d *Dir) deleteIn(root int, sum blob.Sum) error {
	dir, err := d.openPrefix(root, sum)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if _, err := statBlob(dir, string(sum)); err != nil {
		return err
	}
	return unix.Unlinkat(dir, string(sum), 0)
}

// readNames lists the directory dir, which stays open.
func readNames(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", dirFlags, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

// notADirectory says in plain words what O_DIRECTORY|O_NOFOLLOW refuses.
func notADirectory(err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("not a directory, or a symbolic link: %w", err)
	}
	return err
}

// isPrefixName reports whether name is one of the 256 directories of blobs.
func isPrefixName(name string) bool {
	return len(name) == 2 && blob.Sum(name+"00000000000000000000000000000000000000").Valid()
}

// makeLikeParent creates path and its missing parents with the mode and, as
// root, the owner of the nearest one that exists.
func makeLikeParent(path string) error {
	var missing []string
	parent := filepath.Clean(path)
	var st unix.Stat_t
	for {
		err := unix.Stat(parent, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || parent == filepath.Dir(parent) {
			return err
		}
		missing = append(missing, parent)
		parent = filepath.Dir(parent)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o700); err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			if err := os.Lchown(missing[i], int(st.Uid), int(st.Gid)); err != nil {
				return err
			}
		}
		if err := unix.Chmod(missing[i], st.Mode&0o7777&^0o1000); err != nil {
			return err
		}
	}
	return nil
}
