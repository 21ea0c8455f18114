package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// walked walks and writes down what was yielded, one line for each directory.
func walked(t testing.TB, src Source, o WalkOptions) []string {
	t.Helper()
	var lines []string
	for d, err := range src.Walk(t.Context(), o) {
		var single *PathError
		switch {
		case errors.As(err, &single):
			lines = append(lines, "cannot read "+single.Path)
			continue
		case err != nil:
			t.Fatal(err)
		}
		line := "/" + d.Path + ":"
		for _, e := range d.Entries {
			line += " " + e.Name
		}
		if d.Partial {
			line += " …"
		}
		lines = append(lines, line)
	}
	return lines
}

// reference is walked of a whole tree, one name after the other.
func reference(t testing.TB, root, path string) []string {
	t.Helper()
	all, err := os.ReadDir(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	line := "/" + path + ":"
	for _, e := range all {
		line += " " + e.Name()
	}
	lines := []string{line}
	for _, e := range all {
		if e.IsDir() {
			lines = append(lines, reference(t, root, joinPath(path, e.Name()))...)
		}
	}
	return lines
}

// bushy makes a tree of about n directories of which some are empty, some wide,
// some deep.
func bushy(t testing.TB, r *rand.Rand, dir string, n int) {
	t.Helper()
	dirs := []string{dir}
	for i := range n {
		parent := dirs[len(dirs)-1-min(len(dirs)-1, r.IntN(1+r.IntN(len(dirs))))]
		sub := filepath.Join(parent, fmt.Sprintf("%c%d", 'a'+r.IntN(26), i))
		mkdirs(t, sub)
		dirs = append(dirs, sub)
		for k := range r.IntN(4) {
			write(t, filepath.Join(sub, fmt.Sprintf("%c%d", 'A'+r.IntN(26), k)), "")
		}
	}
}

func TestLocalWalkKeepsTheOrder(t *testing.T) {
	for seed := range uint64(8) {
		dir := tempDir(t)
		bushy(t, rand.New(rand.NewPCG(seed, 0)), dir, 600)
		src, dst := open(t, dir, dir)
		dst.Close()
		if got, want := walked(t, src, WalkOptions{}), reference(t, dir, ""); !slices.Equal(got, want) {
			t.Fatalf("seed %d: walked\n%s\nwant\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestLocalWalkIsBounded looks, at every turn, how far ahead the walk is.
func TestLocalWalkIsBounded(t *testing.T) {
	dir := tempDir(t)
	for i := range 1000 {
		mkdirs(t, fmt.Sprintf("%s/%03d/sub", dir, i))
	}
	src, dst := open(t, dir, dir)
	dst.Close()
	before := descriptors(t)
	w := src.(*local).newWalk(t.Context(), WalkOptions{})
	seen, most := 0, 0
	err := w.run(func(Dir, error) bool {
		seen++
		w.mu.Lock()
		defer w.mu.Unlock()
		most = max(most, w.dirs)
		if n := descriptors(t) - before; n > 2*aheadDirs {
			t.Errorf("%d descriptors are open", n)
		}
		return true
	})
	w.end()
	if err != nil || seen != 2001 {
		t.Errorf("%d directories, %v", seen, err)
	}
	if workers := runtime.GOMAXPROCS(0) + 1; most > aheadDirs+workers {
		t.Errorf("%d directories waited, more than %d", most, aheadDirs+workers)
	}
	if w.bytes != 0 || w.dirs != 0 {
		t.Errorf("%d bytes of %d directories wait after the end", w.bytes, w.dirs)
	}
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestLocalWalkLeavesNothingBehind ends walks after every number of turns, in
// every way, and counts descriptors and goroutines.
func TestLocalWalkLeavesNothingBehind(t *testing.T) {
	dir := tempDir(t)
	bushy(t, rand.New(rand.NewPCG(1, 1)), dir, 300)
	src, dst := open(t, dir, dir)
	dst.Close()
	cause := errors.New("the cause")
	fds, routines := descriptors(t), runtime.NumGoroutine()
	for turns := 1; turns <= 300; turns += 13 {
		n := 0
		for _, err := range src.Walk(t.Context(), WalkOptions{}) {
			if n++; n == turns || err != nil {
				break
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		n = 0
		var last error
		for _, err := range src.Walk(ctx, WalkOptions{}) {
			if last = err; n == turns {
				cancel(cause)
			}
			n++
		}
		cancel(nil)
		if turns < 300 && !errors.Is(last, cause) {
			t.Errorf("cancelled after %d turns: %v after %d", turns, last, n)
		}
		for _, err := range src.Walk(t.Context(), WalkOptions{MaxEntries: int64(turns)}) {
			last = err
		}
		if !errors.Is(last, ErrTooMany) {
			t.Errorf("bounded to %d: %v", turns, last)
		}
	}
	if n := descriptors(t); n != fds {
		t.Errorf("%d descriptors, %d before", n, fds)
	}
	for try := 0; runtime.NumGoroutine() > routines; try++ {
		if runtime.Gosched(); try > 1_000_000 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), routines)
		}
	}
}

func TestLocalWalkWhileTheTreeChanges(t *testing.T) {
	dir := tempDir(t)
	for i := range 200 {
		write(t, fmt.Sprintf("%s/%03d/sub/f", dir, i), "")
	}
	src, dst := open(t, dir, dir)
	dst.Close()
	before := descriptors(t)
	n, gone := 0, 0
	for d, err := range src.Walk(t.Context(), WalkOptions{}) {
		var one *PathError
		if errors.As(err, &one) && errors.Is(err, fs.ErrNotExist) && one.Path >= "197" {
			gone++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; d.Path == "" {
			must(t, os.RemoveAll(dir+"/199"))
			must(t, os.Rename(dir+"/198/sub", dir+"/elsewhere"))
			must(t, os.WriteFile(dir+"/198/sub", nil, 0o644))
			must(t, os.RemoveAll(dir+"/197/sub"))
			must(t, os.Symlink("../elsewhere", dir+"/197/sub"))
		}
	}
	if n < 1+2*197 || n > 1+2*200 || gone == 0 || gone > 3 {
		t.Errorf("%d directories, and %d that went away", n, gone)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
