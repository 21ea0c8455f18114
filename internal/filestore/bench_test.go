package filestore_test

import (
	"fmt"

	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/filestore/storetest"
	"github.com/drsync/drsync/internal/testenv"
)

const benchBlobs, benchSize = 20_000, 4096

// benchStore makes a store of many small blobs and returns its list.
func benchStore(b *testing.B) (root string, want []blob.Ref) {
	root = b.TempDir()
	d := openDir(b, root)
	for i := range benchBlobs {
		ref, data := storetest.Content(fmt.Sprint("bench ", i), benchSize)
		put(b, d, ref, data)
		want = append(want, ref)
	}
	return root, want
}

// reportCPU reports the processor time of this process and its children, which
// says more than the clock on a machine that does other things as well.
func reportCPU(b *testing.B) (stop func()) {
	spent := func() time.Duration {
		var total time.Duration
		for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
			var u unix.Rusage
			if err := unix.Getrusage(who, &u); err != nil {
				b.Fatal(err)
			}
			total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
		return total
	}
	before := spent()
	return func() { b.ReportMetric(float64((spent()-before).Milliseconds())/float64(b.N), "cpu-ms/op") }
}

func BenchmarkFillEmpty(b *testing.B) {
	root, want := benchStore(b)
	from := filestore.NewSource([]filestore.Place{{Src: &directory{root: root}, Path: filestore.Fanned}})
	list := refs(slices.Clone(want)...)
	b.SetBytes(benchBlobs * benchSize)
	defer reportCPU(b)()
	for b.Loop() {
		to := b.TempDir()
		got, err := filestore.Fill(b.Context(), list, from, openDir(b, to), filestore.FillOptions{})
		if err != nil || got.Copied != benchBlobs {
			b.Fatalf("%+v, %v", got, err)
		}
	}
}

func BenchmarkFillNothingToDo(b *testing.B) {
	root, want := benchStore(b)
	from := filestore.NewSource([]filestore.Place{{Src: &directory{root: root}, Path: filestore.Fanned}})
	list := refs(slices.Clone(want)...)
	to := openDir(b, root)
	for b.Loop() {
		got, err := filestore.Fill(b.Context(), list, from, to, filestore.FillOptions{})
		if err != nil || got.Present != benchBlobs {
			b.Fatalf("%+v, %v", got, err)
		}
	}
}

// BenchmarkRsyncEmpty is what to compare BenchmarkFillEmpty with.
func BenchmarkRsyncEmpty(b *testing.B) {
	testenv.Require(b, "rsync")
	root, _ := benchStore(b)
	b.SetBytes(benchBlobs * benchSize)
	defer reportCPU(b)()
	for b.Loop() {
		to := b.TempDir()
		if out, err := exec.Command("rsync", "-a", root+"/", filepath.Join(to, "copy")+"/").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
