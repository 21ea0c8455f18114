package rsyncx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// grownScene is what the options that write into files meet.
func grownScene() (old, fresh map[string][]byte) {
	big := noise(1, 5<<20)
	middle := noise(2, 200_000)
	old = map[string][]byte{"big": big, "moved": middle, "tiny": []byte("abc"), "same size": []byte("xyz"), "shorter": []byte("xyzzy"),
		"other beginning": []byte("xyz"), "grown": big[:4<<20], "other": noise(3, 100_000), "linked": middle, "locked": middle, "emptied": middle,
		"zeroed": middle, "touched": middle}
	fresh = map[string][]byte{"big": scattered(big, 5), "moved": append([]byte("front"), middle...), "tiny": []byte("abcdef"),
		"same size": []byte("abc"), "shorter": []byte("abc"), "other beginning": []byte("abcdef"), "grown": big, "other": noise(4, 120_000),
		"linked": append(bytes.Clone(middle), "tail"...), "locked": scattered(middle, 1), "new": []byte("new"), "emptied": nil,
		"zeroed": slices.Concat(middle[:50_000], make([]byte, 100_000), middle[150_000:]), "touched": middle}
	return old, fresh
}

func inodes(t *testing.T, dir string, names map[string][]byte) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for name := range names {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, name), &st))
		all[name] = st.Ino
	}
	return all
}

func TestInPlaceAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	old, fresh := grownScene()
	for _, c := range []struct {
		args []string
		set  func(*Options)
		most int64 // bytes read
	}{
		{[]string{"--inplace"}, func(o *Options) { o.Inplace = true }, 500_000 + 1<<20},
		{[]string{"--inplace", "-S"}, func(o *Options) { o.Inplace, o.Sparse = true, true }, 500_000 + 1<<20},
		{[]string{"--inplace", "-W"}, func(o *Options) { o.Inplace, o.WholeFile = true, true }, 1 << 40},
		{[]string{"--inplace", "-c"}, func(o *Options) { o.Inplace, o.Checksum = true, true }, 500_000 + 1<<20},
		{[]string{"--inplace", "-b"}, func(o *Options) { o.Inplace, o.Backup = true, true }, 500_000 + 1<<20},
		{[]string{"--append"}, func(o *Options) { o.Append = true }, 1<<20 + 30_000},
		{[]string{"--append-verify"}, func(o *Options) { o.AppendVerify = true }, 300_000 + 1<<20},
	} {
		name := strings.Join(c.args, " ")
		t.Run(name, func(t *testing.T) {
			dir, src, dst := pair(t, old, fresh)
			for _, to := range []string{"to", "to2"} {
				must(t, os.Link(filepath.Join(dir, to, "linked"), filepath.Join(dir, to, "second")))
				must(t, os.Chmod(filepath.Join(dir, to, "locked"), 0o400))
			}
			o := Archive()
			c.set(&o)
			var events eventLog
			o.Event = events.add
			before := inodes(t, dir+"/to", old)
			want := runRsync(t, append([]string{"-ai", "--no-W"}, append(c.args, dir+"/from/", dir+"/to2/")...))
			_, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			if mine, theirs := snapshot(t, dir+"/to"), snapshot(t, dir+"/to2"); o.Backup {
				sameTree(t, "as rsync", rootless(mine), rootless(theirs)) // each backup changes the root's time
			} else {
				sameTree(t, "as rsync", mine, theirs)
			}
			if got := events.take(); !slices.Equal(sorted(got), slices.Compact(sorted(want))) && name != "--append-verify" { // rsync names a file again that it tries again
				t.Errorf("said\n%s, rsync\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if after := inodes(t, dir+"/to", old); !maps.Equal(before, after) {
				t.Errorf("inodes were %v and are %v", before, after)
			}
			if src.read > c.most {
				t.Errorf("%d bytes were read, want at most %d", src.read, c.most)
			}
			if o.Sparse {
				if n := allocated(t, dir+"/to/zeroed"); n > 110_000 {
					t.Errorf("the file that became zeros has %d bytes on disk", n)
				}
			}
		})
	}
}

