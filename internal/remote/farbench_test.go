package remote

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
)

// BenchmarkFar reads from a host that is 100 ms away, there and back. A file whose
// length is not said travels over one channel, which its window holds to about 20 MB/s.
func BenchmarkFar(b *testing.B) {
	s := testenv.SSHD(b)
	p := testenv.Proxy(b, fmt.Sprintf("%s:%d", s.Host, s.Port))
	dir := b.TempDir()
	random := rand.NewChaCha8([32]byte{1})
	content := make([]byte, 100<<20)
	random.Read(content)
	if err := os.WriteFile(filepath.Join(dir, "big"), content, 0o644); err != nil {
		b.Fatal(err)
	}
	var small []rsyncx.Want
	total := int64(0)
	for i := range 5000 {
		name, size := fmt.Sprintf("f%04d", i), 1+i*16%30_000
		if err := os.WriteFile(filepath.Join(dir, name), content[i:i+size], 0o644); err != nil {
			b.Fatal(err)
		}
		small = append(small, rsyncx.Want{Path: name, Size: int64(size)})
		total += int64(size)
	}
	c := config(b, s, TransportAgent)
	c.Port = p.Port
	if line, err := os.ReadFile(c.KnownHosts); err == nil { // the same key at another port
		c.KnownHosts = filepath.Join(b.TempDir(), "known_hosts")
		key := line[slices.Index(line, ' '):]
		if err := os.WriteFile(c.KnownHosts, fmt.Appendf(nil, "[%s]:%d%s", p.Host, p.Port, key), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	p.SetDelay(50 * time.Millisecond)
	far := source(b, dial(b, c), dir)
	for name, want := range map[string][]rsyncx.Want{
		"100 MB over one channel": {{Path: "big", Size: -1}},
		"100 MB spread":           {{Path: "big", Size: 100 << 20}},
		"400 MB spread":           slices.Repeat([]rsyncx.Want{{Path: "big", Size: 100 << 20}}, 4),
		"5000 small files":        small,
	} {
		size := total
		if len(want) < 5 {
			size = int64(len(want)) * 100 << 20
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				got := int64(0)
				for f, err := range far.Read(b.Context(), slices.Values(want)) {
					if err != nil || f.Err != nil {
						b.Fatal(err, f.Err)
					}
					n, err := io.Copy(io.Discard, f.Body)
					if err != nil {
						b.Fatal(err)
					}
					got += n
				}
				if got != size {
					b.Fatal(got)
				}
			}
		})
	}
}
