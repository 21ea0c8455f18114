package rsyncx

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// makeAlt makes below dir what the tree of seed is, but for some names.
func makeAlt(t *testing.T, dir string, seed, change uint64, hard bool) {
	tree := &randomTree{Rand: rand.New(rand.NewPCG(seed, 0)), t: t, root: true, hard: hard}
	mkdirs(t, dir)
	tree.make(dir, 2)
	r := rand.New(rand.NewPCG(seed, change))
	times := map[string]time.Time{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			times[path] = st.ModTime()
		}
		switch n := r.IntN(30); {
		case n < 3:
			must(t, os.RemoveAll(path))
			if d.IsDir() {
				return fs.SkipDir
			}
		case n < 5:
			must(t, os.Lchown(path, 5, 6))
		case n < 7 && d.Type()&fs.ModeSymlink == 0:
			must(t, os.Chmod(path, 0o751))
		case n < 10 && d.Type()&fs.ModeSymlink == 0 && !d.IsDir():
			must(t, os.Chtimes(path, time.Time{}, time.Unix(1e9+int64(n), 0)))
		case n < 13 && d.Type().IsRegular():
			must(t, os.WriteFile(path, []byte(strings.Repeat("z", int(st.Size()))), 0o600))
			if n < 12 {
				must(t, os.Chtimes(path, time.Time{}, st.ModTime()))
			}
		case n < 14:
			must(t, os.RemoveAll(path))
			must(t, os.Symlink("elsewhere", path))
			if d.IsDir() {
				return fs.SkipDir
			}
		case n < 17 && (d.Type().IsRegular() || d.IsDir()):
			_ = unix.Setxattr(path, "user.other", []byte("x"), 0) // not every file system has them
		}
		return nil
	})
	must(t, err)
	for path, at := range times {
		if st, err := os.Lstat(path); err == nil && st.IsDir() {
			must(t, os.Chtimes(path, time.Time{}, at))
		}
	}
}

// TestAltDestsAsRsync compares random trees, what shares an inode with an alternate
// directory among it, and what is said, with -i once and twice.
func TestAltDestsAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	testenv.RequireRoot(t)
	kinds := []string{"--compare-dest", "--copy-dest", "--link-dest"}
	sets := []variant{
		{args: []string{"-a"}},
		{args: []string{"-a", "--del"}, set: func(o *Options) { o.Delete = true }},
		{args: []string{"-ac"}, set: func(o *Options) { o.Checksum = true }},
		{args: []string{"-aX"}, set: func(o *Options) { o.Xattrs = true }},
		{args: []string{"-aI"}, set: func(o *Options) { o.IgnoreTimes = true }},
		{args: []string{"-rlD"}, set: func(o *Options) { *o = Options{Links: true, Devices: true, Specials: true} }},
		{args: []string{"-a", "--size-only"}, set: func(o *Options) { o.SizeOnly = true }},
		{args: []string{"-aHE", "--no-p"}, set: func(o *Options) { o.Executability, o.Perms = true, false }},
		{args: []string{"-aH"}, set: func(o *Options) { o.HardLinks = true }, hard: true, loose: true},
		{args: []string{"-ab", "-O", "-J"}, set: func(o *Options) { o.Backup, o.OmitDirTimes, o.OmitLinkTimes = true, true, true }},
	}
	for i := range 90 {
		kind, set := i%3, sets[i/3%len(sets)]
		if set.hard && AltDest(kind) == CompareDest {
			continue // rsync hangs, or gives up
		}
		t.Run(fmt.Sprint(i, kinds[kind], set.args), func(t *testing.T) {
			t.Parallel()
			altDestsAsRsync(t, uint64(i), kinds[kind], AltDest(kind), set, i%2 == 0)
		})
	}
}

