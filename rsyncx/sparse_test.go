package rsyncx

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"golang.org/x/sys/unix"
)

// allocated returns how many bytes of the disk a file has.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Blocks * 512
}

func TestSparse(t *testing.T) {
	testenv.Require(t, "rsync")
	zero := make([]byte, 64<<10)
	small := slices.Concat(noise(1, 4096), zero, noise(2, 100), zero)
	large := slices.Concat(slices.Repeat(small, 9), make([]byte, 1<<20))
	changed := bytes.Clone(large)
	copy(changed[300_000:], noise(5, 10_000))
	fresh := map[string][]byte{"small": small, "large": large, "delta": changed, "zeros": make([]byte, 5<<20), "d/new": small, "odd": zero[:5000],
		"hole in the old": slices.Concat(zero, zero)}
	old := map[string][]byte{"delta": large, "hole in the old": noise(3, 2*len(zero))}
	for _, from := range []string{"sums", "reading"} {
		dir, src, dst := pair(t, old, fresh)
		o := Archive()
		o.Sparse, o.WholeFile = true, from == "reading"
		_, err := Sync(t.Context(), src, dst, o)
		must(t, err)
		runRsync(t, []string{"-aS", dir + "/from/", dir + "/to2/"})
		sameTree(t, "as the source", snapshot(t, dir+"/to"), snapshot(t, dir+"/from"))
		for path := range fresh {
			got, want := allocated(t, filepath.Join(dir, "to", path)), allocated(t, filepath.Join(dir, "to2", path))
			if got > want {
				t.Errorf("%s by %s: %d bytes on disk, rsync's has %d", path, from, got, want)
			}
		}
	}
}

func FuzzWriteSparse(f *testing.F) {
	f.Add(uint64(1), int64(0), true)
	f.Add(uint64(2), int64(4000), false)
	f.Fuzz(func(t *testing.T, seed uint64, off int64, punch bool) {
		off &= 1<<14 - 1
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, r.IntN(40_000))
		for range r.IntN(4) {
			at := r.IntN(len(data) + 1)
			copy(data[at:], noise(byte(at), r.IntN(5000)))
		}
		file, err := os.Create(filepath.Join(t.TempDir(), "f"))
		must(t, err)
		defer file.Close()
		before := make([]byte, off+int64(len(data))+9000)
		if punch {
			copy(before, noise(7, len(before)))
			_, err = file.Write(before)
			must(t, err)
		}
		must(t, writeSparse(int(file.Fd()), data, off, punch))
		must(t, setLength(int(file.Fd()), int64(len(before))))
		copy(before[off:], data)
		got, err := os.ReadFile(file.Name())
		must(t, err)
		if !bytes.Equal(got, before) {
			t.Fatalf("%d bytes at %d were not written as they are", len(data), off)
		}
	})
}
