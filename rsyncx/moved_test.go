package rsyncx

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// movedTree makes a source where names have changed since the destination was
// made. All files have times of their own.
func movedTree(t *testing.T) (dir string, src *meter, dst *Root) {
	t.Helper()
	old, fresh := map[string][]byte{}, map[string][]byte{}
	for i := range 20 {
		data := noise(byte(i), 1000+i*2000)
		old[fmt.Sprintf("dir/sub/f%02d", i)] = data
		fresh[fmt.Sprintf("elsewhere/sub/f%02d", i)] = data
	}
	data := noise(99, 50_000)
	old["one"], fresh["deep/er/two"] = data, data
	old["copied"], fresh["copied"], fresh["copy"] = data[:30_000], data[:30_000], data[:30_000]
	old["same size and time"], fresh["but not content"] = noise(1, 40_000), noise(2, 40_000)
	old["mode"], fresh["other mode"] = data[:20_001], data[:20_001]
	dir, src, dst = pair(t, old, fresh)
	when := map[int]int64{}
	for _, root := range []string{"from", "to", "to2"} {
		must(t, filepath.WalkDir(filepath.Join(dir, root), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			st, err := d.Info()
			must(t, err)
			size := int(st.Size())
			if when[size] == 0 {
				when[size] = 1_000_000_000 + int64(len(when))
			}
			setMtime(t, path, when[size])
			return nil
		}))
		for _, d := range []string{"deep/er", "deep", "dir/sub", "dir", "elsewhere/sub", "elsewhere", "."} {
			if path := filepath.Join(dir, root, d); exists(path) {
				setMtime(t, path, 1_000_000)
			}
		}
	}
	must(t, os.Chmod(dir+"/from/other mode", 0o600))
	return dir, src, dst
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestRenamesSendNothing(t *testing.T) {
	testenv.Require(t, "rsync")
	for _, c := range []struct {
		del, whole, sparse bool
	}{{true, false, false}, {true, true, false}, {false, false, false}, {true, false, true}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			dir, src, dst := movedTree(t)
			o := Archive()
			o.Renames, o.Delete, o.WholeFile, o.Sparse = true, c.del, c.whole, c.sparse
			var events eventLog
			o.Event = events.add
			args := []string{"-ai", dir + "/from/", dir + "/to2/"}
			if c.del {
				args = append([]string{"--del"}, args...)
			}
			inode := func(path string) uint64 {
				var st unix.Stat_t
				must(t, unix.Lstat(filepath.Join(dir, "to", path), &st))
				return st.Ino
			}
			one, mode := inode("one"), inode("mode")
			want := runRsync(t, args)
			stats, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			sameTree(t, "as rsync", snapshot(t, dir+"/to"), snapshot(t, dir+"/to2"))
			if got := events.take(); !slices.Equal(sorted(got), sorted(want)) {
				t.Errorf("said\n%s, rsync\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			most := int64(40_000) // what only looked moved
			if !c.del {           // "copied" is no leftover in any case, its copy is read
				most += 0
			}
			if src.read > most+30_000 {
				t.Errorf("%d bytes were read, want at most %d", src.read, most+30_000)
			}
			if c.del != (inode("deep/er/two") == one) {
				t.Error("a file that will be deleted did not become the new one, or one that stays did")
			}
			if inode("other mode") == mode {
				t.Error("a file with other attributes became the new one")
			}
			if stats.Linked != 22 || stats.Reused == 0 {
				t.Errorf("counted %+v", stats)
			}
		})
	}
}

// TestRenameOfEqualFiles has more wanted names than leftovers, all of one length and time.
func TestRenameOfEqualFiles(t *testing.T) {
	data := noise(1, 5000)
	dir, src, dst := pair(t, map[string][]byte{"a": data, "b": data, "d/same": noise(2, 5000)},
		map[string][]byte{"x": data, "y": data, "z": data, "e/same": noise(2, 5000)})
	for _, d := range []string{"/from", "/to"} {
		oneTime(t, dir+d)
	}
	o := Archive()
	o.Renames, o.Delete, o.HardLinks = true, true, true
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
	if src.read > 0 {
		t.Errorf("%d bytes were read", src.read)
	}
}

// TestRenameInDryRun asks whether a dry run says the same and reads nothing.
func TestRenameInDryRun(t *testing.T) {
	dir, src, dst := movedTree(t)
	o := Archive()
	o.Renames, o.Delete, o.DryRun = true, true, true
	var events eventLog
	o.Event = events.add
	before := snapshot(t, dir+"/to")
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "after a dry run", snapshot(t, dir+"/to"), before)
	pretended := events.take()
	o.DryRun = false
	_, err = Sync(t.Context(), src, dst, o)
	must(t, err)
	if got := events.take(); !slices.Equal(sorted(got), sorted(pretended)) {
		t.Errorf("the dry run said\n%s\nthe run\n%s", strings.Join(pretended, "\n"), strings.Join(got, "\n"))
	}
}

func TestRenameSurvivesUnreadable(t *testing.T) {
	dir, src, dst := movedTree(t)
	o := Archive()
	o.Renames, o.Delete = true, true
	src.alterSums = func(f *FileSums) {
		if f.Path == "elsewhere/sub/f03" {
			f.Err = &PathError{Path: f.Path, Err: unix.EIO}
		}
	}
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
}

