package rsyncx

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// linkedTree makes dir/from with links of every kind, and dir/outside.
func linkedTree(t testing.TB, dir string) {
	t.Helper()
	write(t, dir+"/outside/f", "outside")
	write(t, dir+"/outside/sub/g", "outside, below")
	must(t, os.Symlink("f", dir+"/outside/again"))
	write(t, dir+"/from/a/file", "a file")
	write(t, dir+"/from/a/sub/deep", "deep")
	write(t, dir+"/from/a/skip.o", "excluded")
	for name, target := range map[string]string{
		"to-file": "a/file", "to-dir": "a", "a/up": "../a/sub", "a/sub/up-file": "../file",
		"abs-file": dir + "/outside/f", "abs-dir": dir + "/outside",
		"rel-out": "../outside/f", "rel-out-dir": "../outside/sub", "a/back": "sub/../file",
		"abs-in": dir + "/from/a/file", "chain": "to-file", "a/gone.o": "nix", "odd.o": "a",
	} {
		must(t, os.Symlink(target, dir+"/from/"+name))
	}
	oneTime(t, dir+"/from")
	oneTime(t, dir+"/outside")
}

func TestViewAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	for name, c := range map[string]struct {
		args []string
		view View
	}{
		"links":               {nil, View{}},
		"all":                 {[]string{"-L"}, View{CopyLinks: true}},
		"directories":         {[]string{"-k"}, View{CopyDirLinks: true}},
		"unsafe":              {[]string{"--copy-unsafe-links"}, View{CopyUnsafeLinks: true}},
		"unsafe, directories": {[]string{"--copy-unsafe-links", "-k"}, View{CopyUnsafeLinks: true, CopyDirLinks: true}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			linkedTree(t, dir)
			mkdirs(t, dir+"/to", dir+"/to2")
			args := append([]string{"-ai", "--modify-window=-1", "--exclude=*.o"}, c.args...)
			want := runRsync(t, append(args, dir+"/from/", dir+"/to/"))
			src, err := LocalView(dir+"/from", c.view)
			must(t, err)
			defer src.Close()
			dst, err := OpenRoot(dir + "/to2")
			must(t, err)
			defer dst.Close()
			var events eventLog
			o := Archive()
			o.Event, o.Filter = events.add, excludes(t, "*.o")
			stats, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			if got := events.take(); !slices.Equal(got, want) || stats.Unreadable > 0 {
				t.Errorf("said alone\n%s\nrsync said alone\n%s\n%+v", without(got, want), without(want, got), stats)
			}
			sameTree(t, name, snapshot(t, dir+"/to2"), snapshot(t, dir+"/to"))
		})
	}
}

