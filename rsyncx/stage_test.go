package rsyncx

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

func excludes(t testing.TB, patterns ...string) *filter.Rules {
	t.Helper()
	b := filter.NewBuilder()
	for _, p := range patterns {
		must(t, b.Exclude(p))
	}
	return rules(t, b)
}

// TestDeletionRules compares deletion under filters with rsync.
func TestDeletionRules(t *testing.T) {
	testenv.Require(t, "rsync")
	for name, c := range map[string]struct {
		filters []string // as for --filter
		args    []string
		merge   map[string]string // .rules files of the destination
	}{
		"protected name in a doomed directory": {filters: []string{"- keep"}},
		"protected directory is not entered":   {filters: []string{"P /doomed/"}},
		"protected live directory":             {filters: []string{"P /live/"}},
		"protected content":                    {filters: []string{"P /live/***"}},
		"perishable":                           {filters: []string{"-p keep"}},
		"hidden, not protected":                {filters: []string{"H keep"}},
		"delete excluded":                      {filters: []string{"- keep"}, args: []string{"--delete-excluded"}},
		"per directory": {filters: []string{": .rules"}, merge: map[string]string{
			"live": "- keep\n", "doomed": "- x\n", "doomed/sub": "+ x\n- *\n"}},
		"protected in the way": {filters: []string{"P conflict/keep"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			b := filter.NewBuilder()
			args := append([]string{"-ai", "--del"}, c.args...)
			for _, f := range c.filters {
				must(t, b.Filter(f))
				args = append(args, "--filter="+f)
			}
			for _, to := range []string{"to", "to2"} {
				for _, path := range []string{"live/keep", "live/x", "doomed/keep", "doomed/x", "doomed/sub/keep", "doomed/sub/x", "conflict/keep", "conflict/x"} {
					write(t, filepath.Join(dir, to, path), path)
				}
				for where, text := range c.merge {
					write(t, filepath.Join(dir, to, where, ".rules"), text)
				}
				oneTime(t, filepath.Join(dir, to))
			}
			write(t, dir+"/from/live/y", "y")
			write(t, dir+"/from/conflict", "a file")
			for where, text := range c.merge {
				if where == "live" {
					write(t, filepath.Join(dir, "from", where, ".rules"), text)
				}
			}
			oneTime(t, dir+"/from")
			want := runRsync(t, append(args, dir+"/from/", dir+"/to/"))

			var events eventLog
			o := Archive()
			o.Delete, o.Event = true, events.add
			o.DeleteExcluded = slices.Contains(c.args, "--delete-excluded")
			var err error
			o.Filter, err = b.Rules(filter.Options{DeleteExcluded: o.DeleteExcluded})
			must(t, err)
			src, dst := open(t, dir+"/from", dir+"/to2")
			stats, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			if got := events.take(); !slices.Equal(got, want) {
				t.Errorf("said alone\n%s\nrsync said alone\n%s", without(got, want), without(want, got))
			}
			sameTree(t, name, steady(o, nil, snapshot(t, dir+"/to2")), steady(o, nil, snapshot(t, dir+"/to")))
			if _, err := os.Lstat(dir + "/to2/conflict/keep"); err == nil && (stats.Skipped != 1 || len(stats.Notes) != 1) {
				t.Errorf("the blocked file is not told: %+v", stats)
			}
		})
	}
}

