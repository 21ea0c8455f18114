package testenv

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TCPProxy passes connections on to one address, late if asked, until it is told
// to cut or to freeze them. Its methods may be called at any time.
type TCPProxy struct {
	Addr string // where it listens
	Host string
	Port int

	delay atomic.Int64 // nanoseconds, each way
	bytes atomic.Int64
	// vanished says that ends of connections wait too.
	vanished atomic.Bool
	rate     atomic.Int64 // bytes per second each way on one connection; 0 is no limit
	mu       sync.Mutex
	conns    map[net.Conn]bool
	thawed   chan struct{} // closed while traffic flows
	frozen   bool
	closed   bool
}

// Proxy starts a proxy to target for the time of the test.
func Proxy(t testing.TB, target string) *TCPProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().(*net.TCPAddr)
	p := &TCPProxy{Addr: at.String(), Host: at.IP.String(), Port: at.Port, conns: map[net.Conn]bool{}, thawed: make(chan struct{})}
	close(p.thawed)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			if !p.add(in, out) {
				continue
			}
			all.Go(func() { p.pass(in, out) })
			all.Go(func() { p.pass(out, in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Thaw()
		p.Cut()
		all.Wait()
	})
	return p
}

// SetDelay makes every byte from now on arrive d late, in each direction.
func (p *TCPProxy) SetDelay(d time.Duration) { p.delay.Store(int64(d)) }

// SetRate makes a line of so many bytes per second of each connection, in each
// direction; 0 takes the limit away. With SetDelay(50 ms) and no rate it is a
// line of 100 ms there and back and any width.
func (p *TCPProxy) SetRate(bytesPerSecond int64) { p.rate.Store(bytesPerSecond) }

// Bytes is how much was passed on so far, both ways together.
func (p *TCPProxy) Bytes() int64 { return p.bytes.Load() }

// Cut closes every connection. New ones are welcome.
func (p *TCPProxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}

// Freeze holds all traffic back while the connections stay open: a peer that
// has gone silent.
func (p *TCPProxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.frozen {
		p.frozen, p.thawed = true, make(chan struct{})
	}
}

// Vanish is Freeze for a host that lost its power or its line: the ends of connections are
// not passed on either.
func (p *TCPProxy) Vanish() {
	p.vanished.Store(true)
	p.Freeze()
}

// Thaw lets traffic flow again.
func (p *TCPProxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen {
		p.frozen = false
		close(p.thawed)
	}
}

func (p *TCPProxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.closed {
			c.Close()
		} else {
			p.conns[c] = true
		}
	}
	return !p.closed
}

type chunk struct {
	data []byte
	due  time.Time
}

// pass moves bytes one way. Reading runs ahead of writing, so that a delay is
// latency and not a limit on bandwidth.
func (p *TCPProxy) pass(from, to net.Conn) {
	defer to.Close()
	// 256 MiB may be on their way: what 100 ms of 20 Gbit/s are.
	queue := make(chan chunk, 8192)
	done := make(chan struct{})
	defer close(done)
	go func() {
		defer close(queue)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				select {
				case queue <- chunk{buf[:n], time.Now().Add(time.Duration(p.delay.Load()))}:
				case <-done:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	free := time.Now() // when the line has sent what came before
	for c := range queue {
		if rate := p.rate.Load(); rate > 0 {
			if now := time.Now(); free.Before(now) {
				free = now
			}
			free = free.Add(time.Duration(len(c.data)) * time.Second / time.Duration(rate))
			time.Sleep(time.Until(free))
		}
		if wait := time.Until(c.due); wait > 0 {
			time.Sleep(wait)
		}
		p.flowing()
		if _, err := to.Write(c.data); err != nil {
			from.Close()
			return
		}
		p.bytes.Add(int64(len(c.data)))
	}
	if p.vanished.Load() {
		p.flowing()
	}
}

// flowing waits while all is frozen.
func (p *TCPProxy) flowing() {
	p.mu.Lock()
	thawed := p.thawed
	p.mu.Unlock()
	<-thawed
}
