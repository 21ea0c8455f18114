package rsyncx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fake is a Source that says whatever a test wants.
type fake struct {
	NoSums
	dirs  []Dir
	errs  map[int]error // yielded before dirs[i]
	walk  iter.Seq2[Dir, error]
	can   Abilities
	files func(path string, try int) File
	asked map[string]int
}

var _ Source = (*fake)(nil)

func (f *fake) Abilities() Abilities { return f.can }
func (f *fake) Close() error         { return nil }
func (f *fake) Lstat(context.Context, string) (Entry, error) {
	return Entry{}, fs.ErrNotExist
}

func (f *fake) Walk(context.Context, WalkOptions) iter.Seq2[Dir, error] {
	if f.walk != nil {
		return f.walk
	}
	return func(yield func(Dir, error) bool) {
		for i := range len(f.dirs) + 1 {
			if err := f.errs[i]; err != nil && !yield(Dir{}, err) {
				return
			}
			if i < len(f.dirs) && !yield(f.dirs[i], nil) {
				return
			}
		}
	}
}

func (f *fake) Read(_ context.Context, want iter.Seq[Want]) iter.Seq2[File, error] {
	if f.asked == nil {
		f.asked = map[string]int{}
	}
	return func(yield func(File, error) bool) {
		for w := range want {
			path := w.Path
			f.asked[path]++
			if !yield(f.files(path, f.asked[path]), nil) {
				return
			}
		}
	}
}

func dirEntry(name string) Entry { return Entry{Name: name, Mode: unix.S_IFDIR | 0o755} }
func fileEntry(name string, size int64) Entry {
	return Entry{Name: name, Mode: unix.S_IFREG | 0o644, Size: size}
}
func linkEntry(name, target string) Entry {
	return Entry{Name: name, Mode: unix.S_IFLNK | 0o777, Target: target}
}
func listing(path string, entries ...Entry) Dir {
	_, name := splitPath(path)
	return Dir{Path: path, Self: dirEntry(name), Entries: entries}
}

// evil answers every question with the same bytes.
func evil(path string, _ int) File {
	return File{Path: path, Entry: fileEntry("", 4), Body: strings.NewReader("evil")}
}

