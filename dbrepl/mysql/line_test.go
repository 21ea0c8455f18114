package mysql

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// line connects to a server until it freezes: then nothing arrives at either end any
// more, also not that the other end is closed. What the server writes stays in its
// connection, until that takes no more.
type line struct {
	frozen chan struct{}
	mu     sync.Mutex
	conns  []net.Conn
}

func newLine(t testing.TB) *line {
	l := &line{frozen: make(chan struct{})}
	t.Cleanup(l.end)
	return l
}

// end lets the servers know.
func (l *line) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
}

func (l *line) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.frozen:
	default:
		close(l.frozen)
	}
}

func (l *line) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	select {
	case <-l.frozen:
		<-ctx.Done()
		return nil, context.Cause(ctx)
	default:
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
	return &lineEnd{Conn: c, line: l, closed: make(chan struct{})}, nil
}

type lineEnd struct {
	net.Conn
	line   *line
	once   sync.Once
	closed chan struct{}
}

// stuck waits, once the line is frozen, until this end is closed.
func (c *lineEnd) stuck() bool {
	select {
	case <-c.line.frozen:
		<-c.closed
		return true
	default:
		return false
	}
}

func (c *lineEnd) Read(b []byte) (int, error) {
	if c.stuck() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b)
	if c.stuck() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *lineEnd) Write(b []byte) (int, error) {
	select {
	case <-c.line.frozen:
		return len(b), nil // into the system's buffer
	default:
		return c.Conn.Write(b)
	}
}

func (c *lineEnd) Close() error {
	c.once.Do(func() { close(c.closed) })
	select {
	case <-c.line.frozen:
		return c.Conn.SetDeadline(time.Now()) // whoever reads wakes up, and the server hears nothing
	default:
		return c.Conn.Close()
	}
}
