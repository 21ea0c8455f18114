package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// digesting is a local source that asks WalkOptions.Same as a distant one does.
type digesting struct {
	Source
	now         time.Time // that racy files are told by
	asked, same atomic.Int64
	sent        int // entries
}

func (d *digesting) Abilities() Abilities {
	can := d.Source.Abilities()
	can.Digests = true
	return can
}

func (d *digesting) Walk(ctx context.Context, o WalkOptions) iter.Seq2[Dir, error] {
	return func(yield func(Dir, error) bool) {
		type turn struct {
			dir Dir
			err error
		}
		ask, digests := o.Same, o.Digest
		o.Same = nil
		var turns []turn
		for dir, err := range d.Source.Walk(ctx, o) {
			turns = append(turns, turn{dir, err})
		}
		var askers sync.WaitGroup
		for from := range 3 {
			askers.Go(func() {
				for i := from; i < len(turns) && ask != nil; i += 3 {
					dir := &turns[i].dir
					sum, ok := DigestEntries(dir.Entries, digests)
					if !ok || dir.Partial || turns[i].err != nil || RacyEntries(dir.Entries, d.now) {
						continue
					}
					if d.asked.Add(1); ask(dir.Piece(), sum) {
						d.same.Add(1)
						dir.Same, dir.Entries = true, nil
						if dir.Path != "" {
							dir.Self = Entry{}
						}
					}
				}
			})
		}
		askers.Wait()
		for _, t := range turns {
			d.sent += len(t.dir.Entries)
			if !yield(t.dir, t.err) {
				return
			}
		}
	}
}

// spoil changes a few things of a tree.
func spoil(r *rand.Rand, t testing.TB, dir string) {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if path != dir {
			all = append(all, path)
		}
		return err
	}))
	for range r.IntN(8) {
		path := all[r.IntN(len(all))]
		st, err := os.Lstat(path)
		if err != nil {
			continue // gone with a directory above
		}
		switch n := r.IntN(6); {
		case st.Mode().IsRegular() && st.Sys().(*syscall.Stat_t).Nlink > 1 && n < 5: // one name less
			if out, err := exec.Command("cp", "-p", path, path+"~").CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
			must(t, os.Rename(path+"~", path))
			st, err := os.Stat(filepath.Dir(path))
			must(t, err)
			must(t, os.Chtimes(filepath.Dir(path), time.Time{}, st.ModTime()))
		case n == 0:
			must(t, os.RemoveAll(path))
		case n == 1:
			must(t, unix.Lchown(path, 5, 6))
		case n == 2 && st.Mode()&os.ModeSymlink == 0:
			must(t, os.Chmod(path, 0o711))
		case n == 3 && st.IsDir():
			write(t, path+"/extra/more", "x")
		case n == 4 && st.Mode().IsRegular():
			must(t, os.WriteFile(path, []byte("other content"), 0o644))
		default:
			when := []unix.Timespec{{}, {Sec: 1_234_567_890, Nsec: int64(r.IntN(2))}}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, when, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
}

// TestSameMakesNoDifference stages with and without digests: both find the same to do.
func TestSameMakesNoDifference(t *testing.T) {
	var same, asked, sent atomic.Int64
	t.Run("trees", func(t *testing.T) {
		for i := range 60 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				d := compareSame(t, uint64(i), variants[i%len(variants)])
				same.Add(d.same.Load())
				asked.Add(d.asked.Load())
				sent.Add(int64(d.sent))
			})
		}
	})
	if same.Load() < 100 || asked.Load()-same.Load() < 20 || sent.Load() == 0 {
		t.Errorf("asked %d times, the same %d times, %d entries sent: this tests little", asked.Load(), same.Load(), sent.Load())
	}
}

func compareSame(t *testing.T, seed uint64, v variant) *digesting {
	dir := tempDir(t)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	mkdirs(t, from)
	r := &randomTree{Rand: rand.New(rand.NewPCG(seed, 0)), t: t, root: os.Geteuid() == 0, hard: v.hard}
	r.make(from, 3)
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	spoil(r.Rand, t, to)
	o := Archive()
	v.set(&o)
	if v.exclude != "" {
		o.Filter = excludes(t, "*.o", "/a/", "b/d", "*.tmp")
	}
	run := func(src Source, dst *Root, dry bool) ([]string, Stats) {
		var events eventLog
		o.Event, o.DryRun = events.add, dry
		stats, err := Sync(t.Context(), src, dst, o)
		must(t, err)
		return events.take(), stats
	}
	src, dst := open(t, from, to)
	want, wantStats := run(src, dst, true)
	d := &digesting{Source: src, now: time.Now()}
	for _, dry := range []bool{true, false} {
		got, stats := run(d, dst, dry)
		if !slices.Equal(got, want) {
			t.Errorf("with digests it said alone\n%s\nwithout\n%s", without(got, want), without(want, got))
		}
		if !reflect.DeepEqual(stats, wantStats) {
			t.Errorf("with digests it counted\n%+v, without\n%+v", stats, wantStats)
		}
	}
	if got, _ := run(src, dst, true); len(got) > 0 && o.Times && !o.IgnoreTimes && !o.Checksum {
		t.Errorf("a second run has to do\n%s", got)
	}
	return d
}

