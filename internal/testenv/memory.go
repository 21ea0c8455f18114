package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Room is a file system in memory that is mounted over a directory, whose
// content it has. What it may take can be changed while it is in use.
type Room struct {
	Dir string
	t   testing.TB
}

// LimitRoom puts a file system of size bytes over dir, with what is there.
// Nothing may use dir meanwhile. before is called ahead of the unmounting at the
// end of the test and ends what uses it. It takes root.
func LimitRoom(t testing.TB, dir string, size int64, before func()) *Room {
	t.Helper()
	RequireRoot(t)
	aside := dir + ".aside"
	if err := os.Rename(dir, aside); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(aside)
	if err == nil {
		err = os.Mkdir(dir, info.Mode().Perm())
	}
	if err == nil {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	}
	if err != nil {
		t.Fatalf("mount a file system in memory: %v", err)
	}
	t.Cleanup(func() {
		before()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	if out, err := exec.Command("cp", "-aT", aside, dir).CombinedOutput(); err != nil {
		t.Fatalf("fill %s: %v: %s", dir, err, out)
	}
	if err := os.RemoveAll(aside); err != nil {
		t.Fatal(err)
	}
	return &Room{Dir: filepath.Clean(dir), t: t}
}

// Leave makes the file system as small as leaves n bytes free.
func (r *Room) Leave(n int64) {
	r.t.Helper()
	var st unix.Statfs_t
	err := unix.Statfs(r.Dir, &st)
	if err == nil {
		err = unix.Mount("tmpfs", r.Dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", int64(st.Blocks-st.Bfree)*st.Bsize+n))
	}
	if err != nil {
		r.t.Errorf("leave %d bytes free in %s: %v", n, r.Dir, err)
	}
}
