package rsyncx

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/rsyncx/delta"
	"golang.org/x/sys/unix"
)

// cut is a source that fails after some bytes of content, and counts what it gave.
type cut struct {
	Source
	left  int64 // bytes until it fails; negative is never
	given int64
	files int
	sums  bool // whether it can tell sums
}

var errCut = errors.New("the line was cut")

func (c *cut) Abilities() Abilities {
	a := c.Source.Abilities()
	a.Sums = c.sums
	return a
}

func (c *cut) Read(ctx context.Context, want iter.Seq[Want]) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for f, err := range c.Source.Read(ctx, want) {
			if err == nil && c.left == 0 {
				yield(File{}, errCut)
				return
			}
			if f.Body != nil {
				c.files++
				f.Body = &cutBody{c, f.Body}
			}
			if !yield(f, err) {
				return
			}
		}
		if c.left == 0 {
			yield(File{}, errCut)
		}
	}
}

type cutBody struct {
	c    *cut
	body io.Reader
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.c.left == 0 {
		return 0, errCut
	}
	if b.c.left > 0 {
		p = p[:min(int64(len(p)), b.c.left)]
	}
	n, err := b.body.Read(p)
	b.c.given += int64(n)
	if b.c.left > 0 {
		b.c.left -= int64(n)
	}
	return n, err
}

// largeScene has many small files, in old and new directories, and two long ones.
func largeScene(t *testing.T) (from, to string, total int64) {
	t.Helper()
	dir := tempDir(t)
	from, to = dir+"/from", dir+"/to"
	mkdirs(t, to+"/old")
	random := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		total += int64(n)
		return string(b)
	}
	for i := range 40 {
		write(t, fmt.Sprintf("%s/old/f%02d", from, i), text(2000))
		write(t, fmt.Sprintf("%s/new/a/f%02d", from, i), text(2000))
		write(t, fmt.Sprintf("%s/new/a.b/f%02d", from, i), text(2000))
	}
	write(t, from+"/new/m-long", text(700_000))
	write(t, from+"/old/long", text(700_000))
	must(t, os.Link(from+"/new/a/f05", from+"/new/a.b/hl"))
	must(t, os.Symlink("x", from+"/new/a/link"))
	oneTime(t, from)
	oneTime(t, to)
	return from, to, total
}

func resumeOptions() Options {
	o := sceneOptions()
	o.Resume, o.NoSync = true, true
	return o
}

// interrupted runs a Stage that is cut after so many bytes, and returns what it read.
func interrupted(t *testing.T, from, to string, o Options, after int64, sums bool) *cut {
	t.Helper()
	local, dst := open(t, from, to)
	defer dst.Close()
	src := &cut{Source: local, left: after, sums: sums}
	if _, err := Stage(t.Context(), src, dst, o); !errors.Is(err, errCut) {
		t.Fatalf("the interrupted stage: %v", err)
	}
	return src
}

// resumed runs Sync to its end.
func resumed(t *testing.T, from, to string, o Options, sums bool) (*cut, Stats) {
	t.Helper()
	local, dst := open(t, from, to)
	defer dst.Close()
	src := &cut{Source: local, left: -1, sums: sums}
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "resumed", snapshot(t, to), snapshot(t, from))
	if _, err := os.Lstat(to + "/" + stateDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was left: %v", stateDir, err)
	}
	return src, stats
}