// TestSameSendsNothing looks that an unchanged tree costs no entries at all, and
// that it does where two equal directories are not the end of it.
func TestSameSendsNothing(t *testing.T) {
	dir := tempDir(t)
	for i := range 20 {
		write(t, fmt.Sprintf("%s/from/%d/sub/f", dir, i), "content")
		write(t, fmt.Sprintf("%s/from/%d/skip.o", dir, i), "excluded")
	}
	must(t, os.Symlink("0/sub", dir+"/from/link"))
	oneTime(t, dir+"/from")
	mkdirs(t, dir+"/to")
	src, dst := open(t, dir+"/from", dir+"/to")
	o := Archive()
	o.Delete, o.Filter = true, excludes(t, "*.o")
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	write(t, dir+"/to/3/extra", "to be deleted")
	write(t, dir+"/to/3/mine.o", "protected")
	write(t, dir+"/to/5/mine.o", "hidden, and protected unless it is said otherwise")
	setMtime(t, dir+"/to/3", 1_000_000)
	setMtime(t, dir+"/to/5", 1_000_000)

	for name, c := range map[string]struct {
		set  func(o *Options, d *digesting)
		sent int // what is in 3 always is
	}{
		"plain":        {func(*Options, *digesting) {}, 1},
		"size only":    {func(o *Options, _ *digesting) { o.SizeOnly = true }, 1},
		"hard links":   {func(o *Options, _ *digesting) { o.HardLinks = true }, 1},
		"one path":     {func(o *Options, _ *digesting) { o.Only = []string{"3"} }, 2},
		"checksum":     {func(o *Options, _ *digesting) { o.Checksum = true }, 61},
		"ignore times": {func(o *Options, _ *digesting) { o.IgnoreTimes = true }, 61},
		"racy":         {func(_ *Options, d *digesting) { d.now = time.Unix(1_000_001, 0) }, 21},
		"excluded too": {func(o *Options, _ *digesting) {
			b := filter.NewBuilder()
			must(t, b.Exclude("*.o"))
			var err error
			o.DeleteExcluded = true
			o.Filter, err = b.Rules(filter.Options{DeleteExcluded: true})
			must(t, err)
		}, 1},
		"per directory": {func(o *Options, _ *digesting) { o.Filter = perDirectory(t) }, 61},
	} {
		t.Run(name, func(t *testing.T) {
			d := &digesting{Source: src, now: time.Now()}
			var events eventLog
			o := o
			o.DryRun, o.Event = true, events.add
			c.set(&o, d)
			if _, err := Sync(t.Context(), d, dst, o); err != nil {
				t.Fatal(err)
			}
			if d.sent != c.sent {
				t.Errorf("%d entries were sent, want %d", d.sent, c.sent)
			}
			want := []string{deleting + " 3/extra"}
			if name == "excluded too" {
				want = append(want, deleting+" 3/mine.o", deleting+" 5/mine.o")
			}
			got := slices.DeleteFunc(events.take(), func(line string) bool { return !strings.HasPrefix(line, deleting) })
			if !slices.Equal(got, want) {
				t.Errorf("it would do\n%s", got)
			}
		})
	}
}

// perDirectory excludes *.o, in a list that could be different in every directory.
func perDirectory(t testing.TB) *filter.Rules {
	t.Helper()
	b := filter.NewBuilder()
	must(t, b.Filter(": .rules"))
	must(t, b.Exclude("*.o"))
	return rules(t, b)
}

// TestSameIsRefused lets a source say what nobody told it.
func TestSameIsRefused(t *testing.T) {
	for name, dirs := range map[string][]Dir{
		"not asked":          {{Self: dirEntry(""), Same: true}},
		"with entries":       {{Self: dirEntry(""), Same: true, Entries: []Entry{fileEntry("f", 4)}}},
		"a root that is not": {{Self: fileEntry("", 4), Same: true}},
		"not there":          {listing("", dirEntry("new")), {Path: "new", Same: true}},
		"out of place":       {listing("", dirEntry("a")), {Path: "b", Same: true}},
		"a path":             {listing("", dirEntry("a")), {Path: "a/..", Same: true}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			_, dst := open(t, dir, dir)
			src := &fake{dirs: dirs, can: Abilities{Digests: name != "not asked"}}
			if _, err := Stage(t.Context(), src, dst, Options{}); !errors.Is(err, ErrHostile) {
				t.Errorf("%v, want ErrHostile", err)
			}
		})
	}
}

func TestSameListingsAreBounded(t *testing.T) {
	dir := tempDir(t)
	for i := range 300 {
		write(t, fmt.Sprintf("%s/%03d/f", dir, i), "")
	}
	_, dst := open(t, dir, dir)
	s := &stager{dst: dst, can: Abilities{Digests: true}, only: Selection{all: true}}
	d := s.sameDirs()
	defer d.close()
	for i := range 300 {
		d.same(Piece{Path: fmt.Sprintf("%03d", i)}, DirDigest{})
	}
	if n := len(d.kept); n != 300 {
		t.Fatalf("%d listings were kept", n)
	}
	if all, ok := d.arrived(Piece{Path: "250"}); !ok || len(all) != 1 || len(d.kept) != 49 {
		t.Errorf("listing of 250: %v, %v; %d are left, want 49", all, ok, len(d.kept))
	}
	d.keep(Piece{Path: "big"}, make([]info, maxKept/infoBytes+1))
	if _, ok := d.arrived(Piece{Path: "big"}); ok || d.bytes != 0 {
		t.Errorf("a listing over the bound was kept; %d bytes are", d.bytes)
	}
}