func TestHostileSource(t *testing.T) {
	long := strings.Repeat("n", 256)
	deep := strings.TrimSuffix(strings.Repeat("d/", 2048), "/")
	for name, src := range map[string]*fake{
		"dot dot":              {dirs: []Dir{listing("", fileEntry("..", 4))}},
		"dot":                  {dirs: []Dir{listing("", fileEntry(".", 4))}},
		"empty name":           {dirs: []Dir{listing("", fileEntry("", 4))}},
		"slash":                {dirs: []Dir{listing("", fileEntry("../canary", 4))}},
		"absolute":             {dirs: []Dir{listing("", fileEntry("/etc/evil", 4))}},
		"nul":                  {dirs: []Dir{listing("", fileEntry("a\x00b", 4))}},
		"long":                 {dirs: []Dir{listing("", fileEntry(long, 4))}},
		"directory dot dot":    {dirs: []Dir{listing("", dirEntry("..")), listing("..", fileEntry("canary", 4))}},
		"path dot dot":         {dirs: []Dir{listing("", dirEntry("a")), listing("a/..", fileEntry("x", 4))}},
		"absolute path":        {dirs: []Dir{listing("", dirEntry("a")), listing("/a")}},
		"path with a tail":     {dirs: []Dir{listing("", dirEntry("a")), listing("a/")}},
		"too long a path":      {dirs: []Dir{listing("", dirEntry("d")), listing(deep + "/d/d")}},
		"no root":              {dirs: []Dir{listing("a", fileEntry("x", 4))}},
		"two roots":            {dirs: []Dir{listing(""), listing("")}},
		"root is a file":       {dirs: []Dir{{Self: fileEntry("", 4)}}},
		"twice":                {dirs: []Dir{listing("", fileEntry("a", 4), fileEntry("a", 4))}},
		"link, then file":      {dirs: []Dir{listing("", linkEntry("a", "../outside"), fileEntry("a", 4))}},
		"link, then directory": {dirs: []Dir{listing("", linkEntry("a", "../outside"), dirEntry("a")), listing("a", fileEntry("canary", 4))}},
		"below a link":         {dirs: []Dir{listing("", linkEntry("a", "../outside")), listing("a", fileEntry("canary", 4))}},
		"below a file":         {dirs: []Dir{listing("", fileEntry("a", 4)), listing("a", fileEntry("canary", 4))}},
		"below nothing":        {dirs: []Dir{listing("", dirEntry("a")), listing("a/b", fileEntry("x", 4))}},
		"directory twice":      {dirs: []Dir{listing("", dirEntry("a")), listing("a"), listing("a", fileEntry("x", 4))}},
		"order of names":       {dirs: []Dir{listing("", fileEntry("b", 4), fileEntry("a", 4))}},
		"order of directories": {dirs: []Dir{listing("", dirEntry("a"), dirEntry("b")), listing("b"), listing("a")}},
		"back into a sibling":  {dirs: []Dir{listing("", dirEntry("a"), dirEntry("b")), listing("a", dirEntry("x")), listing("b"), listing("a/x")}},
		"no type":              {dirs: []Dir{listing("", Entry{Name: "a", Mode: 0o644})}},
		"odd type":             {dirs: []Dir{listing("", Entry{Name: "a", Mode: 0o150000})}},
		"odd mode":             {dirs: []Dir{listing("", Entry{Name: "a", Mode: unix.S_IFREG | 1<<20})}},
		"negative length":      {dirs: []Dir{listing("", fileEntry("a", -1))}},
		"link without target":  {dirs: []Dir{listing("", linkEntry("a", ""))}},
		"link target with nul": {dirs: []Dir{listing("", linkEntry("a", "x\x00y"))}},
		"link target too long": {dirs: []Dir{listing("", linkEntry("a", strings.Repeat("x", 4096)))}},
		"file with a target":   {dirs: []Dir{listing("", Entry{Name: "a", Mode: unix.S_IFREG, Target: "x"})}},
		"nanoseconds":          {dirs: []Dir{listing("", Entry{Name: "a", Mode: unix.S_IFREG, Mtime: Time{Nsec: 1e9}})}},
		"long owner":           {dirs: []Dir{listing("", Entry{Name: "a", Mode: unix.S_IFREG, User: strings.Repeat("u", 300)})}},
		"error with a bad path": {dirs: []Dir{listing("")}, errs: map[int]error{
			1: &PathError{Path: "../x", Err: unix.EACCES}}},
		"wrong file": {dirs: []Dir{listing("", fileEntry("a", 4))}, files: func(string, int) File { return evil("../canary", 1) }},
		"not a file": {dirs: []Dir{listing("", fileEntry("a", 4))}, files: func(path string, _ int) File {
			return File{Path: path, Entry: linkEntry("a", "../canary"), Body: strings.NewReader("evil")}
		}},
		"no body": {dirs: []Dir{listing("", fileEntry("a", 4))}, files: func(path string, _ int) File {
			return File{Path: path, Entry: fileEntry("a", 4)}
		}},
		"longer than it says": {dirs: []Dir{listing("", fileEntry("a", 4))}, files: func(path string, _ int) File {
			return File{Path: path, Entry: fileEntry("a", 4), Body: tooMuch()}
		}},
		"longer than listed": {dirs: []Dir{listing("", fileEntry("a", 4))}, files: func(path string, _ int) File {
			return File{Path: path, Entry: fileEntry("a", 1<<50), Body: tooMuch()}
		}},
		"length below zero": {dirs: []Dir{listing("", fileEntry("a", 4))}, files: func(path string, _ int) File {
			return File{Path: path, Entry: fileEntry("a", -4), Body: strings.NewReader("evil")}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if src.files == nil {
				src.files = evil
			}
			dir, dst := victim(t)
			before := snapshot(t, dir)
			_, err := Sync(t.Context(), src, dst, sceneOptions())
			if !errors.Is(err, ErrHostile) {
				t.Errorf("got %v, want ErrHostile", err)
			} else if s := err.Error(); strings.ContainsAny(s, "\x00\x1b\n") || len(s) > 10_000 {
				t.Errorf("the error is not fit to print: %q", s)
			}
			sameTree(t, name, rootless(snapshot(t, dir)), rootless(before))
		})
	}
}

// tooMuch goes on far beyond what was announced; it ends, to spare the disk of
// whoever breaks the code.
func tooMuch() io.Reader { return strings.NewReader(strings.Repeat("e", 1<<20)) }

// victim is a destination with something beside it that must not be touched.
func victim(t *testing.T) (string, *Root) {
	dir := tempDir(t)
	write(t, dir+"/canary", "sings")
	write(t, dir+"/outside/canary", "sings")
	write(t, dir+"/to/own", "own")
	dst, err := OpenRoot(dir + "/to")
	must(t, err)
	t.Cleanup(func() { dst.Close() })
	return dir, dst
}

