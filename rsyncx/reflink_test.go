package rsyncx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// onReflinks runs a test on real file systems where files can share blocks.
func onReflinks(t *testing.T, test func(t *testing.T, disk *testenv.FileSystem)) {
	for kind, options := range map[string][]string{"xfs": {"-q", "-m", "reflink=1"}, "btrfs": {"-q"}} {
		t.Run(kind, func(t *testing.T) { test(t, testenv.NewFileSystem(t, kind, options...)) })
	}
}

// fiemap is what the kernel takes and gives for FS_IOC_FIEMAP.
type fiemap struct {
	start, length           uint64
	flags, mapped, count, _ uint32
	extents                 [512]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// shared returns how many bytes of the files below dir lie in blocks that other files have too.
func shared(t *testing.T, dir string) (n int64) {
	t.Helper()
	const request, flush, both, last = 0xc020660b, 1, 0x2000, 1
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for m := (&fiemap{length: 1 << 62, flags: flush, count: 512}); ; m.flags = 0 {
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(m))); errno != 0 {
				return fmt.Errorf("%s: %w", path, errno)
			}
			for _, e := range m.extents[:m.mapped] {
				if e.flags&both != 0 {
					n += int64(e.length)
				}
				if m.start = e.logical + e.length; e.flags&last != 0 {
					return nil
				}
			}
			if m.mapped == 0 {
				return nil
			}
		}
	}))
	return n
}

// onDisk is pair with the destination on a file system of its own.
func onDisk(t *testing.T, disk *testenv.FileSystem, old, fresh map[string][]byte) (from, to string, src *meter, dst *Root) {
	t.Helper()
	top, err := os.MkdirTemp(disk.Dir, "t")
	must(t, err)
	from, to = filepath.Join(tempDir(t), "from"), filepath.Join(top, "to")
	mkdirs(t, from, to)
	for path, content := range old {
		write(t, filepath.Join(to, path), string(content))
	}
	for path, content := range fresh {
		write(t, filepath.Join(from, path), string(content))
	}
	oneTime(t, from)
	oneTime(t, top)
	for path := range fresh {
		setMtime(t, filepath.Join(from, path), 1_100_000_000)
	}
	local, err := Local(from)
	must(t, err)
	dst, err = OpenRoot(to)
	must(t, err)
	t.Cleanup(func() {
		local.Close()
		dst.Close()
	})
	return from, to, &meter{Source: local}, dst
}

