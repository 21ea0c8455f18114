package remote

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
)

// benchTree makes 20,000 files of 4 KiB in 200 directories and one of 500 MB.
func benchTree(b *testing.B) (dir string, small []string) {
	b.Helper()
	dir = b.TempDir()
	content := make([]byte, 4096)
	for i := range 20_000 {
		name := fmt.Sprintf("d%03d/f%05d", i/100, i)
		if i%100 == 0 {
			if err := os.Mkdir(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			b.Fatal(err)
		}
		small = append(small, name)
	}
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(500 << 20); err != nil {
		b.Fatal(err)
	}
	return dir, small
}

func BenchmarkSource(b *testing.B) {
	s := testenv.SSHD(b)
	dir, small := benchTree(b)
	for _, transport := range []string{TransportAgent, TransportSFTP, "local"} {
		var h Host = LocalHost(nil)
		if transport != "local" {
			h = dial(b, config(b, s, transport))
		}
		src := source(b, h, dir)
		read := func(want []string, size int64) func(*testing.B) {
			return func(b *testing.B) {
				b.SetBytes(int64(len(want)) * size)
				for b.Loop() {
					for f, err := range src.Read(b.Context(), rsyncx.Wants(slices.Values(want))) {
						if err != nil || f.Err != nil {
							b.Fatal(err, f.Err)
						}
						if n, err := io.Copy(io.Discard, f.Body); n != size || err != nil {
							b.Fatal(n, err)
						}
					}
				}
			}
		}
		b.Run(transport+"/20000 small", read(small, 4096))
		b.Run(transport+"/500 MB", read([]string{"big"}, 500<<20))
		b.Run(transport+"/walk", func(b *testing.B) {
			for b.Loop() {
				for _, err := range src.Walk(b.Context(), rsyncx.WalkOptions{}) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkCat is what the connection gives without a protocol on it.
func BenchmarkCat(b *testing.B) {
	s := testenv.SSHD(b)
	h := dial(b, config(b, s, TransportAgent)).(*agentHost)
	const size = 500 << 20
	b.SetBytes(size)
	for b.Loop() {
		session, err := h.far.(*connection).client.NewSession()
		if err != nil {
			b.Fatal(err)
		}
		out, err := session.StdoutPipe()
		if err == nil {
			err = session.Start(fmt.Sprintf("head -c %d /dev/zero", size))
		}
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, out); n != size || err != nil {
			b.Fatal(n, err)
		}
		session.Close()
	}
}
