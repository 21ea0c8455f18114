package wire

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// counted counts what an agent sends.
type counted struct {
	io.ReadWriteCloser
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// TestDeltaOverTheWire syncs a long file in which a few blocks changed, and one into which a
// byte was put, and counts all that the agent sends.
func TestDeltaOverTheWire(t *testing.T) {
	dir := t.TempDir()
	old := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{1}).Read(old)
	changed := bytes.Clone(old)
	for i := range 20 {
		rand.NewChaCha8([32]byte{byte(i)}).Read(changed[i*800_000&^4095:][:4096])
	}
	for path, content := range map[string][]byte{"from/place": changed, "to/place": old, "from/moved": append([]byte("x"), old...), "to/moved": old} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(dir+"/to/place", time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	p := NewPool(8, func(ctx context.Context) (*Conn, error) {
		rwc, _ := serve(t, Server{Roots: []string{dir}})
		return Dial(ctx, counted{rwc, &sent}, ClientOptions{Version: "test"})
	})
	t.Cleanup(func() { p.Close() })
	src, err := p.Source(t.Context(), dir+"/from", rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	dst, err := rsyncx.OpenRoot(dir + "/to")
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	stats, err := rsyncx.Sync(t.Context(), src, dst, rsyncx.Archive())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"place", "moved"} {
		want, _ := os.ReadFile(dir + "/from/" + name)
		if got, err := os.ReadFile(dir + "/to/" + name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, %v", name, len(got), err)
		}
	}
	if n := sent.Load(); n > 500_000 {
		t.Errorf("the agent sent %d bytes, of 2 files of 16 MiB; counted %+v", n, stats)
	} else {
		t.Logf("the agent sent %d bytes", n)
	}
}
