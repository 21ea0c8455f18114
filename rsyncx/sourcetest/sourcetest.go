// Package sourcetest is the contract of rsyncx.Source as a test suite, to be
// run over every implementation.
//
// It owns one invariant: what the suite accepts, package rsyncx can sync from.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// Open returns a Source over the directory dir of this host. It ends the test on
// an error. The suite closes what it returns.
type Open func(t *testing.T, dir string) rsyncx.Source

// TestSource runs the suite. What an implementation says it lacks in its
// Abilities is not asked of it.
func TestSource(t *testing.T, open Open) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"lstat", testLstat},
		{"walk", testWalk},
		{"walk of odd names", testOddNames},
		{"walk of a long directory", testLongDirectory},
		{"walk is bounded", testTooMany},
		{"walk with a filter", testFilter},
		{"walk stops", testWalkStops},
		{"walk is cancelled", testWalkCancelled},
		{"read", testRead},
		{"read refuses", testReadRefuses},
		{"read in part", testReadInPart},
		{"read many", testReadMany},
		{"read while it changes", testReadTorn},
		{"read stops", testReadStops},
		{"read is cancelled", testReadCancelled},
		{"sums", testSums},
		{"sums of ranges", testSumsOfRanges},
		{"sums refuse", testSumsRefuse},
		{"sums while it changes", testSumsTorn},
		{"sums stop", testSumsStop},
		{"sums are cancelled", testSumsCancelled},
		{"several at once", testParallel},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, open) })
	}
}

func start(t *testing.T, open Open, dir string) (context.Context, rsyncx.Source) {
	t.Helper()
	src := open(t, dir)
	if before, again := src.Abilities(), src.Abilities(); before != again {
		t.Error("Abilities changes")
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return t.Context(), src
}

func testLstat(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	for path := range tree.want {
		e, err := src.Lstat(ctx, path)
		if err != nil {
			t.Errorf("Lstat(%q): %v", path, err)
			continue
		}
		tree.check(t, src.Abilities(), path, e)
	}
	for _, path := range []string{"missing", "missing/x", "etc/missing"} {
		if _, err := src.Lstat(ctx, path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Lstat(%q): %v, want one that wraps fs.ErrNotExist", path, err)
		}
	}
	for _, path := range append([]string{"to-etc/app.conf", "etc/app.conf/x"}, badPaths...) {
		if e, err := src.Lstat(ctx, path); err == nil {
			t.Errorf("Lstat(%q) gave %+v, want an error", path, e)
		}
	}
	done, cancel := context.WithCancelCause(ctx)
	cancel(errTest)
	if _, err := src.Lstat(done, "etc"); !errors.Is(err, errTest) {
		t.Errorf("Lstat when cancelled: %v, want the cause", err)
	}
}

// badPaths leave the root, or are not in the one form that paths have.
var badPaths = []string{"..", "../x", "/etc", "etc/", "etc//app.conf", "etc/./app.conf", "etc/../etc", ".", "a\x00b",
	strings.Repeat("n", 256)}

var errTest = errors.New("the cause that the test gave")

func testWalk(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	tree.checkWalk(t, src, walk(t, src.Walk(ctx, rsyncx.WalkOptions{})))
}

func testOddNames(t *testing.T, open Open) {
	tree := newTreeOf(t, []node{
		{path: "new\nline", content: "1"}, {path: "bell\a\x1b[31m", content: "2"}, {path: "invalid \xff\xfe utf-8", content: "3"},
		{path: "back\\slash \\#012", content: "4"}, {path: "-rf", content: "5"}, {path: "spaces  at end ", content: "6"},
		{path: "dir.", dir: true}, {path: "dir", dir: true}, {path: "dir!", dir: true}, {path: "dir/x", content: "7"},
		{path: "dir!/x", content: "8"}, {path: "dir./x", content: "9"}, {path: "*", content: "10"}, {path: "...", content: "11"},
		{path: strings.Repeat("l", 255), content: "12"}, {path: "link", target: "to\n\xff nowhere"},
	})
	ctx, src := start(t, open, tree.dir)
	tree.checkWalk(t, src, walk(t, src.Walk(ctx, rsyncx.WalkOptions{})))
	for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values(tree.files()))) {
		if err != nil {
			t.Fatal(err)
		}
		tree.checkFile(t, src.Abilities(), f)
	}
}

func testTooMany(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	var last error
	for _, err := range src.Walk(ctx, rsyncx.WalkOptions{MaxEntries: 3}) {
		last = err
	}
	if !errors.Is(last, rsyncx.ErrTooMany) {
		t.Errorf("a walk over its limit ended with %v, want ErrTooMany", last)
	}
}

func testWalkStops(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	for range src.Walk(ctx, rsyncx.WalkOptions{}) {
		break
	}
	tree.checkWalk(t, src, walk(t, src.Walk(ctx, rsyncx.WalkOptions{})))
}