func TestFuzzyBasis(t *testing.T) {
	testenv.Require(t, "rsync")
	data := noise(1, 400_000)
	changed := append([]byte("x"), data...)
	dir, src, dst := pair(t, map[string][]byte{"log-2026-01-01.txt": data, "unlike": noise(9, 300_000), "lo": []byte("short")},
		map[string][]byte{"log-2026-01-02.txt": changed, "unlike": noise(9, 300_000)})
	o := Archive()
	o.Fuzzy, o.Delete = true, true
	var events eventLog
	o.Event = events.add
	want := runRsync(t, []string{"-aiy", "--no-W", "--delete-after", dir + "/from/", dir + "/to2/"})
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "as rsync", snapshot(t, dir+"/to"), snapshot(t, dir+"/to2"))
	if got := events.take(); !slices.Equal(sorted(got), sorted(want)) {
		t.Errorf("said\n%s, rsync\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if src.read > 10_000 || stats.Reused < 390_000 {
		t.Errorf("%d bytes were read, counted %+v", src.read, stats)
	}
}

func TestAlike(t *testing.T) {
	for _, c := range []struct {
		a, b string
		n    int
	}{{"", "", 0}, {"a", "", 0}, {"abc", "abc", 3}, {"log.1", "log.2", 4}, {"a-2.txt", "a-13.txt", 6}, {"aaa", "aa", 2}, {"xyz", "abc", 0}} {
		if n := alike(c.a, c.b); n != c.n || alike(c.b, c.a) != c.n {
			t.Errorf("%q and %q have %d alike, want %d", c.a, c.b, n, c.n)
		}
	}
}

func TestCopyOwn(t *testing.T) {
	dir, _, dst := pair(t, nil, nil)
	content := bytes.Repeat(noise(1, 1<<16), 10)
	write(t, dir+"/other", string(content))
	out := &Staged{root: dst, stage: -1, state: -1}
	must(t, out.begin(false))
	defer out.abandon(false)
	c := newContentWriter(dst, out.stage, out.fresh, &Options{})
	defer c.close()
	f, err := os.Open(dir + "/other")
	must(t, err)
	defer f.Close()
	at, err := c.copyOwn(f, int64(len(content)), tree{}, "x", attr{set: setMode | setTime, mode: 0o640, mtime: Time{Sec: 5}})
	must(t, err)
	path := filepath.Join(dir, "to", stateDir, stageDir, contentDir, contentDirName(at.number), contentName(at.number))
	got, err := os.ReadFile(path)
	must(t, err)
	st, err := os.Stat(path)
	must(t, err)
	if !bytes.Equal(got, content) || st.Mode().Perm() != 0o640 || st.ModTime().Unix() != 5 {
		t.Errorf("the copy has %d bytes, %v, %v", len(got), st.Mode(), st.ModTime())
	}
	if _, err := c.copyOwn(f, int64(len(content))+1, tree{}, "y", attr{}); err == nil {
		t.Error("a file that is too short was copied")
	}
}

// TestMovedFromWhereItStays: where the old name of a moved file cannot be removed, the new
// one is a file of its own, as rsync leaves it, and not a second name of the old.
func TestMovedFromWhereItStays(t *testing.T) {
	testenv.Require(t, "chattr")
	testenv.RequireRoot(t)
	scene := func(t *testing.T, hold func(dir string)) {
		dir := tempDir(t)
		must(t, os.Chmod(dir, 0o777))
		data := string(noise(3, 50_000))
		write(t, dir+"/from/shut/x", "x")
		write(t, dir+"/from/fresh", data)
		write(t, dir+"/to/shut/x", "x")
		write(t, dir+"/to/shut/old", data)
		for _, name := range []string{"from/shut/x", "to/shut/x", "from/fresh", "to/shut/old", "from/shut", "to/shut"} {
			setMtime(t, dir+"/"+name, 1_000_000_000)
		}
		for _, name := range []string{"to", "to/shut/old", "to/shut/x"} {
			must(t, os.Chown(dir+"/"+name, 65534, 65534))
		}
		hold(dir)
	}
	check := func(t *testing.T, dir string, o Options) {
		src, dst := open(t, dir+"/from", dir+"/to")
		defer dst.Close()
		o.Renames, o.Delete, o.WholeFile = true, true, false
		stats, err := Sync(t.Context(), src, dst, o)
		if err != nil || stats.Left == 0 {
			t.Errorf("%v, %+v", err, stats)
		}
		var old, fresh unix.Stat_t
		must(t, unix.Lstat(dir+"/to/shut/old", &old))
		must(t, unix.Lstat(dir+"/to/fresh", &fresh))
		if old.Ino == fresh.Ino || old.Nlink != 1 || fresh.Nlink != 1 {
			t.Errorf("they are one file of %d names", old.Nlink)
		}
		if stats.Reused < 50_000 {
			t.Errorf("it was fetched: %+v", stats)
		}
	}
	for _, letter := range []string{"i", "a"} {
		t.Run(letter, func(t *testing.T) {
			scene(t, func(dir string) {
				flag := func(sign string) {
					if out, err := exec.Command("chattr", sign+letter, dir+"/to/shut").CombinedOutput(); err != nil {
						t.Fatalf("chattr: %v: %s", err, out)
					}
				}
				flag("+")
				defer flag("-")
				o := Archive()
				o.Owner, o.Group = false, false
				check(t, dir, o)
			})
		})
	}
}
