package rsyncx

import (
	"errors"
	"maps"
	"path/filepath"
	"testing"
)

// TestBackupAfterCrash stops Publish before every system call that changes something
// and publishes again: the backups hold the old content, the names the new.
func TestBackupAfterCrash(t *testing.T) {
	for name, o := range map[string]Options{
		"beside":   {Backup: true, Delete: true, Links: true},
		"excluded": {Backup: true, Delete: true, DeleteExcluded: true, Links: true}, // earlier backups go, those of this run stay
		"below":    {BackupDir: ".bak", Delete: true, Links: true},
		"in place": {Backup: true, Inplace: true, Delete: true, Links: true, Times: true},
		"outside":  {BackupDir: "../bak", Delete: true, Links: true},
	} {
		t.Run(name, func(t *testing.T) {
			whole := -1
			for stop := 0; whole < 0 || stop <= whole; stop++ {
				dir := tempDir(t)
				from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
				for path, content := range map[string]string{"from/a": "new", "to/a": "old a", "from/d/b": "new", "to/d/b": "old b", "to/gone": "old", "to/d/gone": "old", "to/a~": "older", "to/d/z~": "older"} {
					write(t, filepath.Join(dir, path), content)
				}
				crashes(t, from, to, o, stop, &whole)
				tail, below := "", ""
				switch name {
				case "beside", "in place", "excluded":
					tail, below = "~", "to/"
				case "below":
					below = "to/.bak/"
				default:
					below = "bak/"
				}
				got := snapshot(t, dir)
				for path, content := range map[string]string{"to/a": `"new"`, "to/d/b": `"new"`, below + "a" + tail: `"old a"`, below + "d/b" + tail: `"old b"`,
					below + "gone" + tail: `"old"`, below + "d/gone" + tail: `"old"`} {
					if text := got[path]; len(text) < len(content) || text[len(text)-len(content):] != content {
						t.Fatalf("stopped before call %d, %s is %q, want %s; of %v", stop, path, text, content, maps.Clone(got))
					}
				}
			}
		})
	}
}

// crashes publishes, stopped before the call with the number stop, and then again.
// Without a stop it sets whole to how many calls there were.
func crashes(t *testing.T, from, to string, o Options, stop int, whole *int) {
	t.Helper()
	src, dst := open(t, from, to)
	staged, err := Stage(t.Context(), src, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := staged.Sync(); err != nil {
		t.Fatal(err)
	}
	calls, crash := 0, errors.New("crash")
	dst.fault = func(string) error {
		if calls++; stop > 0 && calls == stop {
			return crash
		}
		return nil
	}
	err = staged.Publish(t.Context())
	dst.fault = nil
	if stop == 0 {
		*whole = calls
	}
	if stop == 0 && err != nil {
		t.Fatal(err)
	}
	if err == nil {
		return
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	left, err := OpenStaged(again)
	if err != nil {
		return // all was done but the sweeping up
	}
	if err := left.Publish(t.Context()); err != nil {
		t.Fatalf("again, after call %d: %v", stop, err)
	}
}
