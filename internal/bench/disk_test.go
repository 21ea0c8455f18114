package bench

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/testenv"
)

// disk is where copies are made: a file system of their own, made anew for each first
// copy, where that can be had, or else a directory. ext4 avoids inodes that were deleted in the last
// minutes and looks at each of them whenever it makes one, so that what was deleted before,
// by whomever, can take more time than a copy.
type disk struct {
	dir string
	fs  *testenv.FileSystem // nil for a directory
}

// newDisk makes one with room for two copies of so many files.
func newDisk(t *testing.T, files int) *disk {
	t.Helper()
	d := &disk{dir: workspace(t)}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil || unix.Geteuid() != 0 {
		return d
	}
	fs, err := testenv.MakeFileSystem(t, d.dir, int64(files)*64<<10+1<<30, "ext4", "-q", "-F",
		"-N", fmt.Sprint(3*files+10_000), "-E", "lazy_itable_init=0,lazy_journal_init=0")
	if err != nil {
		t.Logf("copies are made in a directory: %v", err)
		return d
	}
	d.dir, d.fs = fs.Dir, fs
	return d
}

// renew makes it as new. Nothing may be in use there.
func (d *disk) renew(t *testing.T) {
	t.Helper()
	if d.fs == nil {
		empty(t, d.dir)
		return
	}
	must(t, d.fs.Renew())
}

func (d *disk) String() string {
	if d.fs == nil {
		return "First copies went to a directory of a file system in use; what was deleted there before slows them."
	}
	return "First copies went to an ext4 file system made anew for each repeat."
}

// forget has the kernel drop what it holds in memory of the files below dir, as it is with those
// that nobody has used for long.
func forget(t *testing.T, dir string) {
	t.Helper()
	unix.Sync() // what is not written out stays
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}))
}