// TestResume cuts a Stage at many places, twice each, and sees that nothing is
// read again, but for a little at the edges.
func TestResume(t *testing.T) {
	for _, sums := range []bool{false, true} {
		for _, after := range []int64{1, 2500, 100_000, 300_000, 600_000, 1_000_000, 1_300_000} {
			from, to, total := largeScene(t)
			o := resumeOptions()
			before := snapshot(t, to)
			given := interrupted(t, from, to, o, after, sums).given
			sameTree(t, "interrupted", snapshot(t, to), before)
			given += interrupted(t, from, to, o, min(after/2+1, (total-after)/2), sums).given
			last, stats := resumed(t, from, to, o, sums)
			given += last.given
			// A lane may lose what it had not written, a half below leastHalf goes.
			if given > total+2*leastHalf+10_000 {
				t.Errorf("cut after %d: %d bytes were read for %d", after, given, total)
			}
			if stats.Transferred != 122 || stats.TransferredBytes != total {
				t.Errorf("cut after %d: %+v", after, stats)
			}
			if after > 100_000 && stats.Reused < after-2*leastHalf {
				t.Errorf("cut after %d: %d bytes reused", after, stats.Reused)
			}
		}
	}
}

// TestDiscardKeepsContent gives up whole stages, as happens when a later step of a
// run fails, in this process or the next one. What was fetched is not fetched again.
func TestDiscardKeepsContent(t *testing.T) {
	for _, crashed := range []bool{false, true} {
		for _, sums := range []bool{false, true} {
			from, to, total := largeScene(t)
			before := snapshot(t, to)
			for range 2 {
				local, dst := open(t, from, to)
				src := &cut{Source: local, left: -1, sums: sums}
				staged, err := Stage(t.Context(), src, dst, resumeOptions())
				must(t, err)
				if crashed {
					must(t, staged.Sync())
					staged.close()
					must(t, dst.Close())
					dst, err = OpenRoot(to)
					must(t, err)
					staged, err = OpenStaged(dst)
					must(t, err)
				}
				must(t, staged.Discard())
				must(t, staged.Discard())
				if err := staged.Publish(t.Context()); err == nil {
					t.Error("what was discarded was published")
				}
				if _, err := OpenStaged(dst); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("what was discarded is there to be published: %v", err)
				}
				must(t, dst.Close())
				if src.given > total {
					t.Errorf("%d bytes were read", src.given)
				}
				total = 0
				sameTree(t, "discarded", rootless(snapshot(t, to)), rootless(before))
			}
			if last, stats := resumed(t, from, to, resumeOptions(), sums); last.given != 0 || stats.Transferred != 122 {
				t.Errorf("%d bytes were read again: %+v", last.given, stats)
			}
		}
	}
}

// TestNoResume: without the option nothing stays, and nothing that stayed is used.
func TestNoResume(t *testing.T) {
	from, to, total := largeScene(t)
	interrupted(t, from, to, resumeOptions(), 500_000, true)
	o := resumeOptions()
	o.Resume = false
	interrupted(t, from, to, o, 500_000, true)
	if _, err := os.Lstat(to + "/" + stateDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was left: %v", stateDir, err)
	}
	if src, _ := resumed(t, from, to, resumeOptions(), true); src.given != total {
		t.Errorf("%d bytes were read for %d", src.given, total)
	}
}

// earlierStage returns the path of what an interrupted Stage left.
func earlierStage(to string) string { return filepath.Join(to, stateDir, stageDir) }

// reboot makes a log look as if it came from before the kernel started.
func reboot(t *testing.T, to string) {
	t.Helper()
	path := filepath.Join(earlierStage(to), logFile)
	text, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Contains(text, []byte(bootID())) {
		t.Fatal("the log has no boot id")
	}
	other := strings.Repeat("0", len(bootID()))
	must(t, os.WriteFile(path, bytes.Replace(text, []byte(bootID()), []byte(other), 1), 0o600))
}

