package rsyncx

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDeltaOverClones runs deltas as where files can share blocks: the staged
// file begins as what the old one is.
func TestDeltaOverClones(t *testing.T) {
	big := noise(1, 5<<20+10)
	holes := slices.Concat(big[:1<<20], make([]byte, 1<<20), big[2<<20:])
	old := map[string][]byte{"in place": big, "shrunk": big, "grown": big[:3<<20], "moved": big, "to holes": big, "renamed": noise(5, 9000), "long": noise(6, 9<<20)}
	fresh := map[string][]byte{"in place": scattered(big, 7), "shrunk": big[:4<<20+1], "grown": big, "moved": append([]byte("x"), big...), "to holes": holes,
		"long": scattered(noise(6, 9<<20), 4), "renamed too": noise(5, 9000)}
	for _, sparse := range []bool{false, true} {
		t.Run(fmt.Sprintf("sparse=%v", sparse), func(t *testing.T) {
			dir, src, dst := pair(t, old, fresh)
			setMtime(t, dir+"/from/renamed too", 1_000_000)
			shared := 0
			dst.share = func(to, from int) error {
				shared++
				content, err := io.ReadAll(io.NewSectionReader(os.NewFile(uintptr(dup(t, from)), "from"), 0, 1<<40))
				must(t, err)
				return pwriteAll(to, content, 0)
			}
			o := Archive()
			o.Renames, o.Sparse = true, sparse
			stats, err := Sync(t.Context(), src, dst, o)
			must(t, err)
			must(t, os.Remove(dir+"/to/renamed"))
			setMtime(t, dir+"/to", 1_000_000)
			sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
			if shared < 4 || stats.Reused < 4*int64(len(big)) {
				t.Errorf("%d files were cloned, counted %+v", shared, stats)
			}
			if sparse {
				if n := allocated(t, dir+"/to/to holes"); n > 4<<20+1<<16 {
					t.Errorf("the file with holes has %d bytes on disk", n)
				}
			}
		})
	}
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.Dup(fd)
	must(t, err)
	return n
}

// TestCloneOnlyWhereItCan asks whether a refusal is remembered, and the copy right all the same.
func TestCloneOnlyWhereItCan(t *testing.T) {
	old, fresh := map[string][]byte{}, map[string][]byte{}
	for i := range 5 {
		path := fmt.Sprint(i)
		old[path] = noise(byte(i), 100_000)
		fresh[path] = scattered(old[path], 2)
	}
	dir, src, dst := pair(t, old, fresh)
	asked := 0
	dst.share = func(int, int) error { asked++; return unix.EOPNOTSUPP }
	_, err := Sync(t.Context(), src, dst, Archive())
	must(t, err)
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	for path, want := range fresh {
		if got, err := os.ReadFile(filepath.Join(dir, "to", path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
}
