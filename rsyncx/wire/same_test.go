package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// fake is a source of a listing made up by a test.
type fake struct {
	rsyncx.Source
	rsyncx.NoSums
	dirs  []rsyncx.Dir
	sums  func(rsyncx.SumWant) rsyncx.FileSums
	asked func(rsyncx.WalkOptions)
}

func (f *fake) Abilities() rsyncx.Abilities { return rsyncx.Abilities{Sums: f.sums != nil} }
func (f *fake) Close() error                { return nil }

func (f *fake) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	if f.asked != nil {
		f.asked(o)
	}
	return func(yield func(rsyncx.Dir, error) bool) {
		for _, d := range f.dirs {
			var err error
			if d.Path == "bad" {
				d, err = rsyncx.Dir{}, &rsyncx.PathError{Path: "bad", Err: os.ErrPermission}
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

func (f *fake) Sums(ctx context.Context, want iter.Seq[rsyncx.SumWant]) iter.Seq2[rsyncx.FileSums, error] {
	return func(yield func(rsyncx.FileSums, error) bool) {
		for w := range want {
			if !yield(f.sums(w), nil) {
				return
			}
		}
	}
}

func openFake(t testing.TB, f *fake) rsyncx.Source {
	t.Helper()
	p := newTestPool(t, Server{Roots: []string{"/"}, Open: func(string, rsyncx.View) (rsyncx.Source, error) { return f, nil }})
	src, err := p.Source(t.Context(), "/", rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// manyDirs makes a listing of n directories below the root, with files in each. Some
// have a file with two names, one is partial, one cannot be read.
func manyDirs(n, files int) []rsyncx.Dir {
	dir := rsyncx.Entry{Mode: 0o040755, Mtime: rsyncx.Time{Sec: 1000}}
	root := rsyncx.Dir{Self: dir}
	all := []rsyncx.Dir{root}
	for i := range n {
		d := rsyncx.Dir{Self: dir, Path: fmt.Sprintf("d%06d", i)}
		if i%97 == 3 {
			d.Path = "bad"
		}
		d.Self.Name = d.Path
		for k := range files {
			e := rsyncx.Entry{Name: fmt.Sprintf("file%03d", k), Mode: 0o100644, Size: int64(i), Mtime: rsyncx.Time{Sec: int64(k)}, Ino: uint64(i*files + k), Nlink: 1}
			if i%31 == 5 {
				e.Nlink = 2
			}
			d.Entries = append(d.Entries, e)
		}
		d.Partial = i%53 == 7
		if d.Path != "bad" {
			all[0].Entries = append(all[0].Entries, d.Self)
		}
		all = append(all, d)
	}
	return all
}

func TestVerdicts(t *testing.T) {
	o := rsyncx.DigestOptions{Times: true, HardLinks: true}
	for _, c := range []struct {
		name string
		same func(i int) bool
	}{
		{"all the same", func(int) bool { return true }},
		{"none the same", func(int) bool { return false }},
		{"every third the same", func(i int) bool { return i%3 == 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dirs := manyDirs(2*maxAhead+100, 2)
			src := openFake(t, &fake{dirs: dirs})
			var mu sync.Mutex
			asked := map[string]bool{}
			index := map[string]int{}
			for i, d := range dirs {
				index[d.Path] = i
			}
			verdict := func(p rsyncx.Piece, d rsyncx.DirDigest) bool {
				path := p.Path
				mu.Lock()
				defer mu.Unlock()
				i := index[path]
				if want, ok := rsyncx.DigestEntries(dirs[i].Entries, o); !ok || d != want || asked[path] {
					t.Errorf("%q: digest %x, want %x; asked before: %v", path, d, want, asked[path])
				}
				asked[path] = true
				return c.same(i)
			}
			n := 0
			for d, err := range src.Walk(t.Context(), rsyncx.WalkOptions{Same: verdict, Digest: o}) {
				want := dirs[n]
				i := n
				n++
				if want.Path == "bad" {
					var single *rsyncx.PathError
					if !errors.As(err, &single) || single.Path != "bad" {
						t.Fatalf("%+v, %v", d, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				_, can := rsyncx.DigestEntries(want.Entries, o)
				can = can && !want.Partial
				mu.Lock()
				if asked[want.Path] != can {
					t.Errorf("%q: it was asked: %v, want %v", want.Path, asked[want.Path], can)
				}
				mu.Unlock()
				switch {
				case d.Path != want.Path || d.Same != (can && c.same(i)):
					t.Fatalf("directory %d is %q, the same: %v", i, d.Path, d.Same)
				case d.Same && (len(d.Entries) > 0 || (d.Self != rsyncx.Entry{}) != (d.Path == "")):
					t.Fatalf("%+v", d)
				case !d.Same && (d.Self != want.Self || !slices.Equal(d.Entries, want.Entries) || d.Partial != want.Partial):
					t.Fatalf("%+v, want %+v", d, want)
				}
			}
			if n != len(dirs) {
				t.Errorf("%d of %d", n, len(dirs))
			}
		})
	}
}

// TestVerdictsOfALocalTree: directories that were just changed are sent in any case.
func TestVerdictsOfALocalTree(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, f := range []string{"a/f", "b/f", "fresh/f"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
		if f != "fresh/f" {
			if err := os.Chtimes(filepath.Join(dir, f), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	src, err := newTestPool(t, Server{Roots: []string{dir}}).Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for d, err := range src.Walk(t.Context(), rsyncx.WalkOptions{Same: func(rsyncx.Piece, rsyncx.DirDigest) bool { return true }}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(d.Path, d.Same))
	}
	if want := []string{"true", "atrue", "btrue", "freshfalse"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestVerdictWalkStops(t *testing.T) {
	dirs := manyDirs(2*maxAhead, 3)
	f := &fake{dirs: dirs}
	dials := 0
	p := NewPool(2, func(ctx context.Context) (*Conn, error) {
		dials++
		rwc, _ := serve(t, Server{Roots: []string{"/"}, Open: func(string, rsyncx.View) (rsyncx.Source, error) { return f, nil }})
		return Dial(ctx, rwc, quick())
	})
	defer p.Close()
	src, err := p.Source(t.Context(), "/", rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	for _, stopAfter := range []int{1, 2, 1000, maxAhead + 1, len(dirs)} {
		for _, same := range []bool{true, false} {
			n := 0
			for range src.Walk(t.Context(), rsyncx.WalkOptions{Same: func(rsyncx.Piece, rsyncx.DirDigest) bool { return same }}) {
				if n++; n == stopAfter {
					break
				}
			}
			if n != stopAfter {
				t.Errorf("%d directories, want %d", n, stopAfter)
			}
		}
	}
	if dials != 1 {
		t.Errorf("%d agents were started", dials)
	}
}

func TestVerdictWalkIsCancelled(t *testing.T) {
	mine := errors.New("mine")
	src := openFake(t, &fake{dirs: manyDirs(2*maxAhead, 3)})
	for _, after := range []int{1, 500, maxAhead + 50} {
		ctx, cancel := context.WithCancelCause(t.Context())
		n, last := 0, error(nil)
		var asked atomic.Int64
		for _, err := range src.Walk(ctx, rsyncx.WalkOptions{Same: func(rsyncx.Piece, rsyncx.DirDigest) bool { return asked.Add(1)%2 == 0 }}) {
			if n++; n == after {
				cancel(mine)
			}
			last = err
		}
		if !errors.Is(last, mine) {
			t.Errorf("cancelled after %d: %v", after, last)
		}
		cancel(nil)
	}
}

func aheadFrame(items ...string) []byte {
	var b []byte
	last := ""
	for _, path := range items {
		switch path {
		case "given":
			b = append(b, aheadGiven)
			continue
		case "":
			b = appendEntry(append(b, aheadRoot), &rsyncx.Entry{Mode: 0o040755}, &rsyncx.Entry{})
		default:
			shared := sharedPrefix(last, path)
			b = appendString(append(b, aheadAsked, byte(shared)), path[shared:])
		}
		b, last = append(b, make([]byte, 2+16)...), path // without bounds, and a digest
	}
	return appendFrame(nil, frameAhead, b)
}

func TestHostileAnnouncements(t *testing.T) {
	end, done := appendFrame(nil, frameDirEnd, nil), appendFrame(nil, frameDone, nil)
	full := func(path string) []byte { return slices.Concat(dirFrame(path), end) }
	endless := func(path string) []byte {
		var b []byte
		for range maxAhead + 10 {
			b = append(b, aheadFrame(path)...)
		}
		return b
	}
	for _, c := range []struct {
		name string
		same bool
		sent []byte // before the verdicts
		then []byte // after them
		want error

		judged bool
	}{
		{"right", true, aheadFrame("", "a"), done, nil, true},
		{"right and not the same", false, aheadFrame("", "a"), slices.Concat(full(""), full("a"), done), nil, true},
		{"right and given", true, slices.Concat(aheadFrame("given"), full("")), done, nil, false},
		{"a listing before the verdict", false, slices.Concat(aheadFrame("", "a"), full("a")), nil, rsyncx.ErrHostile, false},
		{"a listing after same", true, aheadFrame("", "a"), slices.Concat(full("a"), done), rsyncx.ErrHostile, true},
		{"another directory", false, aheadFrame(""), slices.Concat(full("b"), done), rsyncx.ErrHostile, true},
		{"an error instead", false, aheadFrame(""), slices.Concat(appendFrame(nil, frameDirError, appendError(appendString(nil, ""), os.ErrPermission)), done), rsyncx.ErrHostile, true},
		{"a listing that was not announced", true, full("a"), nil, rsyncx.ErrHostile, false},
		{"an end with a listing due", false, aheadFrame("", "a"), done, rsyncx.ErrHostile, true},
		{"an end with one given due", true, aheadFrame("given"), done, rsyncx.ErrHostile, false},
		{"a path outside", true, aheadFrame("../x"), done, rsyncx.ErrHostile, false},
		{"an absolute path", true, aheadFrame("/x"), done, rsyncx.ErrHostile, false},
		{"a prefix longer than there is", true, appendFrame(nil, frameAhead, []byte{aheadAsked, 9, 1, 'x'}), done, rsyncx.ErrHostile, false},
		{"half a digest", true, appendFrame(nil, frameAhead, []byte{aheadAsked, 0, 1, 'x', 0, 0, 1, 2, 3}), done, rsyncx.ErrHostile, false},
		{"an unknown announcement", true, appendFrame(nil, frameAhead, []byte{3}), done, rsyncx.ErrHostile, false},
		{"endless gifts", true, endless("given"), done, rsyncx.ErrHostile, false},
		{"a file", true, slices.Concat(aheadFrame("given"), appendFrame(nil, frameFile, nil)), done, rsyncx.ErrHostile, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
				hello(rw)
				if request(rw, frameWalk) != nil {
					return
				}
				rw.Write(c.sent)
				if c.judged {
					request(rw, frameVerdicts)
				}
				rw.Write(c.then)
				request(rw, frameStop)
			}), quick())
			if err != nil {
				t.Fatal(err)
			}
			hold := make(chan struct{})
			same := func(rsyncx.Piece, rsyncx.DirDigest) bool {
				if c.then == nil { // the verdict comes too late
					<-hold
				}
				return c.same
			}
			time.AfterFunc(100*time.Millisecond, func() { close(hold) })
			var last error
			for d, err := range conn.Walk(t.Context(), Tree{Root: "/home"}, rsyncx.WalkOptions{Same: same, MaxEntries: 3000}) {
				if err == nil && rsyncx.CheckPath(d.Path) != nil {
					t.Errorf("%q was let through", d.Path)
				}
				last = err
			}
			if !errors.Is(last, c.want) || (last == nil) != (c.want == nil) {
				t.Fatalf("%v, want %v", last, c.want)
			}
			if c.want != nil && conn.usable() {
				t.Error("the connection may be used again")
			}
		})
	}
}

func TestHostileVerdicts(t *testing.T) {
	f := &fake{dirs: manyDirs(10, 1)}
	walk := appendWalk(appendTree(nil, Tree{Root: "/"}), &rsyncx.WalkOptions{Same: func(rsyncx.Piece, rsyncx.DirDigest) bool { return true }})
	walk = append(append(walk, 100), 0)
	for _, c := range []struct {
		name string
		sent []byte
	}{
		{"more than were announced", appendFrame(nil, frameVerdicts, append([]byte{40}, make([]byte, 5)...))},
		{"a count without bits", appendFrame(nil, frameVerdicts, []byte{40})},
		{"too many bits", appendFrame(nil, frameVerdicts, []byte{1, 0, 0})},
		{"nothing", appendFrame(nil, frameVerdicts, nil)},
		{"another request", appendFrame(nil, frameClock, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := slices.Concat([]byte(magic), appendFrame(nil, frameHello, append(appendHello(nil, "x"), 0)), appendFrame(nil, frameWalk, walk), c.sent)
			near, far := pair()
			go near.Write(in)
			go func() {
				for b := make([]byte, 1<<16); ; {
					if _, err := near.Read(b); err != nil {
						return
					}
				}
			}()
			err := Serve(t.Context(), far, far, Server{Roots: []string{"/"}, Open: func(string, rsyncx.View) (rsyncx.Source, error) { return f, nil }})
			near.Close()
			if !errors.Is(err, rsyncx.ErrHostile) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestWalkOptionsArrive: what the agent's source is asked is what the client wants.
func TestWalkOptionsArrive(t *testing.T) {
	only := make([]string, 30_000)
	for i := range only {
		only[i] = fmt.Sprintf("directory/with/a/long/name/%08d", i)
	}
	for _, o := range []rsyncx.WalkOptions{
		{OneFileSystem: true}, {OmitMounts: true}, {Flat: true}, {Xattrs: true}, {ACLs: true}, {Only: []string{}}, {Only: []string{"a", "b/c"}}, {Only: only, Flat: true},
	} {
		var got rsyncx.WalkOptions
		src := openFake(t, &fake{asked: func(o rsyncx.WalkOptions) { got = o }})
		for _, err := range src.Walk(t.Context(), o) {
			t.Fatal(err)
		}
		if got.OneFileSystem != o.OneFileSystem || got.OmitMounts != o.OmitMounts || got.Flat != o.Flat || got.Xattrs != o.Xattrs || got.ACLs != o.ACLs ||
			!slices.Equal(got.Only, o.Only) || (got.Only == nil) != (o.Only == nil) || got.MaxEntries != rsyncx.DefaultMaxEntries {
			t.Errorf("the agent's source was asked another thing than %+v", o.Flat)
		}
	}
}
