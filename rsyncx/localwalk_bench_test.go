package rsyncx

import (
	"fmt"
	"os"
	"testing"
)

// manyFiles makes 100 times 100 directories of 20 empty files each.
func manyFiles(b *testing.B, dir string) {
	b.Helper()
	for i := range 10_000 {
		sub := fmt.Sprintf("%s/%02d/a-directory-%02d", dir, i/100, i%100)
		mkdirs(b, sub)
		for k := range 20 {
			if err := os.WriteFile(fmt.Sprintf("%s/some-file-%02d", sub, k), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkLocalWalk lists 200,000 files in 10,000 directories.
func BenchmarkLocalWalk(b *testing.B) {
	dir := b.TempDir()
	manyFiles(b, dir)
	src, err := Local(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	b.ReportAllocs()
	entries := 0
	for b.Loop() {
		for d, err := range src.Walk(b.Context(), WalkOptions{}) {
			if err != nil {
				b.Fatal(err)
			}
			entries += len(d.Entries)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(entries), "ns/entry")
}
