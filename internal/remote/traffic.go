package remote

import (
	"io"
	"sync/atomic"
)

// traffic counts the bytes of all agents' streams, as they are inside the ssh connection.
type traffic struct{ sent, received atomic.Int64 }

// Traffic returns how many bytes went to the host's agents and came from them.
func (h *agentHost) Traffic() (sent, received int64) {
	return h.moved.sent.Load(), h.moved.received.Load()
}

// counted is a stream that counts.
type counted struct {
	io.ReadWriteCloser
	moved *traffic
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.moved.received.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(p)
	c.moved.sent.Add(int64(n))
	return n, err
}