func testWalkCancelled(t *testing.T, open Open) {
	var nodes []node
	for i := range 2000 {
		nodes = append(nodes, node{path: fmt.Sprintf("d%04d", i), dir: true})
	}
	tree := newTreeOf(t, nodes)
	ctx, src := start(t, open, tree.dir)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	seen, last := 0, error(nil)
	for _, err := range src.Walk(ctx, rsyncx.WalkOptions{}) {
		cancel(errTest)
		seen++
		last = err
	}
	if !errors.Is(last, errTest) {
		t.Errorf("the cancelled walk ended with %v after %d directories, want the cause", last, seen)
	}
}

func testRead(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	var got []string
	for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values(tree.files()))) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f.Path)
		tree.checkFile(t, src.Abilities(), f)
	}
	if !slices.Equal(got, tree.files()) {
		t.Errorf("read %q, want %q", got, tree.files())
	}
	for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values([]string(nil)))) {
		t.Errorf("reading nothing gave %+v, %v", f, err)
	}
}

func testReadRefuses(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	missing := []string{"missing", "missing/x"}
	wrong := append([]string{"", "etc", "to-etc", "to-etc/app.conf", "pipe", "etc/app.conf/x"}, badPaths...)
	want := slices.Concat(missing, wrong, []string{"etc/app.conf"})
	n := 0
	for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values(want))) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case n >= len(want) || f.Path != want[n]:
			t.Fatalf("answer %d is for %q", n, f.Path)
		case n == len(want)-1:
			tree.checkFile(t, src.Abilities(), f)
		case f.Err == nil || f.Body != nil:
			t.Errorf("Read(%q): %v, want an error and no body", f.Path, f.Err)
		case n < len(missing) && !errors.Is(f.Err, fs.ErrNotExist):
			t.Errorf("Read(%q): %v, want one that wraps fs.ErrNotExist", f.Path, f.Err)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d answers to %d paths", n, len(want))
	}
}

func testReadInPart(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	var earlier io.Reader
	for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values(tree.files()))) {
		if err != nil || f.Err != nil {
			t.Fatal(err, f.Err)
		}
		if earlier != nil {
			if n, err := earlier.Read(make([]byte, 1)); n > 0 || err == nil {
				t.Error("the body of an earlier turn can still be read")
			}
		}
		switch earlier = f.Body; f.Path {
		case "big":
			io.CopyN(io.Discard, f.Body, 70_000)
		case "etc/app.conf":
		default:
			tree.checkFile(t, src.Abilities(), f)
		}
	}
}

func testReadMany(t *testing.T, open Open) {
	var nodes []node
	for d := range 20 {
		nodes = append(nodes, node{path: fmt.Sprintf("d%02d", d), dir: true})
		for i := range 100 {
			nodes = append(nodes, node{path: fmt.Sprintf("d%02d/f%02d", d, i), content: strings.Repeat("x", d*i)})
		}
	}
	tree := newTreeOf(t, nodes)
	ctx, src := start(t, open, tree.dir)
	n := 0
	for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values(tree.files()))) {
		if err != nil {
			t.Fatal(err)
		}
		tree.checkFile(t, src.Abilities(), f)
		n++
	}
	if n != 2000 {
		t.Errorf("%d of 2000 files", n)
	}
}

func testReadStops(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	endless := func(yield func(string) bool) {
		for yield("etc/app.conf") {
		}
	}
	n := 0
	for f, err := range src.Read(ctx, rsyncx.Wants(endless)) {
		if err != nil {
			t.Fatal(err)
		}
		tree.checkFile(t, src.Abilities(), f)
		if n++; n == 10 {
			break
		}
	}
	if _, err := src.Lstat(ctx, "etc"); err != nil {
		t.Errorf("after a read that was left early: %v", err)
	}
}

func testReadCancelled(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	endless := func(yield func(string) bool) {
		for yield("etc/app.conf") {
		}
	}
	n, last := 0, error(nil)
	for _, err := range src.Read(ctx, rsyncx.Wants(endless)) {
		if n++; n == 10 {
			cancel(errTest)
		}
		if last = err; last != nil {
			break
		}
	}
	if !errors.Is(last, errTest) {
		t.Errorf("the cancelled read ended with %v, want the cause", last)
	}
}

func testParallel(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for _, err := range src.Walk(ctx, rsyncx.WalkOptions{}) {
				if err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for f, err := range src.Read(ctx, rsyncx.Wants(slices.Values(tree.files()))) {
				if err != nil {
					t.Error(err)
					continue
				}
				tree.checkFile(t, src.Abilities(), f)
			}
		})
	}
	all.Wait()
	// One goroutine may also read while it walks.
	for d, err := range src.Walk(ctx, rsyncx.WalkOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range src.Read(ctx, rsyncx.Wants(regular(d))) {
			if err != nil {
				t.Fatal(err)
			}
			tree.checkFile(t, src.Abilities(), f)
		}
	}
}

func regular(d rsyncx.Dir) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, e := range d.Entries {
			if e.Mode&typeMask == typeRegular && !yield(join(d.Path, e.Name)) {
				return
			}
		}
	}
}