func TestDeletionGuards(t *testing.T) {
	dir := tempDir(t)
	for i := range 30 {
		write(t, fmt.Sprintf("%s/to/f%d", dir, i), "x")
	}
	write(t, dir+"/from/f0", "x")
	before := snapshot(t, dir+"/to")
	src, dst := open(t, dir+"/from", dir+"/to")
	for _, o := range []Options{{Delete: true, MaxDelete: 28}, {Delete: true, MaxDeleteFraction: 0.9}} {
		for _, o.DryRun = range []bool{false, true} {
			_, err := Sync(t.Context(), src, dst, o)
			if err == nil || hint.Of(err) == "" || !strings.Contains(err.Error(), "29") {
				t.Errorf("%+v: %v (%s)", o, err, hint.Of(err))
			}
			sameTree(t, "refused", snapshot(t, dir+"/to"), before)
		}
	}
	o := Options{Delete: true, MaxDelete: 29, MaxDeleteFraction: 0.97}
	if stats, err := Sync(t.Context(), src, dst, o); err != nil || stats.Deleted != 29 {
		t.Errorf("within the limits: %+v, %v", stats, err)
	}
	for i := range 20 {
		write(t, fmt.Sprintf("%s/to/g%d", dir, i), "x")
	}
	if _, err := Sync(t.Context(), src, dst, Options{Delete: true, MaxDeleteFraction: 0.1}); err != nil {
		t.Errorf("a few may always go: %v", err)
	}
}

