package wire

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/sourcetest"
)

// duplex is one end of a stream made of two pipes.
type duplex struct {
	io.Reader
	io.Writer
	close func()
}

func (d *duplex) Close() error { d.close(); return nil }

// pair returns both ends of a stream. Closing one is the end of the other's input.
func pair() (a, b *duplex) {
	ar, bw := io.Pipe()
	br, aw := io.Pipe()
	return &duplex{ar, aw, func() { ar.Close(); aw.Close() }}, &duplex{br, bw, func() { br.Close(); bw.Close() }}
}

// serve starts an agent in this process for the time of the test and returns the
// client's end. Serve's error goes to the channel.
func serve(t testing.TB, s Server) (io.ReadWriteCloser, <-chan error) {
	t.Helper()
	near, far := pair()
	done := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		done <- Serve(context.Background(), far, far, s)
		far.Close()
	}()
	t.Cleanup(func() { near.Close(); <-ended })
	return near, done
}

func newTestPool(t testing.TB, s Server) *Pool {
	t.Helper()
	p := NewPool(8, func(ctx context.Context) (*Conn, error) {
		rwc, _ := serve(t, s)
		return Dial(ctx, rwc, ClientOptions{Version: "test"})
	})
	t.Cleanup(func() { p.Close() })
	return p
}

func TestSourceContract(t *testing.T) {
	sourcetest.TestSource(t, openInPool)
}

func TestSourceContractOfRestrictedWalks(t *testing.T) { sourcetest.TestRestricted(t, openInPool) }

func TestSourceContractOfDigests(t *testing.T) { sourcetest.TestDigests(t, openInPool) }

func openInPool(t *testing.T, dir string) rsyncx.Source {
	src, err := newTestPool(t, Server{Roots: []string{dir}}).Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// TestViewStaysWithinTheRoots follows links from a distance: none may lead out
// of what the agent was told to serve.
func TestViewStaysWithinTheRoots(t *testing.T) {
	dir := t.TempDir()
	for path, content := range map[string]string{"served/f": "f", "secret": "secret"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"in": "f", "out": "../secret"} {
		if err := os.Symlink(target, filepath.Join(dir, "served", name)); err != nil {
			t.Fatal(err)
		}
	}
	p := newTestPool(t, Server{Roots: []string{filepath.Join(dir, "served"), filepath.Join(dir, "nix")}})
	src, err := p.Source(t.Context(), filepath.Join(dir, "served"), rsyncx.View{CopyLinks: true})
	if err != nil {
		t.Fatal(err)
	}
	if content, err := rsyncx.ReadFile(t.Context(), src, "in", 10); err != nil || string(content) != "f" {
		t.Errorf("a link inside: %q, %v", content, err)
	}
	if content, err := rsyncx.ReadFile(t.Context(), src, "out", 10); err == nil {
		t.Errorf("a link that leads out gave %q", content)
	}
}