func TestEndlessListing(t *testing.T) {
	dir, dst := victim(t)
	before := snapshot(t, dir)
	deeper := func(yield func(Dir, error) bool) {
		path := ""
		for yield(listing(path, dirEntry("d")), nil) {
			path = joinPath(path, "d")
		}
	}
	wider := func(yield func(Dir, error) bool) {
		if !yield(listing("", dirEntry("d")), nil) {
			return
		}
		var entries []Entry
		for i := range 100 {
			entries = append(entries, fileEntry(fmt.Sprintf("%03d", i), 1))
		}
		for i := 0; yield(listing("d", entries...), nil); i++ {
		}
	}
	failing := func(yield func(Dir, error) bool) {
		for yield(Dir{}, &PathError{Path: "x", Err: unix.EIO}) {
		}
	}
	for name, walk := range map[string]iter.Seq2[Dir, error]{"deeper": deeper, "wider": wider, "failing": failing} {
		o := sceneOptions()
		o.MaxEntries = 50
		_, err := Sync(t.Context(), &fake{walk: walk, files: evil}, dst, o)
		if !errors.Is(err, ErrTooMany) {
			t.Errorf("%s: %v, want ErrTooMany", name, err)
		}
	}
	_, err := Sync(t.Context(), &fake{walk: deeper, files: evil}, dst, sceneOptions())
	if !errors.Is(err, ErrHostile) {
		t.Errorf("deeper than a path can be: %v, want ErrHostile", err)
	}
	sameTree(t, "endless", rootless(snapshot(t, dir)), rootless(before))
}

