package rsyncx

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// TestShutDirectory: a directory of the destination that belongs to somebody else
// costs what would have changed in it, and nothing else.
func TestShutDirectory(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Chmod(dir, 0o777))
	from, to := dir+"/from", dir+"/to"
	for _, path := range []string{"ro/f", "ro/new/g", "ok/f", "z"} {
		write(t, filepath.Join(from, path), "new content")
	}
	for _, path := range []string{"ro/f", "ro/extra", "ok/f"} {
		write(t, filepath.Join(to, path), "old")
	}
	for _, path := range []string{to, to + "/ok", to + "/ok/f"} {
		must(t, os.Chown(path, 65534, 65534))
	}
	asNobody(t, func() {
		src, dst := open(t, from, to)
		defer dst.Close()
		o := sceneOptions()
		o.Owner, o.Group = false, false
		stats, err := Sync(t.Context(), src, dst, o)
		if err != nil || stats.Left != 4 { // f, new, extra, and the time of ro
			t.Errorf("%v: %+v", err, stats)
		}
	})
	for path, want := range map[string]string{"ro/f": "old", "ro/extra": "old", "ok/f": "new content", "z": "new content"} {
		if got, err := os.ReadFile(filepath.Join(to, path)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
}

// TestLockedOut: a directory of our own whose mode keeps us out is looked into
// all the same, as rsync does, and has the source's mode in the end.
func TestLockedOut(t *testing.T) {
	for _, mode := range []os.FileMode{0, 0o100, 0o400, 0o200} {
		dir := tempDir(t)
		must(t, os.Chmod(dir, 0o777))
		from, to := dir+"/from", dir+"/to"
		write(t, from+"/priv/f", "new")
		must(t, os.Chmod(from+"/priv", 0o755))
		asNobody(t, func() {
			write(t, to+"/priv/f", "old one")
			write(t, to+"/priv/extra", "x")
			write(t, to+"/gone/x", "x")
			must(t, os.Chmod(to+"/priv", mode))
			must(t, os.Chmod(to+"/gone", mode))
			src, dst := open(t, from, to)
			defer dst.Close()
			o := sceneOptions()
			o.Owner, o.Group = false, false
			staged, err := Stage(t.Context(), src, dst, o)
			must(t, err)
			if info, err := os.Stat(to + "/priv"); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%04o: Stage left %v, %v", mode, info.Mode(), err)
			}
			must(t, staged.Publish(t.Context()))
			if left := staged.Stats().Left; left != 0 {
				t.Errorf("%04o: %d left", mode, left)
			}
			content, err := os.ReadFile(to + "/priv/f")
			info, _ := os.Stat(to + "/priv")
			if err != nil || string(content) != "new" || info.Mode().Perm() != 0o755 {
				t.Errorf("%04o: %q, %v, %v: %+v", mode, content, info.Mode(), err, staged.Stats())
			}
			for _, name := range []string{"/priv/extra", "/gone"} {
				if _, err := os.Lstat(to + name); !os.IsNotExist(err) {
					t.Errorf("%04o: %s: %v", mode, name, err)
				}
			}
		})
	}
}

// TestImmutable: what can neither be replaced nor removed is counted and told,
// also when its backup cannot be made, and does not stand in the way of the next run.
func TestImmutable(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.Require(t, "chattr")
	for name, backup := range map[string]bool{"plain": false, "backup": true, "append only": false} {
		t.Run(name, func(t *testing.T) {
			letter := "i"
			if name == "append only" {
				letter = "a"
			}
			dir := tempDir(t)
			from, to := dir+"/from", dir+"/to"
			write(t, from+"/c", "new content")
			write(t, from+"/d", "new content")
			for _, path := range []string{"/c", "/d", "/k"} {
				write(t, to+path, "old")
			}
			hold := func(flag string) {
				if out, err := exec.Command("chattr", flag, to+"/c", to+"/k").CombinedOutput(); err != nil {
					t.Fatalf("chattr: %v: %s", err, out)
				}
			}
			hold("+" + letter)
			t.Cleanup(func() { hold("-" + letter) })
			src, dst := open(t, from, to)
			o := sceneOptions()
			o.Backup = backup
			if backup {
				o.BackupDir = "../old"
			}
			var said eventLog
			o.Event = said.add
			stats, err := Sync(t.Context(), src, dst, o)
			if err != nil || stats.Left != 2 || stats.Transferred != 1 {
				t.Errorf("%v: %+v", err, stats)
			}
			if !slices.ContainsFunc(said.other, func(e event.Event) bool {
				return e.Kind == event.Warning && e.Name == "c" && e.Text == "left as it was: operation not permitted"
			}) {
				t.Errorf("said %v", said.other)
			}
			for path, want := range map[string]string{"/c": "old", "/k": "old", "/d": "new content"} {
				if got, err := os.ReadFile(to + path); err != nil || string(got) != want {
					t.Errorf("%s is %q, %v; want %q", path, got, err, want)
				}
			}
			write(t, from+"/e", "later")
			if _, err := Sync(t.Context(), src, dst, o); err != nil {
				t.Errorf("the next run: %v", err)
			}
			if _, err := os.Lstat(to + "/e"); err != nil {
				t.Error(err)
			}
			if _, err := unix.Getxattr(to+"/c", "user.none", nil); err != unix.ENODATA && !strings.Contains(err.Error(), "supported") {
				t.Error(err)
			}
		})
	}
}
