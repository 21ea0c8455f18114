package sourcetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// longNames is more than a source gives at a time that cuts long directories.
const longNames = 20_000

// testLongDirectory walks a directory that may come in pieces: they follow one
// another without a gap, before what lies deeper, and have every name once.
func testLongDirectory(t *testing.T, open Open) {
	dir := t.TempDir()
	long := filepath.Join(dir, "long")
	for _, sub := range []string{"long/00500", "long/19500"} {
		if err := os.MkdirAll(filepath.Join(dir, sub, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range longNames {
		f, err := os.Create(filepath.Join(long, fmt.Sprintf("%05d.f", i)))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	ctx, src := start(t, open, dir)
	names, last, after := 0, rsyncx.Piece{}, ""
	var deeper []string
	for d, err := range src.Walk(ctx, rsyncx.WalkOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		p := d.Piece()
		if p.After != last.Upto || p.After != "" && p.Path != last.Path {
			t.Fatalf("%+v came after %+v", p, last)
		}
		if last = p; p.Path != "long" {
			deeper = append(deeper, p.Path)
			continue
		}
		for _, e := range d.Entries {
			if e.Name <= after || e.Name <= p.After || p.Upto != "" && e.Name > p.Upto {
				t.Fatalf("%q after %q in %+v", e.Name, after, p)
			}
			after = e.Name
			names++
		}
	}
	if names != longNames+2 || last.Upto != "" || fmt.Sprint(deeper) != "[ long/00500 long/00500/deep long/19500 long/19500/deep]" {
		t.Errorf("%d names, and then %q; the last was %+v", names, deeper, last)
	}
}