func altDestsAsRsync(t *testing.T, seed uint64, name string, kind AltDest, v variant, existing bool) {
	dir := tempDir(t)
	from := filepath.Join(dir, "from")
	sides := []string{filepath.Join(dir, "theirs"), filepath.Join(dir, "mine")}
	mkdirs(t, from)
	tree := &randomTree{Rand: rand.New(rand.NewPCG(seed, 0)), t: t, root: true, hard: v.hard}
	tree.make(from, 2)
	for _, side := range sides {
		mkdirs(t, side+"/to")
		makeAlt(t, side+"/alt", seed, 1, v.hard)
		makeAlt(t, side+"/other", seed, 2, v.hard)
		if existing {
			makeAlt(t, side+"/to", seed, 3, v.hard)
		}
	}
	o := Archive()
	if v.set != nil {
		v.set(&o)
	}
	o.WholeSeconds, o.Explain = true, true
	o.AltDest, o.AltDests = kind, []string{"../alt", sides[1] + "/other"}
	args := append([]string{"-ii", name + "=../alt", name + "=" + sides[0] + "/other"}, v.args...)
	want, code := askRsync(t, append(args, from+"/", sides[0]+"/to/"))
	if code == 2 {
		return
	}
	var events eventLog
	var quiet eventLog
	o.Event = func(e event.Event) {
		if e.Kind == event.Skip && e.Itemize != "" {
			e.Kind = event.Change
			if e.Itemize[:2] == "hL" {
				e.Name, e.Target = e.Name+" -> "+e.Target, ""
			}
			quiet.add(e)
		} else {
			events.add(e)
		}
	}
	before := snapshot(t, sides[1])
	src, dst := open(t, from, sides[1]+"/to")
	dry := o
	dry.DryRun = true
	_, err := Sync(t.Context(), src, dst, dry)
	must(t, err)
	sameTree(t, "after a dry run", snapshot(t, sides[1]), before)
	pretended := append(events.take(), quiet.take()...)
	_, err = Sync(t.Context(), src, dst, o)
	must(t, err)
	got := append(events.take(), quiet.take()...)
	slices.Sort(pretended)
	slices.Sort(got)
	if !slices.Equal(pretended, got) {
		t.Errorf("the dry run said alone\n%s\nthe run alone\n%s", without(pretended, got), without(got, pretended))
	}
	myEnd, theirEnd := wholeSecondDirs(steady(o, before, snapshot(t, sides[1]))), wholeSecondDirs(steady(o, before, snapshot(t, sides[0])))
	sameTree(t, "as rsync", myEnd, theirEnd)
	if kind == CopyDest && o.Xattrs { // rsync sometimes sees an x at directories that it has just made
		made := func(line string) bool { return strings.HasPrefix(line, "cd") }
		got, want = slices.DeleteFunc(got, made), slices.DeleteFunc(want, made)
	}
	if got, want := ownerless(got, want), ownerless(want, got); !v.loose && !slices.Equal(got, want) {
		t.Errorf("said alone\n%s\nrsync said alone\n%s", without(got, want), without(want, got))
	}
	if t.Failed() {
		t.Logf("rsync %q", args)
	}
}

