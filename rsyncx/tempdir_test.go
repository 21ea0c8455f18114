package rsyncx

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

func tempDirIn(t *testing.T, dir string) string {
	t.Helper()
	temp, err := os.MkdirTemp(dir, "temp")
	must(t, err)
	return temp
}

func TestTempDir(t *testing.T) {
	from, to, _ := largeScene(t)
	temp := tempDirIn(t, to+"/..")
	src, dst := open(t, from, to)
	o := resumeOptions()
	o.TempDir = temp
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "synced", snapshot(t, to), snapshot(t, from))
	if names, _ := os.ReadDir(temp); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	o.TempDir = "new" // below the destination
	write(t, from+"/another", strings.Repeat("x", 900_000))
	_, err = Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "and more", rootless(snapshot(t, to)), rootless(snapshot(t, from)))
	o.TempDir = temp + "/none"
	if _, err := Sync(t.Context(), src, dst, o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

// TestTempDirOnAnotherFileSystem: what is half there when the line is cut is
// kept for the next time, and a full one ends the run before anything changes.
func TestTempDirOnAnotherFileSystem(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.Require(t, "mount")
	from, to, _ := largeScene(t)
	temp := tempDirIn(t, to+"/..")
	mount(t, "-t", "tmpfs", "-o", "size=800k", "none", temp)
	o := resumeOptions()
	o.TempDir = temp
	first := interrupted(t, from, to, o, 500_000, false)
	src, stats := resumed(t, from, to, o, false)
	if stats.Reused < 400_000 || first.given+src.given > 1_900_000 {
		t.Errorf("%d bytes were read again, %+v", src.given, stats)
	}

	write(t, from+"/too-long", strings.Repeat("x", 900_000))
	before := snapshot(t, to)
	local, dst := open(t, from, to)
	if _, err := Sync(t.Context(), local, dst, o); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full directory: %v", err)
	}
	sameTree(t, "full", rootless(snapshot(t, to)), rootless(before))
}