func TestUnreadableSwitchesDeletionOff(t *testing.T) {
	for name, src := range map[string]*fake{
		"while listing": {dirs: []Dir{listing("", fileEntry("a", 4))}, errs: map[int]error{1: &PathError{Path: "locked", Err: unix.EACCES}}, files: evil},
		"while reading": {dirs: []Dir{listing("", fileEntry("a", 4), fileEntry("b", 4))}, files: func(path string, try int) File {
			if path == "b" {
				return File{Path: path, Err: unix.EIO}
			}
			return evil(path, try)
		}},
		"within a body": {dirs: []Dir{listing("", fileEntry("a", 4), fileEntry("b", 4))}, files: func(path string, try int) File {
			f := evil(path, try)
			if path == "b" {
				f.Body = io.MultiReader(strings.NewReader("ev"), failing{})
			}
			return f
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, dst := victim(t)
			var events eventLog
			o := sceneOptions()
			skips := 0
			o.MaxDelete, o.Event = 1, func(e event.Event) {
				if e.Text == "IO error encountered -- skipping file deletion" {
					skips++
				}
				events.add(e)
			}
			stats, err := Sync(t.Context(), src, dst, o)
			if err != nil {
				t.Fatal(err)
			}
			if stats.Unreadable != 1 || stats.Deleted != 0 || len(stats.Notes) == 0 {
				t.Errorf("counted %+v", stats)
			}
			for _, line := range events.take() {
				if strings.HasPrefix(line, "*deleting") {
					t.Errorf("said %q", line)
				}
			}
			if skips != 1 {
				t.Errorf("said %d times that nothing is deleted", skips)
			}
			if _, err := os.Lstat(dir + "/to/own"); err != nil {
				t.Error(err)
			}
			if content, _ := os.ReadFile(dir + "/to/a"); string(content) != "evil" {
				t.Errorf("the rest was not copied: %q", content)
			}
			if _, err := os.Lstat(dir + "/to/b"); err == nil {
				t.Error("half a file was published")
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, unix.EIO }

func TestVanishedAndTorn(t *testing.T) {
	dir, dst := victim(t)
	write(t, dir+"/to/vanished", "the standby's")
	settles := func(try int) File {
		text := fmt.Sprintf("try %d", try)
		f := File{Entry: fileEntry("", int64(len(text))), Body: io.MultiReader(strings.NewReader(text), tornReader{})}
		if try == 2 {
			f.Body = strings.NewReader(text)
		}
		return f
	}
	src := &fake{dirs: []Dir{listing("", fileEntry("settles", 4), fileEntry("shrinks", 10), fileEntry("torn", 4), fileEntry("vanished", 4))},
		files: func(path string, try int) (f File) {
			defer func() { f.Path = path }()
			switch path {
			case "settles":
				return settles(try)
			case "torn":
				return settles(try + 2)
			case "shrinks":
				return File{Entry: fileEntry("", 10), Body: strings.NewReader("short")}
			}
			return File{Err: &PathError{Path: path, Err: fs.ErrNotExist}}
		}}
	stats, err := Sync(t.Context(), src, dst, sceneOptions())
	if err != nil {
		t.Fatal(err)
	}
	if stats.Torn != 2 || stats.Vanished != 1 || stats.Unreadable != 0 || stats.Transferred != 3 || stats.Deleted != 1 {
		t.Errorf("counted %+v", stats)
	}
	for name, want := range map[string]string{"settles": "try 2", "torn": "try 5", "shrinks": "short", "vanished": "the standby's"} {
		if content, _ := os.ReadFile(dir + "/to/" + name); string(content) != want {
			t.Errorf("%s has %q, want %q", name, content, want)
		}
	}
	if src.asked["torn"] != tries || src.asked["settles"] != 2 {
		t.Errorf("asked %v", src.asked)
	}
}

type tornReader struct{}

func (tornReader) Read([]byte) (int, error) { return 0, ErrTorn }

func TestReserve(t *testing.T) {
	dir, dst := victim(t)
	before := snapshot(t, dir)
	src := &fake{dirs: []Dir{listing("", fileEntry("a", 1<<55))}, files: evil}
	o := sceneOptions()
	o.Reserve = 1
	_, err := Sync(t.Context(), src, dst, o)
	if err == nil || hint.Of(err) == "" || len(src.asked) > 0 {
		t.Errorf("more than the disk holds: %v, asked %v", err, src.asked)
	}
	free, err := dst.free()
	must(t, err)
	src = &fake{dirs: []Dir{listing("", fileEntry("a", 4))}, files: evil}
	o.Reserve = free * 2
	if _, err := Sync(t.Context(), src, dst, o); err == nil || hint.Of(err) == "" {
		t.Errorf("less free than the reserve: %v", err)
	}
	sameTree(t, "full", rootless(snapshot(t, dir)), rootless(before))
	c := newContentWriter(dst, -1, freshAttr{}, &Options{Reserve: free * 2})
	if err := errors.Join(c.space(spaceEvery-1), nil); err != nil {
		t.Errorf("looked too early: %v", err)
	}
	if err := c.space(1); err == nil {
		t.Error("the reserve was written to")
	}
}

func TestHardLinks(t *testing.T) {
	testenv.Require(t, "rsync")
	dir := tempDir(t)
	for _, d := range []string{"from", "to", "to2"} {
		write(t, dir+"/"+d+"/a", "a")
		write(t, dir+"/"+d+"/kept", "kept")
		must(t, os.Link(dir+"/"+d+"/kept", dir+"/"+d+"/kept2"))
		write(t, dir+"/"+d+"/apart", "apart")
	}
	must(t, os.Link(dir+"/from/a", dir+"/from/b"))
	must(t, os.Link(dir+"/from/a", dir+"/from/c"))
	must(t, os.Link(dir+"/from/apart", dir+"/from/apart2"))
	must(t, os.Symlink("x", dir+"/from/s"))
	must(t, os.Link(dir+"/from/s", dir+"/from/s2"))
	write(t, dir+"/from/new", "new")
	must(t, os.Link(dir+"/from/new", dir+"/from/new2"))
	for _, d := range []string{"to", "to2"} {
		write(t, dir+"/"+d+"/c", "of its own")
		write(t, dir+"/"+d+"/apart2", "apart")
		oneTime(t, dir+"/"+d)
	}
	oneTime(t, dir+"/from")
	must(t, os.Chmod(dir+"/from/kept", 0o600))
	want := runRsync(t, []string{"-aHi", "--del", dir + "/from/", dir + "/to/"})
	src, dst := open(t, dir+"/from", dir+"/to2")
	var events eventLog
	o := sceneOptions()
	o.Event = events.add
	_, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	sameTree(t, "linked", snapshot(t, dir+"/to2"), snapshot(t, dir+"/to"))
	if got := events.take(); !slices.Equal(got, want) {
		t.Errorf("said alone\n%s\nrsync said alone\n%s", without(got, want), without(want, got))
	}
	if _, err := Sync(t.Context(), src, dst, o); err != nil || len(events.take()) > 0 {
		t.Errorf("a second run had something to do: %v", err)
	}
}

// TestLinkWhoseOtherNameFails: the name that is not to be fetched is fetched by itself.
func TestLinkWhoseOtherNameFails(t *testing.T) {
	dir, dst := victim(t)
	a, b := fileEntry("a", 4), fileEntry("b", 4)
	a.Dev, a.Ino, a.Nlink = 1, 5, 2
	b.Dev, b.Ino, b.Nlink = 1, 5, 2
	src := &fake{can: Abilities{HardLinks: true}, dirs: []Dir{listing("", a, b)}, files: func(path string, try int) File {
		if path == "b" {
			return File{Path: path, Err: fs.ErrNotExist}
		}
		return evil(path, try)
	}}
	stats, err := Sync(t.Context(), src, dst, sceneOptions())
	must(t, err)
	if content, _ := os.ReadFile(dir + "/to/a"); string(content) != "evil" || stats.Vanished != 1 {
		t.Errorf("a has %q; %+v", content, stats)
	}
}

func TestMountPoints(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.Require(t, "mount")
	dir := tempDir(t)
	mkdirs(t, dir+"/from/live", dir+"/to/live", dir+"/to/extra/mnt", dir+"/other", dir+"/to/bind")
	for _, m := range []string{"/from/live", "/to/live", "/to/extra/mnt"} {
		mount(t, "-t", "tmpfs", "none", dir+m)
	}
	write(t, dir+"/other/f", "other")
	mount(t, "--bind", dir+"/other", dir+"/to/bind")
	write(t, dir+"/to/extra/mnt/f", "mounted")
	write(t, dir+"/to/live/own", "own")
	write(t, dir+"/from/live/f", "f")
	src, dst := open(t, dir+"/from", dir+"/to")
	o := sceneOptions()
	if _, err := Sync(t.Context(), src, dst, o); err == nil || hint.Of(err) == "" {
		t.Errorf("a file below a mount point: %v", err)
	}
	o.OneFileSystem = true
	stats, err := Sync(t.Context(), src, dst, o)
	must(t, err)
	compareMounts(t, src, dst, dir+"/from/", dir+"/to/")
	for _, path := range []string{"extra/mnt/f", "bind/f", "live/own"} {
		if _, err := os.Lstat(dir + "/to/" + path); err != nil {
			t.Error(err)
		}
	}
	if stats.Deleted != 0 {
		t.Errorf("counted %+v", stats)
	}
}

// compareMounts looks that rsync, too, has nothing more to do, with mounts
// listed and with mounts left out.
func compareMounts(t *testing.T, src Source, dst *Root, from, to string) {
	t.Helper()
	testenv.Require(t, "rsync")
	for _, x := range []string{"-aix", "-aixx"} {
		out, err := exec.Command("rsync", "--exclude=/"+stateDir, "--exclude=/bind", x, "--del", from, to).CombinedOutput()
		must(t, err)
		o := Archive()
		o.Delete, o.WholeSeconds, o.OneFileSystem, o.OmitMounts = true, true, true, x == "-aixx"
		stats, err := Sync(t.Context(), src, dst, o)
		must(t, err)
		if stats.Deleted+stats.Created+stats.Transferred != 0 {
			t.Errorf("after rsync %s, which said %q, there was left: %+v", x, out, stats)
		}
	}
}

func mount(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Fatalf("mount %q: %v\n%s", args, err, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(args[len(args)-1], unix.MNT_DETACH)) })
}

// asNobody runs f in a process without privileges, which it takes back after.
// Staging has several threads, so that one of them would not do.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	testenv.RequireRoot(t)
	const nobody = 65534
	groups, err := syscall.Getgroups()
	must(t, err)
	defer func() {
		must(t, errors.Join(syscall.Setresuid(0, 0, 0), syscall.Setresgid(0, 0, 0), syscall.Setgroups(groups)))
	}()
	must(t, errors.Join(syscall.Setgroups(nil), syscall.Setresgid(nobody, nobody, 0), syscall.Setresuid(nobody, nobody, 0)))
	f()
}

func TestWithoutRoot(t *testing.T) {
	dir := tempDir(t)
	must(t, os.Chmod(dir, 0o777))
	from, to := dir+"/from", dir+"/to"
	write(t, from+"/locked/deeper/f", "f")
	write(t, from+"/owned", "by another")
	must(t, unix.Mknod(from+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Chown(from+"/owned", 7, 7))
	must(t, os.Chmod(from+"/locked/deeper", 0o555))
	must(t, os.Chmod(from+"/locked", 0o555))
	asNobody(t, func() {
		mkdirs(t, to)
		src, dst := open(t, from, to)
		o := sceneOptions()
		defer dst.Close()
		stats, err := Sync(t.Context(), src, dst, o)
		if err != nil {
			t.Error(err)
			return
		}
		if stats.Skipped == 0 || len(stats.Notes) != 3 {
			t.Errorf("counted %+v", stats)
		}
	})
	// And again, into directories that forbid it.
	must(t, os.Remove(from+"/locked/deeper/f"))
	write(t, from+"/locked/deeper/g", "g")
	asNobody(t, func() {
		src, dst := open(t, from, to)
		defer dst.Close()
		staged, err := Stage(t.Context(), src, dst, sceneOptions())
		if err != nil {
			t.Error(err)
			return
		}
		crashAt(dst, 14)
		if err := staged.Publish(t.Context()); !errors.Is(err, errCrash) {
			t.Errorf("no crash: %v", err)
		}
		dst.fault = nil
		if err := staged.Publish(t.Context()); err != nil {
			t.Error(err)
		}
	})
	st, err := os.Stat(to + "/locked/deeper")
	if err != nil || st.Mode().Perm() != 0o555 {
		t.Errorf("the mode was not restored: %v, %v", st.Mode(), err)
	}
	if _, err := os.Stat(to + "/locked/deeper/g"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(to + "/locked/deeper/f"); err == nil {
		t.Error("f was not deleted")
	}
	must(t, os.Chmod(to, 0o500))
	must(t, os.Chown(to, 7, 7))
	must(t, os.Chmod(to, 0o755))
	write(t, from+"/more", "more")
	asNobody(t, func() {
		src, dst := open(t, from, to)
		if _, err := Sync(t.Context(), src, dst, sceneOptions()); err == nil {
			t.Error("wrote into a directory of another")
		}
	})
}

func TestNanosecondsDecide(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/from/f", "new")
	write(t, dir+"/to/f", "old")
	setMtime(t, dir+"/from/f", 1000)
	ts := []unix.Timespec{{Sec: 1000}, {Sec: 1000, Nsec: 8}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/to/f", ts, 0))
	src, dst := open(t, dir+"/from", dir+"/to")
	for _, ns := range []bool{false, true} {
		stats, err := Sync(t.Context(), coarse{src, ns}, dst, Archive())
		must(t, err)
		if (stats.Transferred == 1) != ns {
			t.Errorf("nanoseconds %v: %+v", ns, stats)
		}
		if ns == (len(stats.Notes) > 0) {
			t.Errorf("nanoseconds %v: notes %q", ns, stats.Notes)
		}
	}
}

// coarse is a source that may not know nanoseconds.
type coarse struct {
	Source
	ns bool
}

func (c coarse) Abilities() Abilities {
	a := c.Source.Abilities()
	a.Nanoseconds = c.ns
	return a
}

func TestProtectedNamesAreTold(t *testing.T) {
	dir, dst := victim(t)
	var events eventLog
	o := sceneOptions()
	o.Filter, o.Event = excludes(t, "own"), events.add
	stats, err := Sync(t.Context(), &fake{dirs: []Dir{listing("")}}, dst, o)
	must(t, err)
	told := slices.ContainsFunc(events.other, func(e event.Event) bool { return e.Kind == event.Skip && e.Name == "own" })
	if _, err := os.Lstat(dir + "/to/own"); err != nil || stats.Deleted > 0 || !told {
		t.Errorf("%v, %+v, told %v", err, stats, told)
	}
}
