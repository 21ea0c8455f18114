package rsyncx

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// snapshot describes every name below dir, drsync's own directory aside, with
// all that a sync carries over. Links between names are told by "inode of".
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if name == stateDir {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("%07o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if len(content) > 1000 {
				text += fmt.Sprintf(" %d bytes, sum %x", len(content), xxh3.Hash128(content).Bytes())
			} else {
				text += fmt.Sprintf(" %q", content)
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" -> %q", target)
		case unix.S_IFCHR, unix.S_IFBLK:
			text += fmt.Sprintf(" device %x", st.Rdev)
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if other, ok := first[st.Ino]; ok {
				text += fmt.Sprintf(" inode of %q", other)
			} else {
				first[st.Ino] = name
			}
		}
		all[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameTree(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: %q is\n%s, want\n%s", what, name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %q is too much: %s", what, name, got[name])
		}
	}
}

// randomTree makes trees that resemble one another, so that a sync between two
// of them meets names that are equal, that differ and that are of another type.
type randomTree struct {
	*rand.Rand
	t    testing.TB
	root bool // devices and owners too
	hard bool // hard links too
}

var oddNames = []string{"a", "b", "c.o", "d", "e.tmp", "new\nline", "bad\xff\xfe", "esc\x1b[1m", "sp ace ", "-rf", "...", "*", "back\\slash", "#x", "ünï"}

func (r *randomTree) make(dir string, depth int) {
	var made []string
	for _, name := range oddNames {
		if r.IntN(100) < 55 {
			path := filepath.Join(dir, name)
			r.one(path, depth)
			made = append(made, path)
			if r.hard && r.IntN(4) == 0 {
				from := made[r.IntN(len(made))]
				var st unix.Stat_t
				r.must(unix.Lstat(from, &st))
				if st.Mode&unix.S_IFMT != unix.S_IFDIR {
					r.must(unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path+".hl", 0))
				}
			}
		}
	}
	r.attrs(dir, true)
}

func (r *randomTree) one(path string, depth int) {
	switch n := r.IntN(20); {
	case n < 5 && depth > 0:
		r.must(os.Mkdir(path, 0o755))
		r.make(path, depth-1)
		return
	case n < 8:
		r.must(os.Symlink([]string{"a", "/no/where", "b\nb", "../a"}[r.IntN(4)], path))
		r.attrs(path, false)
		return
	case n == 8:
		r.must(unix.Mkfifo(path, 0o644))
	case n == 9 && r.root:
		r.must(unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(3+r.IntN(2))))))
	case n == 10 && r.root:
		r.must(unix.Mknod(path, unix.S_IFSOCK|0o600, 0))
	default:
		r.must(os.WriteFile(path, []byte(strings.Repeat("x", r.IntN(3))+string(rune('a'+r.IntN(2)))), 0o644))
	}
	r.attrs(path, true)
}

func (r *randomTree) attrs(path string, mode bool) {
	if r.root {
		r.must(unix.Lchown(path, []int{0, 0, 1, 7}[r.IntN(4)], []int{0, 0, 1, 7}[r.IntN(4)]))
	}
	if mode {
		r.must(unix.Chmod(path, []uint32{0o755, 0o644, 0o600, 0o4755, 0o2755, 0o1777, 0o000, 0o400}[r.IntN(8)]))
	}
	when := []unix.Timespec{{}, {Sec: int64(1_000_000_000 + r.IntN(2)), Nsec: int64(r.IntN(2)) * 500_000_000}}
	if r.IntN(20) == 0 {
		when[1].Sec = -1000
	}
	r.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW))
}

func (r *randomTree) must(err error) {
	if err != nil {
		r.t.Helper()
		r.t.Fatal(err)
	}
}

// open returns both ends for a sync.
func open(t testing.TB, from, to string) (Source, *Root) {
	t.Helper()
	src, err := Local(from)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		src.Close()
		dst.Close()
	})
	return src, dst
}

func mkdirs(t testing.TB, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	mkdirs(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tempDir is t.TempDir in memory where that is possible: syncfs waits for
// everybody who writes to a disk.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "drs")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