func TestResumeTrustsLittle(t *testing.T) {
	spoil := func(t *testing.T, path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		if _, err := f.WriteAt([]byte("spoilt"), 1); err != nil {
			t.Fatal(err)
		}
	}
	small := func(to string) string { return earlierStage(to) + "/trees/0/1/a/f07" }
	for name, c := range map[string]struct {
		do    func(t *testing.T, from, to string)
		again int64 // bytes that are read again at least
		sums  bool
		after int64
	}{
		"nothing wrong":  {do: func(*testing.T, string, string) {}, again: 0},
		"after a reboot": {do: func(t *testing.T, _, to string) { reboot(t, to) }, again: 0},
		"spoilt by a crash": {do: func(t *testing.T, _, to string) {
			reboot(t, to)
			spoil(t, small(to))
		}, again: 2000},
		"cut short": {do: func(t *testing.T, _, to string) { must(t, os.Truncate(small(to), 5)) }, again: 2000},
		"gone":      {do: func(t *testing.T, _, to string) { must(t, os.Remove(small(to))) }, again: 2000},
		"a link in its place": {do: func(t *testing.T, _, to string) {
			must(t, os.Remove(small(to)))
			must(t, os.Symlink("f08", small(to)))
		}, again: 2000},
		"changed on the source": {do: func(t *testing.T, from, _ string) {
			write(t, from+"/new/a/f07", strings.Repeat("y", 2000))
			setMtime(t, from+"/new/a/f07", 5_000_000)
		}, again: 2000},
		"replaced on the source": {do: func(t *testing.T, from, _ string) {
			write(t, from+"/new/a/tmp", strings.Repeat("y", 2000))
			must(t, os.Rename(from+"/new/a/tmp", from+"/new/a/f07"))
			setMtime(t, from+"/new/a/f07", 1_000_000)
			setMtime(t, from+"/new/a", 1_000_000)
		}, again: 2000},
		"no log":     {do: func(t *testing.T, _, to string) { must(t, os.Remove(earlierStage(to)+"/log")) }, again: 500_000},
		"half a log": {do: func(t *testing.T, _, to string) { must(t, os.Truncate(earlierStage(to)+"/log", 2000)) }, again: 50_000},
		"log of others": {do: func(t *testing.T, _, to string) {
			must(t, os.WriteFile(earlierStage(to)+"/log", []byte("\xff\xff\xff\xff\xff"), 0o600))
		}, again: 500_000},
		"others may write there": {do: func(t *testing.T, _, to string) {
			mkdirs(t, to+"/.drsync/resume")
			must(t, os.Chmod(to+"/.drsync/resume", 0o700))
			must(t, os.Rename(earlierStage(to), to+"/.drsync/resume/7"))
			must(t, os.Chmod(to+"/.drsync/resume/7", 0o777))
		}, again: 500_000},
		"spoilt half, sums": {do: func(t *testing.T, _, to string) {
			reboot(t, to)
			spoil(t, earlierStage(to)+"/content/0/0")
		}, again: 700_000, sums: true, after: 300_000},
		"half after a reboot, no sums": {do: func(t *testing.T, _, to string) { reboot(t, to) }, again: 300_000, after: 300_000},
		"half after a reboot, sums":    {do: func(t *testing.T, _, to string) { reboot(t, to) }, again: 0, sums: true, after: 300_000},
	} {
		t.Run(name, func(t *testing.T) {
			from, to, total := largeScene(t)
			// Long ones come first in their directories: new/m-long is whole, old/long not begun.
			first := interrupted(t, from, to, resumeOptions(), cmp.Or(c.after, 900_000), c.sums)
			c.do(t, from, to)
			src, _ := resumed(t, from, to, resumeOptions(), c.sums)
			extra := first.given + src.given - total
			if extra < c.again || c.again == 0 && extra > 2*leastHalf+10_000 {
				t.Errorf("%d bytes were read again, expected %d", extra, c.again)
			}
		})
	}
}

