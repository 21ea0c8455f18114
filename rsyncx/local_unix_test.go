package rsyncx

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

func TestLocalTellsTornFiles(t *testing.T) {
	dir := tempDir(t)
	for name, change := range map[string]func(path string) error{
		"grows": func(path string) error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("more")
				f.Close()
			}
			return err
		},
		"shrinks":      func(path string) error { return os.Truncate(path, 2) },
		"is rewritten": func(path string) error { return os.WriteFile(path, []byte("CONTENT"), 0o644) },
		"is touched":   func(path string) error { setMtime(t, path, 5); return nil },
	} {
		write(t, dir+"/f", "content")
		setMtime(t, dir+"/f", 1000)
		src, dst := open(t, dir, dir)
		dst.Close()
		for f, err := range src.Read(t.Context(), Wants(slices.Values([]string{"f"}))) {
			must(t, errors.Join(err, f.Err))
			b := make([]byte, 3)
			_, err := io.ReadFull(f.Body, b)
			must(t, err)
			must(t, change(dir+"/f"))
			rest, err := io.ReadAll(f.Body)
			if !errors.Is(err, ErrTorn) {
				t.Errorf("a file that %s gave %q and %v, want ErrTorn", name, rest, err)
			}
			if len(rest) > 4 {
				t.Errorf("a file that %s gave %d bytes more than its length", name, len(rest)-4)
			}
		}
	}
}

func TestLocalReportsUnreadable(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Chmod(dir, 0o755))
	write(t, dir+"/a/locked/f", "f")
	write(t, dir+"/a/secret", "s")
	write(t, dir+"/b/f", "f")
	must(t, os.Chmod(dir+"/a/locked", 0))
	must(t, os.Chmod(dir+"/a/secret", 0))
	asNobody(t, func() {
		src, dst := open(t, dir, dir)
		defer dst.Close()
		var unread, dirs []string
		for d, err := range src.Walk(t.Context(), WalkOptions{}) {
			var one *PathError
			switch {
			case errors.As(err, &one):
				unread = append(unread, one.Path)
			case err != nil:
				t.Error(err)
			default:
				dirs = append(dirs, d.Path)
			}
		}
		if !slices.Equal(unread, []string{"a/locked"}) || !slices.Equal(dirs, []string{"", "a", "b"}) {
			t.Errorf("could not read %q, listed %q", unread, dirs)
		}
		for f, err := range src.Read(t.Context(), Wants(slices.Values([]string{"a/secret", "b/f"}))) {
			if err != nil || (f.Err != nil) != (f.Path == "a/secret") || f.Err != nil && !errors.Is(f.Err, fs.ErrPermission) {
				t.Errorf("%s: %v, %v", f.Path, f.Err, err)
			}
		}
	})
}

func TestLocalStaysOnOneFileSystem(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.Require(t, "mount")
	dir := tempDir(t)
	mkdirs(t, dir+"/mnt", dir+"/z")
	mount(t, "-t", "tmpfs", "none", dir+"/mnt")
	write(t, dir+"/mnt/f", "f")
	src, dst := open(t, dir, dir)
	dst.Close()
	for _, one := range []bool{false, true} {
		var dirs []string
		for d, err := range src.Walk(t.Context(), WalkOptions{OneFileSystem: one}) {
			must(t, err)
			dirs = append(dirs, d.Path)
		}
		if slices.Contains(dirs, "mnt") == one || !slices.Contains(dirs, "z") {
			t.Errorf("one file system %v: walked %q", one, dirs)
		}
	}
	for o, want := range map[*WalkOptions]string{
		{OneFileSystem: true}:                    "/: mnt z /z:",
		{OneFileSystem: true, OmitMounts: true}:  "/: z /z:",
		{OneFileSystem: false, OmitMounts: true}: "/: mnt z /mnt: f /z:",
	} {
		if got := strings.Join(walked(t, src, *o), " "); got != want {
			t.Errorf("%+v: walked %s, want %s", *o, got, want)
		}
	}
	// A mount point of the source that is not listed is one name less at the destination.
	mkdirs(t, dir+"-to/mnt")
	t.Cleanup(func() { os.RemoveAll(dir + "-to") })
	to, err := OpenRoot(dir + "-to")
	must(t, err)
	defer to.Close()
	for _, omit := range []bool{false, true} {
		_, err := Sync(t.Context(), src, to, Options{OneFileSystem: true, OmitMounts: omit, Delete: true})
		must(t, err)
		if _, err := os.Lstat(dir + "-to/mnt"); (err != nil) != omit {
			t.Errorf("mount points omitted %v: %v", omit, err)
		}
	}
}

func TestLocalRoot(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/real/f", "f")
	must(t, os.Symlink("real", dir+"/link"))
	src, err := Local(dir + "/link")
	must(t, err)
	defer src.Close()
	if content, err := ReadFile(t.Context(), src, "f", 10); err != nil || string(content) != "f" {
		t.Errorf("through a linked root: %q, %v", content, err)
	}
	if _, err := Local(dir + "/missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing root: %v", err)
	}
	if _, err := Local(dir + "/real/f"); err == nil {
		t.Error("a file as root was opened")
	}
}