// TestHiddenNamesAreNotTaken: a source that ignores the filter, or lists our own
// directory, is not followed into it.
func TestOurFilterDecides(t *testing.T) {
	dir, dst := victim(t)
	src := &fake{files: evil, dirs: []Dir{
		listing("", dirEntry(".drsync"), fileEntry("a", 4), fileEntry("b.o", 4), dirEntry("work")),
		listing(".drsync", dirEntry("stage")),
		listing(".drsync/stage", fileEntry("seal", 4)),
		listing("work", fileEntry("x", 4)),
		listing("work/deeper", fileEntry("x", 4)),
	}}
	o := sceneOptions()
	o.Delete = false
	o.Filter = excludes(t, "*.o", "/work/")
	stats, err := Sync(t.Context(), src, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Entries != 1 || src.asked["a"] != 1 || len(src.asked) != 1 {
		t.Errorf("took %d entries and asked for %v", stats.Entries, src.asked)
	}
	for _, name := range []string{"b.o", "work", ".drsync"} {
		if _, err := os.Lstat(dir + "/to/" + name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

func TestPlantedLinks(t *testing.T) {
	outside := func(t *testing.T, dir string) map[string]string { return snapshot(t, dir+"/outside") }
	src := &fake{can: Abilities{Nanoseconds: true}, files: evil, dirs: []Dir{
		listing("", dirEntry("d"), fileEntry("f", 4)), listing("d", fileEntry("canary", 4), linkEntry("l", "x"), dirEntry("s")),
		listing("d/s", fileEntry("f", 4)),
	}}
	t.Run("before", func(t *testing.T) {
		dir, dst := victim(t)
		before := outside(t, dir)
		must(t, os.Symlink("../outside", dir+"/to/d"))
		must(t, os.Symlink("../outside/canary", dir+"/to/f"))
		if _, err := Sync(t.Context(), src, dst, sceneOptions()); err != nil {
			t.Fatal(err)
		}
		sameTree(t, "outside", outside(t, dir), before)
		if content, _ := os.ReadFile(dir + "/to/d/canary"); string(content) != "evil" {
			t.Errorf("the link was not replaced by a directory: %q", content)
		}
	})
	t.Run("between stage and publish", func(t *testing.T) {
		dir, dst := victim(t)
		mkdirs(t, dir+"/to/d/s")
		before := outside(t, dir)
		staged, err := Stage(t.Context(), src, dst, sceneOptions())
		if err != nil {
			t.Fatal(err)
		}
		must(t, os.RemoveAll(dir+"/to/d"))
		must(t, os.Symlink("../outside", dir+"/to/d"))
		if err := staged.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		sameTree(t, "outside", outside(t, dir), before)
		if stats := staged.Stats(); stats.Skipped == 0 || len(stats.Notes) == 0 {
			t.Errorf("what was left is not told: %+v", stats)
		}
		if content, _ := os.ReadFile(dir + "/to/f"); string(content) != "evil" {
			t.Errorf("the rest was not published: %q", content)
		}
	})
	t.Run("a hard link between stage and publish", func(t *testing.T) {
		dir, dst := victim(t)
		write(t, dir+"/to/mode", "evil")
		setMtime(t, dir+"/to/mode", 1000)
		e := Entry{Name: "mode", Mode: unix.S_IFREG | 0o6777, Size: 4, Mtime: Time{Sec: 1000, Nsec: 7}, UID: 7, GID: 7}
		src := &fake{can: Abilities{Nanoseconds: true}, files: evil, dirs: []Dir{listing("", e)}}
		staged, err := Stage(t.Context(), src, dst, Archive())
		must(t, err)
		before := snapshot(t, dir+"/outside")
		must(t, os.Remove(dir+"/to/mode"))
		must(t, os.Link(dir+"/outside/canary", dir+"/to/mode"))
		must(t, staged.Publish(t.Context()))
		sameTree(t, "outside", snapshot(t, dir+"/outside"), before)
		if stats := staged.Stats(); stats.Skipped != 1 {
			t.Errorf("what was left is not told: %+v", stats)
		}
	})
	t.Run("our own directory", func(t *testing.T) {
		dir, dst := victim(t)
		before := outside(t, dir)
		must(t, os.Symlink("../outside", dir+"/to/"+stateDir))
		if _, err := Sync(t.Context(), src, dst, sceneOptions()); err == nil {
			t.Error("staged through a link")
		}
		sameTree(t, "outside", outside(t, dir), before)
	})
	t.Run("our own directory, open to others", func(t *testing.T) {
		dir, dst := victim(t)
		mkdirs(t, dir+"/to/"+stateDir)
		must(t, os.Chmod(dir+"/to/"+stateDir, 0o777))
		if _, err := Sync(t.Context(), src, dst, sceneOptions()); err == nil {
			t.Error("staged where everybody can write")
		}
	})
}

func TestCancelled(t *testing.T) {
	cause := errors.New("the operator had enough")
	for _, when := range []string{"walking", "reading", "within a body"} {
		t.Run(when, func(t *testing.T) {
			from, to := scene(t)
			before := snapshot(t, to)
			inner, dst := open(t, from, to)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			src := &cancelling{Source: inner, when: when, cancel: func() { cancel(cause) }}
			staged, err := Stage(ctx, src, dst, sceneOptions())
			if !errors.Is(err, cause) || staged != nil {
				t.Errorf("got %v, %v; want the cause", staged, err)
			}
			sameTree(t, when, snapshot(t, to), before)
			if _, err := os.Lstat(filepath.Join(to, stateDir)); !os.IsNotExist(err) {
				t.Errorf("%s was left: %v", stateDir, err)
			}
		})
	}
}

// cancelling cancels in the middle of something.
type cancelling struct {
	Source
	when   string
	cancel func()
}

func (c *cancelling) Walk(ctx context.Context, o WalkOptions) iter.Seq2[Dir, error] {
	return func(yield func(Dir, error) bool) {
		for d, err := range c.Source.Walk(ctx, o) {
			if c.when == "walking" && d.Path == "kept" {
				c.cancel()
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

func (c *cancelling) Read(ctx context.Context, want iter.Seq[Want]) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		n := 0
		for f, err := range c.Source.Read(ctx, want) {
			n++
			if c.when == "reading" && n == 2 {
				c.cancel()
			}
			if c.when == "within a body" && n == 2 {
				f.Body = io.MultiReader(io.LimitReader(f.Body, 1), cancelReader(c.cancel), f.Body)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

type cancelReader func()

func (c cancelReader) Read([]byte) (int, error) {
	c()
	return 0, io.EOF
}

func TestReadFile(t *testing.T) {
	dir := tempDir(t)
	write(t, dir+"/f", "content")
	must(t, os.Symlink("f", dir+"/l"))
	src, _ := open(t, dir, dir)
	if content, err := ReadFile(t.Context(), src, "f", 7); err != nil || !bytes.Equal(content, []byte("content")) {
		t.Errorf("%q, %v", content, err)
	}
	if _, err := ReadFile(t.Context(), src, "f", 6); err == nil {
		t.Error("read more than the limit")
	}
	if _, err := ReadFile(t.Context(), src, "g", 6); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := ReadFile(t.Context(), src, "l", 6); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("through a link: %v", err)
	}
	liar := &fake{files: func(path string, _ int) File {
		return File{Path: path, Entry: fileEntry("f", 5), Body: tooMuch()}
	}}
	if _, err := ReadFile(t.Context(), liar, "f", 7); !errors.Is(err, ErrHostile) {
		t.Errorf("a length that lies: %v", err)
	}
}
