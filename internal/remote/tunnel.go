package remote

import (
	"io"
	"net"
)

// tunnel is a connection through the active.
type tunnel struct {
	net.Conn // our end of a pipe
	remote   addr
}

// newTunnel passes bytes between far and the connection it returns, until
// either is closed.
func newTunnel(far net.Conn, network, address string) net.Conn {
	near, inner := net.Pipe()
	go func() {
		_, _ = io.Copy(inner, far)
		inner.Close()
		far.Close()
	}()
	go func() {
		_, _ = io.Copy(far, inner)
		inner.Close()
		far.Close()
	}()
	return &tunnel{near, addr{network, address}}
}

func (t *tunnel) RemoteAddr() net.Addr { return t.remote }

// addr is an address as the active sees it.
type addr struct{ network, text string }

func (a addr) Network() string { return a.network }
func (a addr) String() string  { return a.text }
