package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/testenv"
)

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func want(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != content {
		t.Fatalf("%s holds %.20q (%d bytes), %v", path, data, len(data), err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode() != mode {
		t.Fatalf("%s has mode %v, %v", path, fi.Mode(), err)
	}
	if all := names(t, filepath.Dir(path)); len(all) != 1 {
		t.Fatalf("left: %q", all)
	}
}

func TestWriteFile(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // the mode does not depend on it
	path := filepath.Join(t.TempDir(), "file")
	for content, mode := range map[string]fs.FileMode{"one": 0o644, "": 0o600, "three": 0o640} {
		if err := WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		want(t, path, content, mode)
	}
}

func TestWriteFileThatFailsChangesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "none", "file"), nil, 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	// The rename fails: a directory is in the way.
	if err := os.MkdirAll(filepath.Join(dir, "file", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err == nil {
		t.Fatal("no error")
	}
	if all := names(t, dir); len(all) != 1 {
		t.Fatalf("left: %q", all)
	}
}

// A full disk, at every size: the old content stays whole and nothing else is left.
func TestWriteFileOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The limit of a process's file size stands in for the disk; it is set in a process of its own.
	cmd := exec.Command(self, "-test.run=^TestWriteFileLimited$")
	cmd.Env = append(os.Environ(), "DRSYNC_TEST_LIMITED="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want(t, path, "old", 0o644)
}

func TestWriteFileLimited(t *testing.T) {
	path := os.Getenv("DRSYNC_TEST_LIMITED")
	if path == "" {
		return // only the process that the test above starts has something to do
	}
	for limit := range uint64(40) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}); err != nil {
			t.Fatal(err)
		}
		err := WriteFile(path, bytes.Repeat([]byte("n"), 40), 0o644)
		if err == nil {
			t.Fatalf("limit %d: no error", limit)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
			t.Fatalf("limit %d: %q %v", limit, data, err)
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}); err != nil {
		t.Fatal(err)
	}
}

// A directory in which nothing may be made, for an account that is not root.
func TestWriteFileInAFrozenDirectory(t *testing.T) {
	testenv.RequireRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|unix.STATX_ATTR_IMMUTABLE)
	}
	if err != nil {
		t.Logf("the file system has no immutable directories (%v); the other tests fail the write and the rename", err)
		return
	}
	defer unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	if err := WriteFile(path, []byte("new"), 0o644); !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	if err := Rename(path, filepath.Join(dir, "other")); !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	if err := Remove(path); !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	want(t, path, "old", 0o644)
}

// Whoever reads while it is replaced sees one content or the other, never a part.
func TestReadersNeverSeeAHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	a, b := bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)
	if err := WriteFile(path, a, 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		var err error
		for i := 0; i < 30 && err == nil; i++ {
			err = WriteFile(path, [][]byte{a, b}[i%2], 0o644)
		}
		done <- err
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(data, a) && !bytes.Equal(data, b) {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
	}
}

func TestRenameAndRemove(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	from, to := filepath.Join(one, "x"), filepath.Join(two, "y")
	if err := WriteFile(from, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Rename(from, to); err != nil {
		t.Fatal(err)
	}
	want(t, to, "x", 0o644)
	if err := Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for range 2 { // absent is as good as removed
		if err := Remove(to); err != nil {
			t.Fatal(err)
		}
		if all := names(t, two); len(all) != 0 {
			t.Fatal(all)
		}
	}
	if err := os.MkdirAll(filepath.Join(two, "full", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Remove(filepath.Join(two, "full")); err == nil {
		t.Fatal("no error")
	}
	missing := filepath.Join(two, "none")
	for _, err := range []error{SyncDir(missing), SyncFS(missing), Remove(filepath.Join(missing, "x"))} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	if err := errors.Join(SyncDir(two), SyncFS(two)); err != nil {
		t.Fatal(err)
	}
}
