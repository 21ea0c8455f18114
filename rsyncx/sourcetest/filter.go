package sourcetest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// testFilter asks whether a source applies rules and prunes by them, per-directory
// files included. What rules mean is tested in their own package.
func testFilter(t *testing.T, open Open) {
	tree := newTree(t)
	if err := os.WriteFile(filepath.Join(tree.dir, "etc", ".rules"), []byte("- *.txt\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := filter.NewBuilder()
	for _, rule := range []string{": .rules", "- .rules", "- /empty.d/", "- deep/er", "- big", "P pipe"} {
		if err := b.Filter(rule); err != nil {
			t.Fatal(err)
		}
	}
	rules, err := b.Rules(filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, src := start(t, open, tree.dir)
	seen := map[string]bool{}
	for d, err := range src.Walk(ctx, rsyncx.WalkOptions{Filter: rules, OneFileSystem: true}) {
		if err != nil {
			t.Fatal(err)
		}
		seen[d.Path+"/"] = true
		for _, e := range d.Entries {
			seen[join(d.Path, e.Name)] = true
		}
	}
	want := map[string]bool{"/": true, "etc/": true, "etc/deep/": true, "etc/.drsync/": true}
	for path := range tree.want {
		want[path] = true
	}
	for _, path := range []string{"", "empty.d", "etc/deep/er", "etc/deep/er/file", "etc/deep.txt", "big"} {
		delete(want, path)
	}
	if !maps.Equal(seen, want) {
		t.Errorf("walked\n%s, want\n%s", lines(seen), lines(want))
	}
}

func lines(set map[string]bool) string {
	return strings.Join(slices.Sorted(maps.Keys(set)), "\n")
}
