package wire

import (
	"context"
	"io"
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