// TestViewReads reads and describes through links what was listed through them.
func TestViewReads(t *testing.T) {
	dir := tempDir(t)
	linkedTree(t, dir)
	src, err := LocalView(dir+"/from", View{CopyLinks: true})
	must(t, err)
	defer src.Close()
	before := descriptors(t)
	n := 0
	for d, err := range src.Walk(t.Context(), WalkOptions{Filter: excludes(t, "*.o")}) {
		must(t, err)
		for _, e := range d.Entries {
			path := joinPath(d.Path, e.Name)
			if isSymlink(&e) {
				t.Errorf("%s is shown as a link", path)
			}
			if again, err := src.Lstat(t.Context(), path); err != nil || again != e {
				t.Errorf("Lstat(%q): %+v, %v; listed as %+v", path, again, err, e)
			}
			if !isRegular(&e) {
				continue
			}
			n++
			want, err := os.ReadFile(dir + "/from/" + path)
			must(t, err)
			if got, err := ReadFile(t.Context(), src, path, 100); err != nil || string(got) != string(want) {
				t.Errorf("%s: %q, %v; want %q", path, got, err, want)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d files", n)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestViewOfLinksThatLeadNowhere(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/from/a/f", "f")
	for name, target := range map[string]string{"gone": "nix", "self": "self", "a/loop": ".", "a/loop2": "..", "a/inner": "../other", "below-file": "a/f/x"} {
		must(t, os.Symlink(target, dir+"/from/"+name))
	}
	mkdirs(t, dir+"/from/other")
	must(t, os.Symlink("../a", dir+"/from/other/back"))
	for view, want := range map[View]string{
		{CopyLinks: true}: "cannot read below-file cannot read gone cannot read self /: a other " +
			"cannot read a/loop cannot read a/loop2 /a: f inner cannot read a/inner/back /a/inner: " +
			"/other: back cannot read other/back/inner cannot read other/back/loop cannot read other/back/loop2 /other/back: f",
		{CopyDirLinks: true}: "/: a below-file gone other self " +
			"cannot read a/loop cannot read a/loop2 /a: f inner cannot read a/inner/back /a/inner: " +
			"/other: back cannot read other/back/inner cannot read other/back/loop cannot read other/back/loop2 /other/back: f",
	} {
		src, err := LocalView(dir+"/from", view)
		must(t, err)
		defer src.Close()
		if got := strings.Join(walked(t, src, WalkOptions{}), " "); got != want {
			t.Errorf("%+v: walked %s\nwant %s", view, got, want)
		}
	}
	src, err := LocalView(dir+"/from", View{CopyLinks: true})
	must(t, err)
	defer src.Close()
	for _, err := range src.Walk(t.Context(), WalkOptions{Only: []string{"gone"}}) {
		if err != nil && !errors.Is(err, ErrDangling) {
			t.Error(err)
		}
	}
}

func TestViewIsConfined(t *testing.T) {
	dir := tempDir(t)
	linkedTree(t, dir)
	mkdirs(t, dir+"/outside-too")
	write(t, dir+"/outside-too/secret", "secret")
	must(t, os.Symlink(dir+"/outside-too/secret", dir+"/from/to-secret"))
	must(t, os.Symlink("round", dir+"/round"))
	must(t, os.Symlink("/proc/self/root/"+dir+"/outside-too", dir+"/from/by-proc"))
	for _, c := range []struct {
		allowed []string
		refused []string
	}{
		{[]string{dir + "/nix"}, []string{"abs-dir", "abs-file", "by-proc", "rel-out", "rel-out-dir", "to-secret"}},
		{[]string{dir + "/outside"}, []string{"by-proc", "to-secret"}},
		{[]string{dir}, nil},
		// What is no directory allows nothing, and keeps nothing else from being read.
		{[]string{dir + "/outside-too/secret", dir + "/round", dir + "/outside"}, []string{"by-proc", "to-secret"}},
	} {
		src, err := LocalWithin(dir+"/from", View{CopyLinks: true}, c.allowed)
		must(t, err)
		defer src.Close()
		var refused []string
		for d, err := range src.Walk(t.Context(), WalkOptions{Filter: excludes(t, "*.o")}) {
			var single *PathError
			if errors.As(err, &single) && errors.Is(err, errOutside) {
				refused = append(refused, single.Path)
			} else if err != nil {
				t.Error(err)
			}
			for _, e := range d.Entries {
				if slices.Contains(c.refused, joinPath(d.Path, e.Name)) {
					t.Errorf("%s was listed", e.Name)
				}
			}
		}
		if !slices.Equal(refused, c.refused) {
			t.Errorf("within %q refused %q, want %q", c.allowed, refused, c.refused)
		}
		for _, path := range []string{"to-secret", "by-proc/secret", "abs-dir/f"} {
			content, err := ReadFile(t.Context(), src, path, 100)
			first, _, _ := strings.Cut(path, "/")
			if (err != nil) != slices.Contains(c.refused, first) {
				t.Errorf("within %q: read %s: %q, %v", c.allowed, path, content, err)
			}
			if _, err := src.Lstat(t.Context(), path); (err != nil) != slices.Contains(c.refused, first) {
				t.Errorf("within %q: Lstat(%s): %v", c.allowed, path, err)
			}
		}
	}
}

// TestViewStopsAtNoPipe opens a link to a named pipe, which must not wait.
func TestViewStopsAtNoPipe(t *testing.T) {
	testenv.Require(t, "mkfifo")
	dir := tempDir(t)
	must(t, exec.Command("mkfifo", dir+"/pipe").Run())
	must(t, os.Symlink("pipe", dir+"/link"))
	src, err := LocalView(dir, View{CopyLinks: true})
	must(t, err)
	defer src.Close()
	for f, err := range src.Read(t.Context(), Wants(slices.Values([]string{"link"}))) {
		must(t, err)
		if !errors.Is(f.Err, ErrNotRegular) {
			content, _ := io.ReadAll(f.Body)
			t.Errorf("%v, %q", f.Err, content)
		}
	}
}
