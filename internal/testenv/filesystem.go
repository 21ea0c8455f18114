package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FileSystem is a small file system of its own, in a file in memory
// where that is possible, otherwise below the test's temporary directory. It is unmounted when the test ends.
type FileSystem struct {
	Dir   string // where it is mounted
	Image string // the file that holds it
	t     testing.TB
	up    bool
	size  int64
	mkfs  []string
}

// fileSystemSize is what the programs that make them accept at least, with some room, in bytes.
const fileSystemSize = 400 << 20

// NewFileSystem makes and mounts one of the given kind, such as xfs or btrfs. It
// takes root, and what Require says of a program that is missing holds here for
// a kernel that cannot mount it.
func NewFileSystem(t testing.TB, kind string, options ...string) *FileSystem {
	t.Helper()
	RequireRoot(t)
	Require(t, "mkfs."+kind, "mount", "umount")
	dir, err := os.MkdirTemp("/dev/shm", "drs") // a disk would be waited for at every sync
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fs, err := MakeFileSystem(t, dir, fileSystemSize, kind, options...)
	if err != nil {
		if os.Getenv("CI") != "" || os.Getenv("DRSYNC_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return fs
}

// MakeFileSystem makes and mounts one of size bytes, of which a disk holds what is written, in an
// existing directory.
func MakeFileSystem(t testing.TB, dir string, size int64, kind string, options ...string) (*FileSystem, error) {
	t.Helper()
	fs := &FileSystem{Dir: filepath.Join(dir, "mounted"), Image: filepath.Join(dir, "image"), t: t, size: size}
	fs.mkfs = append(append([]string{"mkfs." + kind}, options...), fs.Image)
	t.Cleanup(fs.Unmount)
	return fs, errors.Join(os.Mkdir(fs.Dir, 0o755), fs.Renew())
}

// Renew makes it anew, with nothing in it.
func (fs *FileSystem) Renew() error {
	fs.t.Helper()
	fs.Unmount()
	if err := errors.Join(os.WriteFile(fs.Image, nil, 0o600), os.Truncate(fs.Image, fs.size)); err != nil {
		return err
	}
	if out, err := exec.Command(fs.mkfs[0], fs.mkfs[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(fs.mkfs, " "), err, out)
	}
	if out, err := fs.mount(); err != nil {
		return fmt.Errorf("mount what %s made: %w: %s", fs.mkfs[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (fs *FileSystem) mount() ([]byte, error) {
	out, err := exec.Command("mount", "-o", "loop", fs.Image, fs.Dir).CombinedOutput()
	fs.up = err == nil
	return out, err
}

// Mount mounts it again.
func (fs *FileSystem) Mount() {
	fs.t.Helper()
	if out, err := fs.mount(); err != nil {
		fs.t.Fatalf("mount %s: %v: %s", fs.Image, err, out)
	}
}

// Unmount takes it away, and everything that was written is in Image then.
func (fs *FileSystem) Unmount() {
	fs.t.Helper()
	if !fs.up {
		return
	}
	fs.up = false
	if out, err := exec.Command("umount", fs.Dir).CombinedOutput(); err != nil {
		fs.t.Errorf("unmount %s: %v: %s", fs.Dir, err, out)
		_ = unix.Unmount(fs.Dir, unix.MNT_DETACH) // what uses it keeps it no longer than that
	}
}

// LeaveFree fills it until about n bytes can still be written, and returns what
// makes room again.
func (fs *FileSystem) LeaveFree(n int64) (undo func()) {
	fs.t.Helper()
	name := filepath.Join(fs.Dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		fs.t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil { // what is written later would take room that seems free
		fs.t.Fatal(err)
	}
	off := int64(0)
	for piece := int64(64 << 20); piece >= 16<<10; {
		var st unix.Statfs_t
		if err := unix.Statfs(fs.Dir, &st); err != nil {
			fs.t.Fatal(err)
		}
		left := int64(st.Bavail) * st.Bsize
		if left-piece < n || unix.Fallocate(int(f.Fd()), 0, off, piece) != nil {
			piece /= 2
			continue
		}
		off += piece
	}
	return func() {
		if err := os.Remove(name); err != nil {
			fs.t.Error(err)
		}
	}
}