// TestReflinks asks the file system whether what the destination has already is
// shared and not written again, wherever that is promised.
func TestReflinks(t *testing.T) {
	long, middle := noise(1, 12<<20), noise(2, 5<<20)
	onReflinks(t, func(t *testing.T, disk *testenv.FileSystem) {
		for name, c := range map[string]struct {
			old, fresh map[string][]byte
			set        func(o *Options)
			before     func(to string)
			to         string // what is looked at beside what is staged, when published
			least      int64  // bytes shared
			most       int64  // bytes read from the source
		}{
			"a long file, while its sums are made": {
				old: map[string][]byte{"f": long}, fresh: map[string][]byte{"f": scattered(long, 5)}, least: 11 << 20, most: 5 * 8192,
			},
			"a file": {
				old: map[string][]byte{"f": middle}, fresh: map[string][]byte{"f": scattered(middle, 3)}, least: 4 << 20, most: 3 * 8192,
			},
			"a file with the same beginning": {
				old: map[string][]byte{"f": middle}, fresh: map[string][]byte{"f": slices.Concat(middle[:4<<20], scattered(middle[4<<20:], 3))}, least: 4 << 20, most: 3 * 8192,
			},
			"grown": {
				old: map[string][]byte{"f": long[:9<<20]}, fresh: map[string][]byte{"f": long}, least: 8 << 20, most: 4 << 20,
			},
			"renamed": {
				old: map[string][]byte{"old": middle}, fresh: map[string][]byte{"d/new": middle}, least: 5 << 20,
				// With another mode it cannot be the same file.
				set: func(o *Options) { o.Renames, o.Delete = true, true }, before: func(to string) {
					setMtime(t, to+"/old", 1_100_000_000)
					must(t, os.Chmod(to+"/old", 0o600))
				},
			},
			"a similar file": {
				old: map[string][]byte{"f-1.0": middle}, fresh: map[string][]byte{"f-1.1": scattered(middle, 3)}, least: 4 << 20, most: 3 * 8192,
				set: func(o *Options) { o.Fuzzy = true },
			},
			"another directory": {
				old: map[string][]byte{"../other/f": middle}, fresh: map[string][]byte{"f": middle}, least: 5 << 20,
				set: func(o *Options) { o.AltDests, o.AltDest, o.SizeOnly = []string{"../other"}, CopyDest, true },
			},
			"part of one in another directory": {
				old: map[string][]byte{"../other/f": middle}, fresh: map[string][]byte{"f": scattered(middle, 3)}, least: 4 << 20, most: 3 * 8192,
				set: func(o *Options) { o.AltDests, o.AltDest = []string{"../other"}, CopyDest },
			},
			"a backup of what is written in its place": {
				old: map[string][]byte{"f": middle}, fresh: map[string][]byte{"f": scattered(middle, 3)}, least: 4 << 20, most: 3 * 8192,
				set: func(o *Options) { o.Inplace, o.Backup = true, true }, to: "f~",
			},
		} {
			t.Run(name, func(t *testing.T) {
				from, to, src, dst := onDisk(t, disk, c.old, c.fresh)
				if c.before != nil {
					c.before(to)
				}
				o := Archive()
				o.NoSync = true
				if c.set != nil {
					c.set(&o)
				}
				staged, err := Stage(t.Context(), src, dst, o)
				must(t, err)
				must(t, staged.Sync())
				got := shared(t, filepath.Join(to, stateDir, stageDir))
				must(t, staged.Publish(t.Context()))
				if c.to != "" {
					got += shared(t, filepath.Join(to, c.to))
				}
				if got < c.least || src.read > c.most {
					t.Errorf("%d bytes are shared, want %d; %d of the source were read, at most %d should be", got, c.least, src.read, c.most)
				}
				for path, want := range c.fresh {
					if got, err := os.ReadFile(filepath.Join(to, path)); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s has %d bytes, %v", path, len(got), err)
					}
				}
				wanted := snapshot(t, from)
				for path := range snapshot(t, to) {
					if _, ok := wanted[path]; !ok && c.old[path] == nil && path != c.to {
						t.Errorf("%s is too much", path)
					}
				}
				if c.to != "" {
					if got, err := os.ReadFile(filepath.Join(to, c.to)); err != nil || !bytes.Equal(got, c.old["f"]) {
						t.Errorf("the backup has %d bytes, %v", len(got), err)
					}
				}
			})
		}
	})
}

// TestCrashOverReflinks fails every fourth changing system call, as TestCrashAnywhere does all,
// where staged files begin as clones of published ones.
func TestCrashOverReflinks(t *testing.T) {
	long, short := noise(1, 8<<20), noise(2, 200_000)
	onReflinks(t, func(t *testing.T, disk *testenv.FileSystem) {
		for n := 1; ; n += 4 {
			from, to, src, dst := onDisk(t, disk, map[string][]byte{"long": long, "short": short, "gone": short, "moved": noise(3, 100_000)},
				map[string][]byte{"long": scattered(long, 3), "short": scattered(short, 2), "d/moved": noise(3, 100_000)})
			setMtime(t, to+"/moved", 1_100_000_000)
			old := snapshot(t, to)
			crashAt(dst, n)
			o := sceneOptions()
			o.Renames, o.NoSync = true, true
			begun := false
			staged, err := Stage(t.Context(), src, dst, o)
			if err == nil {
				err = staged.Sync()
			}
			if err == nil {
				err = staged.Publish(t.Context())
				begun = staged.seal == sealBegun || staged.done
			}
			if err != nil && !errors.Is(err, errCrash) {
				t.Fatalf("call %d: %v", n, err)
			}
			if staged != nil {
				staged.close() // as the end of the process does
			}
			dst.Close()
			if !begun {
				sameTree(t, fmt.Sprintf("after a crash before the publish, call %d", n), rootless(snapshot(t, to)), rootless(old))
			}
			finish(t, to, n%7*5+1)
			if begun {
				sameTree(t, fmt.Sprintf("after a crash at call %d", n), rootless(snapshot(t, to)), rootless(snapshot(t, from)))
			}
			must(t, os.RemoveAll(filepath.Dir(to)))
			if err == nil && n < 40 {
				t.Errorf("only %d calls were made to fail", n-1)
			}
			if err == nil || t.Failed() {
				return
			}
		}
	})
}

