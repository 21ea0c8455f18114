package rsyncx

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/drsync/drsync/rsyncx/delta"
	"github.com/zeebo/xxh3"
)

// staged returns the files that are staged below dir/to, under numbers.
func stagedFiles(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "to", stateDir, stageDir, contentDir, "*", "*"))
	must(t, err)
	return all
}

// TestCopyAhead asks when the old version is copied while its sums are made, and
// whether what comes of it is right.
func TestCopyAhead(t *testing.T) {
	old := noise(1, 9<<20+333)
	for name, c := range map[string]struct {
		fresh  []byte
		set    func(*Options)
		copied bool // when the first sums have come
		used   bool // when the last ones have
	}{
		"in place":     {fresh: scattered(old, 5), copied: true, used: true},
		"grown":        {fresh: append(scattered(old, 5), noise(3, 1<<20)...), copied: true, used: true},
		"shrunk":       {fresh: scattered(old, 5)[:8<<20+1], copied: true, used: true},
		"a hole":       {fresh: slices.Concat(old[:1<<20], make([]byte, 1<<20), old[2<<20:]), set: func(o *Options) { o.Sparse = true }, copied: true, used: true},
		"inserted":     {fresh: append([]byte("x"), old...), copied: true},
		"too small":    {fresh: old[:8<<20-1]},
		"in its inode": {fresh: scattered(old, 5), set: func(o *Options) { o.Inplace = true }},
	} {
		t.Run(name, func(t *testing.T) {
			dir, src, dst := pair(t, map[string][]byte{"f": old}, map[string][]byte{"f": c.fresh})
			o := Archive()
			if c.set != nil {
				c.set(&o)
			}
			var calls atomic.Int32
			var copied atomic.Bool
			used := false
			src.alterSums = func(*FileSums) { calls.Add(1) }
			src.alterFile = func(*File) { used = len(stagedFiles(t, dir)) == 1 }
			dst.fault = func(call string) error {
				if call == "clone" && calls.Load() < 2 {
					copied.Store(true)
				}
				return nil
			}
			_, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
			if copied.Load() != c.copied || used != c.used {
				t.Errorf("copied %v and used %v, want %v and %v", copied.Load(), used, c.copied, c.used)
			}
			if exists(dir + "/to/" + stateDir) {
				t.Error("something stayed staged")
			}
		})
	}
}

