package wire

import (
	"context"
	"slices"
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// TestMountPointsAreSentInFull: the reader learns of each, also where a digest would do.
func TestMountPointsAreSentInFull(t *testing.T) {
	self := func(dev uint64) rsyncx.Entry { return rsyncx.Entry{Mode: 0o040755, Dev: dev, Ino: 5, Nlink: 2} }
	entry := func(name string, dev uint64) []rsyncx.Entry {
		e := self(dev)
		e.Name = name
		return []rsyncx.Entry{e}
	}
	src := openFake(t, &fake{dirs: []rsyncx.Dir{
		{Self: self(1), Entries: entry("a", 1)},
		{Path: "a", Self: self(1), Entries: entry("m", 2)},
		{Path: "a/m", Self: self(2), Entries: entry("d", 2)},
		{Path: "a/m/d", Self: self(2)},
	}})
	var full []string
	o := rsyncx.WalkOptions{Same: func(context.Context, string, rsyncx.DirDigest) bool { return true }}
	for d, err := range src.Walk(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		if !d.Same {
			full = append(full, d.Path)
			if d.Self.Dev != 2 {
				t.Errorf("%s is on device %d", d.Path, d.Self.Dev)
			}
		}
	}
	if want := []string{"a/m"}; !slices.Equal(full, want) {
		t.Errorf("in full came %q, want %q", full, want)
	}
}