// TestFullDisk stages onto a disk that runs full, at several points: nothing of the
// destination changes, nothing stays, and what Resume keeps is used once there is room.
func TestFullDisk(t *testing.T) {
	long := noise(1, 12<<20)
	old, fresh := map[string][]byte{"long": long}, map[string][]byte{"long": scattered(long, 40), "new/long": noise(2, 12<<20)}
	for i := range 200 {
		fresh[fmt.Sprintf("d%d/%d", i%5, i)] = noise(byte(i), 30_000)
	}
	onReflinks(t, func(t *testing.T, disk *testenv.FileSystem) {
		failed, resumed := 0, 0
		for _, free := range []int64{0, 5 << 20, 14 << 20} {
			for _, resume := range []bool{false, true} {
				from, to, src, dst := onDisk(t, disk, old, fresh)
				before := snapshot(t, to)
				undo := disk.LeaveFree(free)
				o := Archive()
				o.Resume, o.NoSync = resume, true
				staged, err := Stage(t.Context(), src, dst, o)
				if err != nil {
					failed++
				}
				if err != nil && !errors.Is(err, unix.ENOSPC) {
					t.Errorf("%d bytes free: %v", free, err)
				}
				if staged != nil {
					must(t, staged.Discard())
				}
				sameTree(t, fmt.Sprintf("with %d bytes free", free), rootless(snapshot(t, to)), rootless(before))
				if !resume && exists(to+"/"+stateDir) {
					t.Errorf("with %d bytes free something stayed", free)
				}
				undo()
				src.read = 0
				stats, err := Sync(t.Context(), src, dst, o)
				must(t, err)
				if resume && stats.Reused > 13<<20 {
					resumed++
				}
				sameTree(t, "with room", snapshot(t, to), snapshot(t, from))
				dst.Close()
				must(t, os.RemoveAll(filepath.Dir(to)))
			}
		}
		if failed < 4 || resumed == 0 {
			t.Errorf("%d runs met a full disk, %d went on with what was there", failed, resumed)
		}
	})
}

// TestBrokenSource reads from a disk that has lost a block of one file.
func TestBrokenSource(t *testing.T) {
	disk := testenv.NewFileSystem(t, "btrfs", "-q", "-d", "single")
	from, to := filepath.Join(disk.Dir, "from"), filepath.Join(tempDir(t), "to")
	broken := noise(1, 300_000)
	write(t, from+"/broken", string(broken))
	write(t, from+"/changed", string(noise(2, 300_000)))
	write(t, from+"/new", "new")
	write(t, to+"/broken", "what it was before")
	write(t, to+"/changed", "old")
	write(t, to+"/extra", "not to be deleted now")
	oneTime(t, from)
	disk.Unmount()
	lose(t, disk.Image, broken[100_000:101_000])
	disk.Mount()

	src, dst := open(t, from, to)
	t.Cleanup(disk.Unmount)
	t.Cleanup(func() { src.Close() })
	o := Archive()
	o.Delete = true
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	if stats.Unreadable != 1 || stats.Deleted != 0 || !strings.Contains(strings.Join(stats.Notes, "\n"), "nothing was deleted") {
		t.Errorf("%+v", stats)
	}
	for path, want := range map[string]string{"broken": "what it was before", "changed": string(noise(2, 300_000)), "new": "new", "extra": "not to be deleted now"} {
		if got, err := os.ReadFile(filepath.Join(to, path)); err != nil || string(got) != want {
			t.Errorf("%s has %d bytes, %v", path, len(got), err)
		}
	}
}

// lose changes some bytes of a file with holes where it has what.
func lose(t *testing.T, path string, what []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	for end := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if err != nil {
			t.Fatalf("%s has it nowhere: %v", path, err)
		}
		end, err = unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		must(t, err)
		data, err := io.ReadAll(io.NewSectionReader(f, from, end-from))
		must(t, err)
		if at := bytes.Index(data, what); at >= 0 {
			_, err := f.WriteAt([]byte("lost"), from+int64(at))
			must(t, err)
			return
		}
	}
}