// TestCopyAheadIsVerified spoils the staged copy, or what is said of it.
func TestCopyAheadIsVerified(t *testing.T) {
	old := noise(1, 9<<20)
	fresh := scattered(old, 3)
	first := func(change func(*FileSums)) func(*FileSums, int) {
		return func(f *FileSums, call int) {
			if call == 1 {
				change(f)
			}
		}
	}
	for name, c := range map[string]struct {
		sums  func(f *FileSums, call int)
		spoil bool
	}{
		"the copy":             {spoil: true},
		"the sum of the whole": {sums: first(func(f *FileSums) { f.Whole[15] ^= 1 })},
		// The sums of blocks may be the same by chance; that of the whole tells.
		"a changed block that has the sum of the old one": {sums: first(func(f *FileSums) { f.Sums.Strong[0] = xxh3.Hash(old[:f.Sums.Block]) })},
		"finer sums": {sums: func(f *FileSums, call int) {
			if call == 2 {
				f.Sums.Strong[0] = xxh3.Hash(old[:4096])
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, src, dst := pair(t, map[string][]byte{"f": old}, map[string][]byte{"f": fresh})
			calls := 0
			src.alterSums = func(f *FileSums) {
				if calls++; c.sums != nil {
					c.sums(f, calls)
				}
			}
			src.alterFile = func(f *File) {
				if files := stagedFiles(t, dir); c.spoil && len(files) == 1 {
					out, err := os.OpenFile(files[0], os.O_WRONLY, 0)
					must(t, err)
					_, err = out.WriteAt([]byte("spoilt"), 10_000) // beside what changed, in the same block
					must(t, errors.Join(err, out.Close()))
				}
			}
			_, err := Sync(t.Context(), src, dst, Archive())
			must(t, err)
			content, err := os.ReadFile(dir + "/to/f")
			must(t, err)
			if !bytes.Equal(content, fresh) || src.read < int64(len(fresh)) {
				t.Errorf("%d bytes were read, and the file is the source's: %v", src.read, bytes.Equal(content, fresh))
			}
		})
	}
}

// TestCopyAheadIsResumed: what was put together is known by its sum after a reboot too.
func TestCopyAheadIsResumed(t *testing.T) {
	old := noise(1, 9<<20)
	dir, src, dst := pair(t, map[string][]byte{"f": old}, map[string][]byte{"f": scattered(old, 3)})
	o := Archive()
	o.Resume = true
	staged, err := Stage(t.Context(), src, dst, o)
	must(t, err)
	must(t, errors.Join(staged.Discard(), dst.Close()))
	reboot(t, dir+"/to")
	src.read, src.sums = 0, 0
	dst, err = OpenRoot(dir + "/to")
	must(t, err)
	defer dst.Close()
	_, err = Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
	if src.read+src.sums > 0 {
		t.Errorf("%d bytes and %d of sums were read again", src.read, src.sums)
	}
}

func TestCopyAheadIsCancelled(t *testing.T) {
	old := noise(1, 9<<20)
	stop := errors.New("enough")
	for phase := range 3 {
		dir, src, dst := pair(t, map[string][]byte{"f": old, "g": old}, map[string][]byte{"f": scattered(old, 3), "g": scattered(old, 4)})
		ctx, cancel := context.WithCancelCause(t.Context())
		calls := 0
		src.alterSums = func(*FileSums) {
			if calls++; phase < 2 && calls == 1+2*phase {
				cancel(stop)
			}
		}
		src.alterFile = func(*File) {
			if phase == 2 {
				cancel(stop)
			}
		}
		o := Archive()
		o.Resume = true
		if _, err := Sync(ctx, src, dst, o); !errors.Is(err, stop) {
			t.Errorf("phase %d: ended with %v, want the cause", phase, err)
		}
		if left := stagedFiles(t, dir); len(left) > 0 {
			t.Errorf("phase %d: %v stayed", phase, left)
		}
		cancel(nil)
	}
}

// TestCopyAheadWithoutRoom asks whether a copy that cannot be made leaves the sums right.
func TestCopyAheadWithoutRoom(t *testing.T) {
	data := noise(1, 9<<20)
	dir, _, dst := pair(t, map[string][]byte{"f": data}, nil)
	mkdirs(t, dir+"/stage/"+contentDir)
	stage, err := os.Open(dir + "/stage")
	must(t, err)
	defer stage.Close()
	c := newContentWriter(dst, int(stage.Fd()), freshAttr{}, &Options{Reserve: math.MaxInt64})
	defer c.close()
	at := &descent{root: dst.fd}
	defer at.close()
	for _, full := range []bool{false, true} {
		c.unseen = 0
		if full {
			c.unseen = spaceEvery - 1<<20
		}
		d := &draft{basis: "f", copied: 1, wish: wish{path: "f", listed: int64(len(data))}}
		have := copyBasis(t.Context(), at, c, d, c.scratch())
		must(t, have.err)
		want := delta.NewSummer(128<<10, false, true)
		_, _ = want.Write(data)
		if have.copied == full || have.whole != want.Whole() || !slices.Equal(have.sums.Strong, want.Sums().Strong) {
			t.Errorf("copied %v, and the sums are those of the file: %v", have.copied, have.whole == want.Whole())
		}
		if exists(dir+"/stage/content/0/0") == full {
			t.Errorf("with room %v the copy is there or not", !full)
		}
		_ = c.remove(place{}, "f")
	}
}