// TestResumeAnywhere kills a Stage at every changing call, then the next one at
// another; the third must make the tree what it is to be.
func TestResumeAnywhere(t *testing.T) {
	o := sceneOptions()
	o.Resume = true
	for n := 1; ; n++ {
		from, to := scene(t)
		write(t, from+"/new.d/long", strings.Repeat("0123456789abcdef", 20_000))
		write(t, from+"/long", strings.Repeat("0123456789abcdef", 20_000))
		must(t, os.Mkdir(to+"/kept/x", 0o755))
		oneTime(t, from)
		before := snapshot(t, to)
		ended := false
		for _, at := range []int{n, n*7%60 + 1} {
			src, dst := open(t, from, to)
			crashAt(dst, at)
			_, err := Stage(t.Context(), src, dst, o)
			dst.Close()
			if ended = err == nil; ended {
				break
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("call %d: %v", n, err)
			}
			sameTree(t, fmt.Sprintf("killed at call %d", at), rootless(snapshot(t, to)), rootless(before))
		}
		src, dst := open(t, from, to)
		if _, err := Sync(t.Context(), src, dst, o); err != nil {
			t.Fatalf("after call %d: %v", n, err)
		}
		sameTree(t, fmt.Sprintf("after call %d", n), rootless(snapshot(t, to)), rootless(snapshot(t, from)))
		if _, err := os.Lstat(to + "/" + stateDir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after call %d: %s was left: %v", n, stateDir, err)
		}
		if t.Failed() || ended && n > 60 {
			return
		}
	}
}

// TestHalfIsNotPublished: a file that fails in the middle while the rest of a
// new directory goes on is kept, and not where it would be published.
func TestHalfIsNotPublished(t *testing.T) {
	from, to, _ := largeScene(t)
	local, dst := open(t, from, to)
	src := &breaks{Source: local, path: "new/m-long", after: 300_000}
	stats, err := Sync(t.Context(), src, dst, resumeOptions())
	must(t, err)
	if _, err := os.Lstat(to + "/new/m-long"); !errors.Is(err, fs.ErrNotExist) || stats.Unreadable != 1 {
		t.Errorf("half a file: %v, %+v", err, stats)
	}
	if _, err := os.Lstat(to + "/new/a/f00"); err != nil {
		t.Error(err)
	}
}

// breaks fails in the middle of one file.
type breaks struct {
	Source
	path  string
	after int64
}

func (b *breaks) Read(ctx context.Context, want iter.Seq[Want]) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for f, err := range b.Source.Read(ctx, want) {
			if f.Path == b.path && f.Body != nil {
				f.Body = io.MultiReader(io.LimitReader(f.Body, b.after), failing{})
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

func TestPartialDir(t *testing.T) {
	for _, name := range []string{".rsync-partial", "half/of/it", "./half/"} {
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) { testPartialDir(t, name) })
	}
}

