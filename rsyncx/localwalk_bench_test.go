package rsyncx

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
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

// BenchmarkStageSame stages 200,000 unchanged files from a source in this
// process that asks by digest, and from one that sends everything. Both list on both sides.
func BenchmarkStageSame(b *testing.B) {
	dir := b.TempDir()
	manyFiles(b, dir+"/from")
	if out, err := exec.Command("cp", "-a", dir+"/from", dir+"/to").CombinedOutput(); err != nil {
		b.Fatalf("cp: %v: %s", err, out)
	}
	src, dst := open(b, dir+"/from", dir+"/to")
	o := Archive()
	o.Delete, o.DryRun = true, true
	for name, s := range map[string]Source{"digests": &digesting{Source: src, now: time.Now().Add(time.Hour)}, "entries": src} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				staged, err := Stage(b.Context(), s, dst, o)
				if err != nil {
					b.Fatal(err)
				}
				if n := staged.Stats(); n.Entries < 200_000 || n.Transferred > 0 {
					b.Fatalf("%+v", n)
				}
				must(b, staged.Discard())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/210_100, "ns/entry")
		})
	}
}
