package rsyncx

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"testing"

	"github.com/drsync/drsync/internal/event"
	"golang.org/x/sys/unix"
)

// TestDirectoryThatNeverComes: a directory that is listed and whose content is not, without
// a word why, counts as one that cannot be read: it is said, and nothing is deleted.
func TestDirectoryThatNeverComes(t *testing.T) {
	sub := dirEntry("d")
	sub.Dev = 2
	root := listing("", sub, fileEntry("f", 4))
	root.Self.Dev = 1
	gone := &PathError{Path: "d", Err: fs.ErrNotExist}
	shut := &PathError{Path: "d", Err: unix.EACCES}
	deep := listing("", dirEntry("d"))
	for name, c := range map[string]struct {
		dirs                 []Dir
		err                  error
		set                  func(*Options)
		unreadable, vanished int64
	}{
		"never":              {dirs: []Dir{root}, unreadable: 1},
		"one below":          {dirs: []Dir{deep, listing("d", dirEntry("e"), dirEntry("f")), listing("d/f")}, unreadable: 1},
		"the last below":     {dirs: []Dir{deep, listing("d", dirEntry("e"), dirEntry("f")), listing("d/e")}, unreadable: 1},
		"gone":               {dirs: []Dir{root}, err: gone, vanished: 1},
		"shut":               {dirs: []Dir{root}, err: shut, unreadable: 1},
		"flat":               {dirs: []Dir{root}, set: func(o *Options) { o.Flat = true }},
		"shallow":            {dirs: []Dir{root}, set: func(o *Options) { o.Shallow = true }},
		"filtered":           {dirs: []Dir{root}, set: func(o *Options) { o.Filter = excludes(t, "d/") }},
		"another system":     {dirs: []Dir{root}, set: func(o *Options) { o.OneFileSystem = true }},
		"another, by name":   {dirs: []Dir{func() Dir { d := root; d.Partial, d.Entries = true, d.Entries[:1]; return d }()}, set: func(o *Options) { o.OneFileSystem, o.Only = true, []string{"d"} }, unreadable: 1},
		"on the same system": {dirs: []Dir{func() Dir { d := listing("", dirEntry("d")); d.Self.Dev, d.Entries[0].Dev = 1, 1; return d }()}, set: func(o *Options) { o.OneFileSystem = true }, unreadable: 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir, dst := victim(t)
			src := &fake{files: evil, dirs: c.dirs, errs: map[int]error{1: c.err}}
			o := sceneOptions()
			if c.set != nil {
				c.set(&o)
			}
			var said []string
			o.Event = func(e event.Event) {
				if e.Kind == event.Warning {
					said = append(said, e.Name+" "+e.Text)
				}
			}
			stats, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			if stats.Unreadable != c.unreadable || stats.Vanished != c.vanished || len(said) != int(c.unreadable+c.vanished) {
				t.Errorf("%d unreadable, %d vanished, want %d and %d; said %q", stats.Unreadable, stats.Vanished, c.unreadable, c.vanished, said)
			}
			if _, err := os.Lstat(dir + "/to/own"); (err == nil) != (c.unreadable > 0) {
				t.Errorf("what the source has not: %v", err)
			}
		})
	}
}

// vanishing removes a directory of the source when its parent has been listed.
type vanishing struct {
	Source
	path string
}

func (v vanishing) Walk(ctx context.Context, o WalkOptions) iter.Seq2[Dir, error] {
	return func(yield func(Dir, error) bool) {
		for d, err := range v.Source.Walk(ctx, o) {
			if err == nil && d.Path == "" && d.After == "" {
				err = os.Remove(v.path)
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

// TestDirectoryVanishes: one that is removed before it is looked into has vanished, as a file has.
func TestDirectoryVanishes(t *testing.T) {
	dir := tempDir(t)
	for i := range 3 * aheadDirs {
		mkdirs(t, fmt.Sprintf("%s/from/%04d", dir, i))
	}
	mkdirs(t, dir+"/to")
	src, dst := open(t, dir+"/from", dir+"/to")
	last := fmt.Sprintf("%04d", 3*aheadDirs-1)
	stats, err := Sync(t.Context(), vanishing{Source: src, path: dir + "/from/" + last}, dst, Archive())
	must(t, err)
	if stats.Vanished != 1 || stats.Unreadable != 0 {
		t.Errorf("%+v", stats)
	}
}

// TestVanishedAndDeletion: who asks for it deletes nothing when something vanished, be
// it before it was looked at or before it was read.
func TestVanishedAndDeletion(t *testing.T) {
	for name, c := range map[string]struct {
		set     func(*Options)
		deleted int64
	}{
		"as it is":    {func(*Options) {}, 1},
		"kept":        {func(o *Options) { o.KeepIfVanished = true }, 0},
		"all the way": {func(o *Options) { o.KeepIfVanished, o.IgnoreErrors = true, true }, 1},
	} {
		for when, src := range map[string]*fake{
			"while listed": {files: evil, dirs: []Dir{listing("", fileEntry("f", 4))}, errs: map[int]error{0: &PathError{Path: "gone", Err: fs.ErrNotExist}}},
			"before read": {dirs: []Dir{listing("", fileEntry("f", 4))}, files: func(path string, _ int) File {
				return File{Path: path, Err: &PathError{Path: path, Err: fs.ErrNotExist}}
			}},
		} {
			t.Run(name+" "+when, func(t *testing.T) {
				dir, dst := victim(t)
				o := sceneOptions()
				c.set(&o)
				stats, err := Sync(t.Context(), src, dst, o)
				must(t, err)
				_, gone := os.Lstat(dir + "/to/own")
				if stats.Vanished != 1 || stats.Unreadable != 0 || stats.Deleted != c.deleted || (gone != nil) != (c.deleted > 0) {
					t.Errorf("%+v, %v", stats, gone)
				}
			})
		}
	}
}

// TestNameVanishes: a name that goes between the reading of names and the looking at them has vanished.
func TestNameVanishes(t *testing.T) {
	dir := tempDir(t)
	mkdirs(t, dir+"/from", dir+"/to")
	const names = 8 * aheadDirs
	for i := range names {
		write(t, fmt.Sprintf("%s/from/%04d", dir, i), "")
	}
	src, dst := open(t, dir+"/from", dir+"/to")
	src.(*local).long = 2
	stats, err := Sync(t.Context(), vanishing{Source: src, path: fmt.Sprintf("%s/from/%04d", dir, names-1)}, dst, Archive())
	must(t, err)
	if stats.Vanished != 1 || stats.Unreadable != 0 || stats.Transferred != names-1 {
		t.Errorf("%+v", stats)
	}
}