func testPartialDir(t *testing.T, name string) {
	from, to, total := largeScene(t)
	o := resumeOptions()
	o.Resume, o.PartialDir = false, name
	// It fails: the half stays where rsync would leave it.
	local, dst := open(t, from, to)
	stats, err := Sync(t.Context(), &breaks{Source: local, path: "old/long", after: 500_000}, dst, o)
	must(t, err)
	dst.Close()
	partial := filepath.Join(to, "old", name, "long")
	content, err := os.ReadFile(partial)
	whole, _ := os.ReadFile(from + "/old/long")
	if err != nil || stats.Unreadable != 1 || !bytes.Equal(content, whole[:len(content)]) || len(content) < 500_000-copyBuffer {
		t.Fatalf("half of it: %d bytes, %v, %+v", len(content), err, stats)
	}
	// The next time it is the basis, and goes.
	src, stats := resumed(t, from, to, o, true)
	if src.given != int64(len(whole)-len(content)) || stats.Reused != int64(len(content)) {
		t.Errorf("%d bytes were read, %+v", src.given, stats)
	}
	// One that is of something else is of no use and goes too.
	must(t, os.RemoveAll(to))
	mkdirs(t, to+"/old")
	write(t, partial, strings.Repeat("z", 400_000))
	if src, _ := resumed(t, from, to, o, true); src.given < total {
		t.Errorf("%d bytes were read for %d", src.given, total)
	}
	for _, dir := range []string{"/abs", "a/../../b", ".."} {
		o.PartialDir = dir
		src, dst := open(t, from, to)
		if _, err := Stage(t.Context(), src, dst, o); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestWalksBefore(t *testing.T) {
	order := []string{"a", "b", "a/x", "a/y", "a/b/x", "a.b/x", "b/a"}
	// Directory a comes before a.b, although '.' is before '/'.
	for i, x := range order {
		for j, y := range order {
			if walksBefore(x, y) != (i < j) && !(strings.HasPrefix(x, "a.b/") || strings.HasPrefix(y, "a.b/")) {
				t.Errorf("%s before %s: %v", x, y, i >= j)
			}
		}
	}
	if !walksBefore("a/b/x", "a.b/x") || walksBefore("a.b/x", "a/z") {
		t.Error("the order of directories is not that of a walk")
	}
}

func FuzzStageLog(f *testing.F) {
	l := logged{path: "a/b/c", size: 5, sum: contentSum{block: delta.TreeBlock}, mtime: Time{Sec: 1, Nsec: 2}, ino: 9, at: place{tree: tree{number: 3, top: 1}}}
	f.Add(l.append(nil))
	l = logged{half: true, path: "x", at: place{number: 7}}
	f.Add(l.append(nil))
	f.Fuzz(func(t *testing.T, record []byte) {
		if l, err := parseLogged(record); err == nil {
			if CheckPath(l.path) != nil {
				t.Fatalf("accepted %+v", l)
			}
			if again, err := parseLogged(l.append(nil)); err != nil || again != l {
				t.Fatalf("%+v became %+v, %v", l, again, err)
			}
			_ = stagedAt(l.at, l.path)
		}
		file, err := os.CreateTemp(t.TempDir(), "")
		must(t, err)
		defer file.Close()
		_, err = file.Write(record)
		must(t, err)
		if _, passes, err := readLog(file); err == nil && len(passes) > maxLogRuns {
			t.Fatalf("%d passes", len(passes))
		}
	})
}

// TestLogIsReadInPasses: each pass over the files begins anew.
func TestLogIsReadInPasses(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	s := newSpool(file)
	must(t, s.add(func(b []byte) []byte { return append(b, "boot"...) }))
	for _, path := range []string{"b", "d", "a", "c", "c", "z/a", "a/a"} {
		l := logged{path: path}
		must(t, s.add(l.append))
	}
	must(t, s.flush())
	must(t, unix.Ftruncate(int(file.Fd()), s.size-1)) // the last record is cut
	boot, passes, err := readLog(file)
	must(t, err)
	if boot != "boot" || len(passes) != 2 {
		t.Fatalf("%q, %d passes", boot, len(passes))
	}
	for i, want := range []map[string]int{{"a": 0, "b": 1, "c": 0, "d": 1, "z/a": 0}, {"a": 1, "b": 0, "c": 2, "z/a": 1, "z/b": 0}} {
		for _, path := range []string{"a", "b", "c", "d", "z/a", "z/b"} {
			if n, ok := want[path]; ok {
				if got := passes[i].at(path); len(got) != n {
					t.Errorf("pass %d has %d of %s", i, len(got), path)
				}
			}
		}
	}
}

// TestResumeAndDeleteBefore: the half that deletes leaves what can be resumed to the other.
func TestResumeAndDeleteBefore(t *testing.T) {
	from, to, total := largeScene(t)
	write(t, to+"/old/extra", "x")
	oneTime(t, to)
	o := resumeOptions()
	first := interrupted(t, from, to, o, 800_000, false)
	o.DeleteBefore = true
	src, stats := resumed(t, from, to, o, false)
	if first.given+src.given > total+2*leastHalf || stats.Deleted != 1 {
		t.Errorf("%d and %d bytes were read for %d, %+v", first.given, src.given, total, stats)
	}
}
