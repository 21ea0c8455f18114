package rsyncx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

func TestSelection(t *testing.T) {
	o := WalkOptions{Only: []string{"a", "a/x", "a/x/y", "b/c/d", "b/c/e", "b/f", "z"}}
	for _, c := range []struct {
		flat  bool
		path  string
		into  bool
		all   bool
		names string
	}{
		{false, "", true, false, "a b z"},
		{false, "a", true, true, ""},
		{false, "a/x", true, true, ""},
		{false, "a/x/y/z", true, true, ""},
		{false, "b", true, false, "c f"},
		{false, "b/c", true, false, "d e"},
		{false, "b/c/d", true, true, ""},
		{false, "c", false, false, ""},
		{false, "b/g", false, false, ""},
		{true, "", true, false, "a b z"},
		{true, "a", true, false, "x"},
		{true, "a/x", true, false, "y"},
		{true, "a/x/y", false, false, ""},
		{true, "b/c", true, false, "d e"},
		{true, "z", false, false, ""},
	} {
		o.Flat = c.flat
		s, err := o.Select()
		must(t, err)
		s, into := s.at(c.path)
		if into != c.into || into && (s.All() != c.all || strings.Join(s.Names(), " ") != c.names) {
			t.Errorf("flat %v, %q: into %v, all %v, names %q", c.flat, c.path, into, s.All(), s.Names())
		}
	}
	s, err := o.Select()
	must(t, err)
	for _, c := range []struct {
		name         string
		asked, leads bool
		gone, file   string // what is missing when name is
	}{
		{"a", true, true, "a a/x a/x/y", "a/x a/x/y"},
		{"b", false, true, "b/c/d b/c/e b/f", "b/c/d b/c/e b/f"},
		{"z", true, false, "z", ""},
		{"c", false, false, "", ""},
	} {
		if s.Asked(c.name) != c.asked || s.Leads(c.name) != c.leads {
			t.Errorf("%s: asked %v, leads %v", c.name, s.Asked(c.name), s.Leads(c.name))
		}
		if got := strings.Join(s.Missing(c.name, false), " "); got != c.gone {
			t.Errorf("without %s %q are missing", c.name, got)
		}
		if got := strings.Join(s.Missing(c.name, true), " "); got != c.file {
			t.Errorf("with a file %s %q are missing", c.name, got)
		}
	}
	for _, wrong := range [][]string{{"a", "a"}, {"b", "a"}, {"a/b", "a"}, {"a", ""}, {"/a"}, {"a/../b"}, {"a/"}} {
		if _, err := (&WalkOptions{Only: wrong}).Select(); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
	for _, all := range []WalkOptions{{}, {Flat: true}, {Only: []string{""}}, {Only: []string{"", "y/z"}, Flat: true}} {
		s, err := all.Select()
		if _, into := s.Enter("x"); err != nil || !s.All() || into == all.Flat {
			t.Errorf("%+v: all %v, into %v, %v", all, s.All(), into, err)
		}
	}
	for _, none := range []WalkOptions{{Only: []string{}}} {
		s, err := none.Select()
		if _, into := s.Enter("x"); err != nil || s.All() || into || len(s.Names()) > 0 {
			t.Errorf("%+v: all %v, into %v, %v", none, s.All(), into, err)
		}
	}
}

func TestLocalWalkRestricted(t *testing.T) {
	dir := tempDir(t)
	for _, path := range []string{"a/b/c/f", "a/b/g", "a/h", "x/y", "x/z/w", "skip/s", "a/skip/t"} {
		write(t, filepath.Join(dir, path), path)
	}
	must(t, os.Symlink("a", dir+"/link"))
	write(t, dir+"/"+stateDir+"/f", "ours")
	src, dst := open(t, dir, dir)
	dst.Close()
	for _, c := range []struct {
		o    WalkOptions
		want string
	}{
		{WalkOptions{Only: []string{"a/b", "x/y"}}, "/: a x … /a: b … /a/b: c g /a/b/c: f /x: y …"},
		{WalkOptions{Only: []string{"a/b", "x/y"}, Flat: true}, "/: a x … /a: b … /x: y …"},
		{WalkOptions{Only: []string{"a", "a/b/c"}, Flat: true}, "/: a … /a: b … /a/b: c …"},
		{WalkOptions{Flat: true}, "/: a link skip x"},
		{WalkOptions{Only: []string{}}, "/: …"},
		{WalkOptions{Only: []string{""}, Flat: true}, "/: a link skip x"},
		{WalkOptions{Only: []string{"", "x/y"}, Flat: true}, "/: a link skip x /x: y …"},
		{WalkOptions{Only: []string{"", "x"}}, strings.Join(walked(t, src, WalkOptions{}), " ")},
		{WalkOptions{Only: []string{"a/nix", "a/b/g", "nix/x", "x/y", "x/y/z"}}, ""}, // does not ascend
		{WalkOptions{Only: []string{"a/b/g", "a/nix", "nix", "nix/x", "x/y", "x/y/z"}},
			"cannot read nix cannot read nix/x /: a x … cannot read a/nix /a: b … /a/b: g … cannot read x/y/z /x: y …"},
		{WalkOptions{Only: []string{"link/b", "x/y"}}, "cannot read link/b /: x … /x: y …"},
		{WalkOptions{Only: []string{"link", "x/z/w"}}, "/: link x … /x: z … /x/z: w …"},
		{WalkOptions{Only: []string{stateDir, "x/y"}}, "/: x … /x: y …"},
		// What is asked for is filtered, what leads to it is not.
		{WalkOptions{Only: []string{"a/skip/t", "skip", "skip/s"}, Filter: excludes(t, "skip")}, "/: a skip … /a: skip … /a/skip: t … /skip: s …"},
		{WalkOptions{Only: []string{"a/skip", "x/y"}, Filter: excludes(t, "skip")}, "/: a x … /a: … /x: y …"},
	} {
		if c.want == "" {
			for _, err := range src.Walk(t.Context(), c.o) {
				if err == nil {
					t.Errorf("%+v was walked", c.o)
				}
			}
			continue
		}
		if got := strings.Join(walked(t, src, c.o), " "); got != c.want {
			t.Errorf("%+v\nwalked %s\nwant   %s", c.o, got, c.want)
		}
	}
	for _, err := range src.Walk(t.Context(), WalkOptions{Only: []string{"nix"}}) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

// TestRestrictedAsRsync compares restricted runs, with deletion, with rsync's.
func TestRestrictedAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	for name, c := range map[string]struct {
		list    []string // nil: no --files-from
		args    []string
		set     func(o *Options)
		exclude string
	}{
		"flat":                 {args: []string{"-d"}, set: func(o *Options) { o.Flat = true }},
		"flat, deletion":       {args: []string{"-d", "--del"}, set: func(o *Options) { o.Flat, o.Delete = true, true }},
		"list":                 {list: []string{"a/b/c/f", "a/h", "x"}, set: func(o *Options) { o.Flat = true }},
		"list, recursion":      {list: []string{"a/b", "a/h", "x"}, args: []string{"-r"}},
		"list, deletion":       {list: []string{"a/b", "x"}, args: []string{"-r", "--del"}, set: func(o *Options) { o.Delete = true }},
		"list, other type":     {list: []string{"a/conflict", "x"}, args: []string{"-r", "--del"}, set: func(o *Options) { o.Delete = true }},
		"list, excluded":       {list: []string{"a/b", "skip", "skip/s", "x"}, args: []string{"-r"}, exclude: "skip"},
		"list, excluded above": {list: []string{"a/skip/t", "x"}, args: []string{"-r"}, exclude: "skip"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			for _, path := range []string{"a/b/c/f", "a/b/g", "a/h", "a/conflict", "x/y", "x/z/w", "skip/s", "a/skip/t"} {
				write(t, filepath.Join(dir, "from", path), path)
			}
			oneTime(t, dir+"/from")
			for _, to := range []string{"to", "to2"} {
				for _, path := range []string{"a/b/c/extra", "a/b/extra/f", "a/extra", "a/conflict/f", "x/extra", "extra/f", "extra2", "skip/extra"} {
					write(t, filepath.Join(dir, to, path), path)
				}
				oneTime(t, filepath.Join(dir, to))
			}
			o := Options{Links: true, Perms: true, Times: true, Only: c.list}
			if c.set != nil {
				c.set(&o)
			}
			args := append([]string{"-lpti", "--modify-window=-1"}, c.args...)
			if c.list != nil {
				write(t, dir+"/list", strings.Join(c.list, "\n"))
				args = append(args, "--files-from="+dir+"/list")
			}
			if c.exclude != "" {
				args = append(args, "--exclude="+c.exclude)
				o.Filter = excludes(t, c.exclude)
			}
			want := runRsync(t, append(args, dir+"/from/", dir+"/to/"))
			var events eventLog
			o.Event = events.add
			src, dst := open(t, dir+"/from", dir+"/to2")
			_, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			if got := events.take(); !slices.Equal(got, want) {
				t.Errorf("said alone\n%s\nrsync said alone\n%s", without(got, want), without(want, got))
			}
			sameTree(t, name, steady(o, nil, snapshot(t, dir+"/to2")), steady(o, nil, snapshot(t, dir+"/to")))
		})
	}
}

