package wire

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// TestHiddenNamesAreListed: an agent lists what it would without it, and does not
// go into hidden directories either.
func TestHiddenNamesAreListed(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"a.o", "b", "c/d.o", "e/f"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(path), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := filter.NewBuilder()
	for _, rule := range []string{"- *.o", "- e/"} {
		if err := b.Filter(rule); err != nil {
			t.Fatal(err)
		}
	}
	rules, err := b.Rules(filter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	walk := func(src rsyncx.Source, hidden bool) map[string][]string {
		all := map[string][]string{}
		for d, err := range src.Walk(t.Context(), rsyncx.WalkOptions{Filter: rules, Hidden: hidden}) {
			if err != nil {
				t.Fatal(err)
			}
			all[d.Path] = nil
			for _, e := range d.Entries {
				all[d.Path] = append(all[d.Path], e.Name)
			}
		}
		return all
	}
	src := openInPool(t, dir)
	for hidden, want := range map[bool]map[string][]string{
		false: {"": {"b", "c"}, "c": nil},
		true:  {"": {"a.o", "b", "c", "e"}, "c": {"d.o"}},
	} {
		if got := walk(src, hidden); !reflect.DeepEqual(got, want) {
			t.Errorf("hidden %v: %q, want %q", hidden, got, want)
		}
	}
}