// TestAltDestMissing says what rsync says, and goes on.
func TestAltDestMissing(t *testing.T) {
	dir, src, dst := pair(t, nil, map[string][]byte{"a": []byte("x")})
	write(t, dir+"/file", "")
	var events eventLog
	o := Archive()
	o.AltDest, o.AltDests, o.Event = LinkDest, []string{"../none", dir + "/file"}, events.add
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	want := []string{"--link-dest arg does not exist: " + dir + "/to/../none", "--link-dest arg is not a dir: " + dir + "/file"}
	var got []string
	for _, e := range events.other {
		got = append(got, e.Text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
}

// TestAltDestFollowsNoLink: below an alternate directory no symbolic link is followed.
func TestAltDestFollowsNoLink(t *testing.T) {
	dir, src, dst := pair(t, nil, map[string][]byte{"d/a": []byte("x")})
	must(t, os.MkdirAll(dir+"/real/d", 0o755))
	must(t, unix.Link(dir+"/from/d/a", dir+"/real/d/a"))
	mkdirs(t, dir+"/alt")
	must(t, os.Symlink("../real/d", dir+"/alt/d"))
	o := Archive()
	o.AltDest, o.AltDests = LinkDest, []string{"../alt"}
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	if stats.Linked != 0 || stats.Transferred != 1 {
		t.Errorf("it was followed: %+v", stats)
	}
}

// TestAltDestIsABasis: what differs in content only is fetched by what differs.
func TestAltDestIsABasis(t *testing.T) {
	content := noise(1, 1<<20)
	dir, src, dst := pair(t, nil, map[string][]byte{"a": content})
	mkdirs(t, dir+"/alt")
	content[1<<19] ^= 1
	write(t, dir+"/alt/a", string(content))
	o := Archive()
	o.AltDest, o.AltDests = CompareDest, []string{"../alt"}
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	if stats.Reused < 1<<19 || stats.Transferred != 1 {
		t.Errorf("%+v", stats)
	}
	sameTree(t, "in the end", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
}

// TestAltDestsAndHardLinks: the names of one inode are one in the end, whichever of them an
// alternate directory has. Of CompareDest rsync hangs when it has made most of these; the
// trees are what it has made by then, or would have.
func TestAltDestsAndHardLinks(t *testing.T) {
	testenv.Require(t, "rsync")
	const all = "a b s/c s/d"
	for _, c := range []struct {
		alt, changed, to string // names that are there before
		made             string // by CompareDest
	}{
		{alt: "a", made: all},
		{alt: "b", made: all},
		{alt: "s/d", made: all},
		{alt: "a b", made: all},
		{alt: "a s/c", made: all},
		{alt: "a b s/c s/d"},
		{alt: "a", changed: "b", made: all},
		{changed: "a s/d", made: all},
		{alt: "b", to: "a", made: all},
		{alt: "a", to: "s/c", made: all},
		{alt: "b s/c", to: "s/d", made: all},
		{to: "b", made: all},
		{made: all},
	} {
		for kind, name := range altOptions {
			for _, args := range []string{"-aH", "-aHc"} {
				t.Run(fmt.Sprintf("%s %s alt %s changed %s to %s", args, name, c.alt, c.changed, c.to), func(t *testing.T) {
					t.Parallel()
					made := strings.Fields(c.made)
					if AltDest(kind) != CompareDest {
						made = strings.Fields(all)
					}
					altAndLinks(t, name, AltDest(kind), args, [3][]string{strings.Fields(c.alt), strings.Fields(c.changed), strings.Fields(c.to)}, made)
				})
			}
		}
	}
}

func altAndLinks(t *testing.T, name string, kind AltDest, args string, names [3][]string, made []string) {
	dir := tempDir(t)
	sides := []string{dir + "/mine", dir + "/theirs"}
	mkdirs(t, dir+"/from/s", sides[0]+"/to/s", sides[0]+"/alt/s", sides[1]+"/to/s", sides[1]+"/alt/s")
	at := time.Unix(1e9, 0)
	file := func(path, content string) {
		write(t, path, content)
		must(t, os.Chtimes(path, at, at))
	}
	file(dir+"/from/a", "one")
	for _, n := range []string{"b", "s/c", "s/d"} {
		must(t, os.Link(dir+"/from/a", dir+"/from/"+n))
	}
	for _, side := range sides {
		for i, where := range []string{"/alt/", "/alt/", "/to/"} {
			for _, n := range names[i] {
				file(side+where+n, []string{"one", "other", "one"}[i])
			}
		}
	}
	for _, d := range []string{dir + "/from/s", dir + "/from", sides[0] + "/to/s", sides[0] + "/alt/s", sides[0] + "/to", sides[0] + "/alt", sides[0],
		sides[1] + "/to/s", sides[1] + "/alt/s", sides[1] + "/to", sides[1] + "/alt", sides[1]} {
		must(t, os.Chtimes(d, at, at))
	}
	o := Archive()
	o.HardLinks, o.Checksum = true, args == "-aHc"
	o.AltDest, o.AltDests = kind, []string{"../alt"}
	src, dst := open(t, dir+"/from", sides[0]+"/to")
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	if len(stats.Notes) > 0 {
		t.Errorf("noted %q", stats.Notes)
	}
	one := uint64(0)
	for _, n := range []string{"a", "b", "s/c", "s/d"} {
		var st unix.Stat_t
		err := unix.Lstat(sides[0]+"/to/"+n, &st)
		switch {
		case !slices.Contains(made, n):
			if err == nil {
				t.Errorf("%s was made", n)
			}
		case err != nil:
			t.Errorf("%s: %v", n, err)
		case one != 0 && st.Ino != one:
			t.Errorf("%s is a file by itself", n)
		default:
			one = st.Ino
		}
	}
	if kind == CompareDest {
		return
	}
	if _, code := askRsync(t, []string{args, "-i", name + "=../alt", dir + "/from/", sides[1] + "/to/"}); code == 0 {
		sameTree(t, "as rsync", snapshot(t, sides[0]), snapshot(t, sides[1]))
	}
}