func TestAppendWithoutSums(t *testing.T) {
	data := noise(1, 1<<20)
	dir, src, dst := pair(t, map[string][]byte{"f": data[:1<<19]}, map[string][]byte{"f": data})
	o := Archive()
	o.Append = true
	_, err := Sync(t.Context(), withoutSums{Source: src}, dst, o)
	must(t, err)
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
	if src.read != 1<<19 {
		t.Errorf("%d bytes were read, want the tail", src.read)
	}
}

func TestInPlaceRefuses(t *testing.T) {
	_, src, dst := pair(t, nil, nil)
	for name, o := range map[string]Options{
		"append and whole file":        {Append: true, WholeFile: true},
		"append-verify and whole file": {AppendVerify: true, WholeFile: true},
		"in place and partial dir":     {Inplace: true, PartialDir: "p"},
	} {
		if _, err := Stage(t.Context(), src, dst, o); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCrashInPlace makes every changing call fail once. Before Publish the files
// are the old ones; once it has begun, the next one ends with the new ones.
func TestCrashInPlace(t *testing.T) {
	a, b := noise(1, 300_000), noise(2, 20_000)
	old := map[string][]byte{"a": a, "b": b, "c": []byte("small")}
	fresh := map[string][]byte{"a": append([]byte("x"), a...), "b": b[:17_000], "c": []byte("other")}
	o := Archive()
	o.Inplace = true
	crashed := 0
	for n := 1; ; n++ {
		dir, src, dst := pair(t, old, fresh)
		before := snapshot(t, dir+"/to")
		crashAt(dst, n)
		begun := false
		staged, err := Stage(t.Context(), src, dst, o)
		if err == nil {
			if err = staged.Sync(); err == nil {
				err = staged.Publish(t.Context())
				begun = staged.seal == sealBegun || staged.done
			}
		}
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("call %d: %v", n, err)
		}
		crashed++
		dst.Close()
		if !begun {
			sameTree(t, fmt.Sprintf("before the publish, call %d", n), rootless(snapshot(t, dir+"/to")), rootless(before))
		}
		finish(t, dir+"/to", n%5+1)
		if begun {
			sameTree(t, fmt.Sprintf("after a crash at call %d", n), rootless(snapshot(t, dir+"/to")), rootless(snapshot(t, dir+"/from")))
		}
		if t.Failed() {
			return
		}
	}
	if crashed < 25 {
		t.Errorf("only %d calls were made to fail", crashed)
	}
}

// TestPatchLeavesAFileThatChanged asks whether what somebody wrote since Stage stays.
func TestPatchLeavesAFileThatChanged(t *testing.T) {
	dir, src, dst := pair(t, map[string][]byte{"f": noise(1, 50_000), "g": []byte("old")}, map[string][]byte{"f": noise(2, 50_000), "g": []byte("new!")})
	o := Archive()
	o.Inplace = true
	staged, err := Stage(t.Context(), src, dst, o)
	must(t, err)
	write(t, dir+"/to/f", "somebody's")
	must(t, staged.Publish(t.Context()))
	for path, want := range map[string]string{"f": "somebody's", "g": "new!"} {
		if got, err := os.ReadFile(filepath.Join(dir, "to", path)); err != nil || string(got) != want {
			t.Errorf("%s has %d bytes, %v", path, len(got), err)
		}
	}
	if staged.Stats().Skipped != 1 {
		t.Errorf("counted %+v", staged.Stats())
	}
}

func FuzzReadPatch(f *testing.F) {
	f.Add(append(appendPart(nil, partData, 3, 2), append([]byte("ab"), appendPart(nil, partEnd, 9, 0)...)...))
	f.Add(appendPart(appendPart(nil, partHole, 1<<62, 1<<62), partEnd, 0, 0))
	f.Fuzz(func(t *testing.T, patch []byte) {
		size, err := readPatch(bytes.NewReader(patch), func(r io.Reader, off, length int64) error {
			if off < 0 || length < 0 || off+length < 0 {
				t.Fatalf("%d bytes at %d", length, off)
			}
			n, err := io.Copy(io.Discard, r)
			if n < length {
				return errFormat
			}
			return err
		}, func(off, length int64) error {
			if off < 0 || length < 0 || off+length < 0 {
				t.Fatalf("a hole of %d bytes at %d", length, off)
			}
			return nil
		})
		if err == nil && size < 0 {
			t.Fatalf("a file of %d bytes", size)
		}
	})
}
