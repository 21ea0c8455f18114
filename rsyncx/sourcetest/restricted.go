package sourcetest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// TestRestricted asks of a source what WalkOptions.Only and Flat say.
func TestRestricted(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src := start(t, open, tree.dir)
	for _, c := range []struct {
		o    rsyncx.WalkOptions
		want string
	}{
		{rsyncx.WalkOptions{Only: []string{"etc/deep", "run.sh"}}, "/: etc run.sh … /etc: deep … /etc/deep: er /etc/deep/er: file"},
		{rsyncx.WalkOptions{Only: []string{"etc/deep", "run.sh"}, Flat: true}, "/: etc run.sh … /etc: deep …"},
		{rsyncx.WalkOptions{Only: []string{"etc", "etc/deep/er"}, Flat: true}, "/: etc … /etc: deep … /etc/deep: er …"},
		{rsyncx.WalkOptions{Flat: true}, "/: big empty empty.d etc pipe run.sh to-etc to-nowhere"},
		{rsyncx.WalkOptions{Only: []string{}}, "/: …"},
		{rsyncx.WalkOptions{Only: []string{"", "etc/deep"}, Flat: true}, "/: big empty empty.d etc pipe run.sh to-etc to-nowhere /etc: deep …"},
		{rsyncx.WalkOptions{Only: []string{"etc/nix", "nix", "nix/x", "run.sh", "run.sh/x", "to-etc/deep", "to-nowhere"}},
			"/: etc run.sh to-nowhere … /etc: … missing etc/nix nix nix/x run.sh/x to-etc/deep"},
		{rsyncx.WalkOptions{Only: []string{".drsync", "empty"}}, "/: empty …"},
		{rsyncx.WalkOptions{Only: []string{"etc/deep", "etc/deep/er/file", "etc/deep/er/file/x", "etc/deep/er/nix", "etc/deep/nix/x"}},
			"/: etc … /etc: deep … /etc/deep: er /etc/deep/er: file missing etc/deep/er/file/x etc/deep/er/nix etc/deep/nix/x"},
	} {
		if got := outline(t, src.Walk(ctx, c.o)); got != c.want {
			t.Errorf("only %q, flat %v:\nwalked %s\nwant   %s", c.o.Only, c.o.Flat, got, c.want)
		}
	}
	for _, wrong := range [][]string{{"b", "a"}, {"a", "a"}, {"../x"}, {"/etc"}} {
		var last error
		for _, err := range src.Walk(ctx, rsyncx.WalkOptions{Only: wrong}) {
			last = err
		}
		if last == nil {
			t.Errorf("a walk of only %q was made", wrong)
		}
	}
}

// outline writes down what a walk lists, and then what it misses.
func outline(t *testing.T, dirs func(func(rsyncx.Dir, error) bool)) string {
	t.Helper()
	var lines, missing []string
	for d, err := range dirs {
		var single *rsyncx.PathError
		if errors.As(err, &single) && errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, single.Path)
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		line := []string{"/" + d.Path + ":"}
		for _, e := range d.Entries {
			line = append(line, e.Name)
		}
		if d.Partial {
			line = append(line, "…")
		}
		lines = append(lines, strings.Join(line, " "))
	}
	if slices.Sort(missing); missing != nil {
		lines = append(append(lines, "missing"), missing...)
	}
	return strings.Join(lines, " ")
}

// TestDigests asks of a source with Abilities.Digests what WalkOptions.Same says.
func TestDigests(t *testing.T, open Open) {
	var nodes []node
	for _, d := range []string{"a", "a/b", "a/b/c", "d", "e", "fresh"} {
		nodes = append(nodes, node{path: d, dir: true}, node{path: d + "/file", content: d}, node{path: d + "/link", target: d})
	}
	tree := newTreeOf(t, nodes)
	fresh := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(tree.dir, "fresh/file"), fresh, fresh); err != nil {
		t.Fatal(err)
	}
	ctx, src := start(t, open, tree.dir)
	if !src.Abilities().Digests {
		t.Fatal("this source does not ask")
	}
	digest := rsyncx.DigestOptions{Perms: true, Owner: true, Group: true, Times: true, Nanoseconds: src.Abilities().Nanoseconds}
	whole := map[string]rsyncx.Dir{}
	for _, d := range walk(t, src.Walk(ctx, rsyncx.WalkOptions{})) {
		whole[d.Path] = d
	}
	testDigestsAsked(ctx, t, src, digest, whole, nil)
	testDigestsAsked(ctx, t, src, digest, whole, []string{"", "a/b", "e"})
	testDigestsEnd(ctx, t, src, digest)
}

// testDigestsAsked walks what was walked before, now with digests, and says of
// some directories that they are the same.
func testDigestsAsked(ctx context.Context, t *testing.T, src rsyncx.Source, digest rsyncx.DigestOptions, whole map[string]rsyncx.Dir, same []string) {
	var asked askedFor
	answer := asked.answer(func(path string) bool { return slices.Contains(same, path) })
	dirs := walk(t, src.Walk(ctx, rsyncx.WalkOptions{Digest: digest, Same: answer}))
	if len(dirs) != len(whole) {
		t.Errorf("%d directories were walked, want %d", len(dirs), len(whole))
	}
	for _, d := range dirs {
		w := whole[d.Path]
		sum, has := rsyncx.DigestEntries(w.Entries, digest)
		if got, ok := asked.of(d.Path); ok && (!has || got != sum || d.Path == "fresh") {
			t.Errorf("%q: asked by %x; want %x", d.Path, got, sum)
		}
		switch {
		case d.Same != slices.Contains(same, d.Path):
			t.Errorf("%q: same %v, and it was said of %q", d.Path, d.Same, same)
		case d.Same && len(d.Entries) > 0, !d.Same && !slices.Equal(d.Entries, w.Entries):
			t.Errorf("%q: same %v, entries %+v", d.Path, d.Same, d.Entries)
		case (!d.Same || d.Path == "") && d.Self != w.Self:
			t.Errorf("%q is itself %+v, want %+v", d.Path, d.Self, w.Self)
		}
	}
}

// testDigestsEnd leaves walks, and cancels them, while they ask.
func testDigestsEnd(ctx context.Context, t *testing.T, src rsyncx.Source, digest rsyncx.DigestOptions) {
	var asked askedFor
	for range src.Walk(ctx, rsyncx.WalkOptions{Digest: digest, Same: asked.answer(func(string) bool { return true })}) {
		break
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var last error
	for _, err := range src.Walk(ctx, rsyncx.WalkOptions{Digest: digest, Same: asked.answer(func(string) bool { cancel(errTest); return true })}) {
		last = err
	}
	if !errors.Is(last, errTest) {
		t.Errorf("a walk that was cancelled while it asked ended with %v, want the cause", last)
	}
}

// askedFor answers WalkOptions.Same and remembers by which digest it was asked.
type askedFor struct {
	mu  sync.Mutex
	all map[string]rsyncx.DirDigest
}

func (a *askedFor) answer(same func(path string) bool) func(rsyncx.Piece, rsyncx.DirDigest) bool {
	return func(p rsyncx.Piece, d rsyncx.DirDigest) bool {
		path := p.Path
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.all == nil {
			a.all = map[string]rsyncx.DirDigest{}
		}
		a.all[path] = d
		return same(path)
	}
}

func (a *askedFor) of(path string) (rsyncx.DirDigest, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d, ok := a.all[path]
	return d, ok
}
