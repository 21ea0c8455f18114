package wire

import (
	"slices"
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// TestMountPointsAreSentInFull: the reader learns of each, also where a digest would do.
func TestMountPointsAreSentInFull(t *testing.T) {
	self := func(name string, dev uint64) rsyncx.Entry {
		return rsyncx.Entry{Name: name, Mode: 0o040755, Dev: dev, Ino: 5, Nlink: 2}
	}
	entry := func(name string, dev uint64) []rsyncx.Entry { return []rsyncx.Entry{self(name, dev)} }
	src := openFake(t, &fake{dirs: []rsyncx.Dir{
		{Self: self("", 1), Entries: entry("a", 1)},
		{Path: "a", Self: self("a", 1), Entries: entry("m", 2)},
		{Path: "a/m", Self: self("m", 2), Entries: entry("d", 2)},
		{Path: "a/m/d", Self: self("d", 2)},
	}})
	var full []string
	o := rsyncx.WalkOptions{Same: func(rsyncx.Piece, rsyncx.DirDigest) bool { return true }}
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
