package rsyncx

import (
	"os"
	"path/filepath"
	"testing"
)

// TestInPlaceSharedInode asks whether names of one file of the destination each end with
// the source's content, and stay one file where they are one at the source.
func TestInPlaceSharedInode(t *testing.T) {
	plain, checked, appended := Archive(), Archive(), Archive()
	plain.Inplace = true
	checked.Inplace, checked.Checksum = true, true
	appended.Append = true
	linked := plain
	linked.HardLinks = true
	pretended := plain
	pretended.DryRun = true
	for name, o := range map[string]Options{"in place": plain, "with sums": checked, "append": appended, "hard links": linked, "dry run": pretended} {
		for _, c := range []struct {
			what, a, b string
			one        bool // a and b are one file at the source
		}{
			{"two files", "beginning and more", "beginning, but other", false},
			{"two alike", "beginning and more", "beginning and more", false},
			{"one file", "beginning and more", "", true},
			{"the second as it is", "beginning and more", "beginning", false},
			{"the first as it is", "beginning", "beginning and more", false},
		} {
			t.Run(name+", "+c.what, func(t *testing.T) {
				fresh := map[string][]byte{"a": []byte(c.a), "b": []byte(c.b), "c": []byte("c")}
				if c.one {
					delete(fresh, "b")
				}
				dir, src, dst := pair(t, map[string][]byte{"a": []byte("beginning")}, fresh)
				must(t, os.Link(dir+"/to/a", dir+"/to/b"))
				must(t, os.Link(dir+"/to/a", dir+"/outside"))
				if c.one {
					must(t, os.Link(dir+"/from/a", dir+"/from/b"))
				}
				for name, text := range fresh {
					if string(text) == "beginning" {
						st, err := os.Stat(dir + "/to/a")
						must(t, err)
						must(t, os.Chtimes(filepath.Join(dir, "from", name), st.ModTime(), st.ModTime()))
					}
				}
				before := snapshot(t, dir+"/to")
				stats, err := Sync(t.Context(), src, dst, o)
				must(t, err)
				if stats.Left != 0 {
					t.Errorf("%d names were left", stats.Left)
				}
				if o.DryRun {
					sameTree(t, "as it was", snapshot(t, dir+"/to"), before)
					return
				}
				for _, name := range []string{"a", "b", "c"} {
					want, err := os.ReadFile(filepath.Join(dir, "from", name))
					must(t, err)
					if got, err := os.ReadFile(filepath.Join(dir, "to", name)); err != nil || string(got) != string(want) {
						t.Errorf("%s is %q, %v, want %q", name, got, err, want)
					}
				}
				all := inodes(t, dir, map[string][]byte{"to/a": nil, "to/b": nil, "outside": nil})
				if one := all["to/a"] == all["to/b"] && all["to/a"] == all["outside"]; c.one && !one {
					t.Errorf("inodes are %v, want one", all)
				}
			})
		}
	}
}

func TestSharedInodesBound(t *testing.T) {
	var s sharedInodes
	for i := range uint64(maxSharing + 1) {
		s.add(&info{Entry: Entry{Ino: i + 1, Nlink: 2}}, &Entry{Ino: i + 1})
	}
	if s.parts(&info{Entry: Entry{Ino: maxSharing, Nlink: 2}}) || !s.parts(&info{Entry: Entry{Ino: maxSharing + 1, Nlink: 2}}) {
		t.Error("what is past the bound is parted, and nothing else")
	}
}