// TestRestrictedSourceIsChecked stages from sources that list more than was asked for.
func TestRestrictedSourceIsChecked(t *testing.T) {
	for i, c := range []struct {
		o    Options
		dirs []Dir
		want error
	}{
		{Options{Only: []string{"a"}}, []Dir{listing("", fileEntry("a", 0), fileEntry("b", 0))}, nil},
		{Options{Only: []string{"a/b"}}, []Dir{listing("", dirEntry("a")), listing("a", fileEntry("b", 0), fileEntry("c", 0))}, nil},
		{Options{Only: []string{"a/b"}}, []Dir{listing("", fileEntry("a", 0))}, nil},
		{Options{Flat: true}, []Dir{listing("", dirEntry("a")), listing("a", fileEntry("b", 0))}, ErrHostile},
		{Options{Only: []string{"b"}}, []Dir{listing("", dirEntry("a")), listing("a", fileEntry("b", 0))}, ErrHostile},
	} {
		dir := tempDir(t)
		write(t, dir+"/extra", "stays where not everything is listed")
		_, dst := open(t, dir, dir)
		c.o.Delete = true
		src := &fake{dirs: c.dirs, files: func(path string, _ int) File {
			return File{Path: path, Entry: fileEntry("", 0), Body: strings.NewReader("")}
		}}
		if _, err := Sync(t.Context(), src, dst, c.o); !errors.Is(err, c.want) {
			t.Errorf("%d: %v, want %v", i, err, c.want)
		}
		got := fmt.Sprint(reference(t, dir, ""))
		if want := map[int]string{0: "[/: a extra]", 1: "[/: a extra /a: b]"}[i]; got != want && (want != "" || got != "[/: extra]") {
			t.Errorf("%d: there is %s", i, got)
		}
	}
}
