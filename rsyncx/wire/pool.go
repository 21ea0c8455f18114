package wire

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// Pool keeps connections to one agent's host, one for each request under way,
// and opens them when they are needed. Its methods may be called from several
// goroutines at once. A request that finds all connections busy waits for one:
// whoever holds an iterator and asks for something else inside needs two.
type Pool struct {
	dial  func(context.Context) (*Conn, error)
	slots chan struct{} // one for each connection that may be in use
	ended chan struct{} // closed by Close

	mu     sync.Mutex
	idle   []*Conn
	busy   map[*Conn]bool
	closed bool
	trip   time.Duration // to the host and back, the shortest so far
	full   bool          // the host allows no more connections
	dials  sync.WaitGroup
	lanes  int // of one request; 0 is by distance; for tests
}

// spareSlots is how many connections one request that is spread over several leaves to others.
const spareSlots = 2

// ErrClosed says that a Pool was closed.
var ErrClosed = errors.New("the connection to the active was closed")

// NewPool returns a pool of at most size connections, which dial makes.
func NewPool(size int, dial func(context.Context) (*Conn, error)) *Pool {
	return &Pool{dial: dial, slots: make(chan struct{}, size), ended: make(chan struct{}), busy: map[*Conn]bool{}}
}

func (p *Pool) get(ctx context.Context) (*Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-p.ended:
		return nil, ErrClosed
	}
	c, err := p.take(ctx)
	if err != nil {
		<-p.slots
	}
	return c, err
}

func (p *Pool) take(ctx context.Context) (*Conn, error) {
	p.mu.Lock()
	for len(p.idle) > 0 && !p.closed {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.usable() {
			p.busy[c] = true
			p.mu.Unlock()
			return c, nil
		}
		c.Close()
	}
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	c, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return nil, ErrClosed
	}
	p.busy[c] = true
	return c, nil
}

func (p *Pool) put(c *Conn) {
	p.mu.Lock()
	delete(p.busy, c)
	if c.trip > 0 && (p.trip == 0 || c.trip < p.trip) {
		p.trip = c.trip
	}
	if p.closed || !c.usable() {
		c.Close()
	} else {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	<-p.slots
}

// claim returns a connection that is idle, unless too few would be left to others.
func (p *Pool) claim() *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 && !p.closed && p.reserve() {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.usable() {
			p.busy[c] = true
			return c
		}
		c.Close()
		<-p.slots
	}
	return nil
}

// reserve takes a slot, unless too few would be left.
func (p *Pool) reserve() bool {
	if len(p.slots) >= cap(p.slots)-spareSlots {
		return false
	}
	select {
	case p.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// grow opens up to n more connections, which will be idle. ready is called after each.
// That one cannot be opened is no error: it is done with fewer then.
func (p *Pool) grow(n int, ready func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range n {
		if p.closed || p.full || !p.reserve() {
			return
		}
		p.dials.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan struct{})
			defer close(ended)
			go func() {
				select {
				case <-p.ended:
					cancel()
				case <-ended:
				}
			}()
			c, err := p.dial(ctx)
			if err != nil {
				p.mu.Lock()
				p.full = true
				p.mu.Unlock()
				<-p.slots
				return
			}
			p.put(c)
			ready()
		})
	}
}

// Close closes every connection; requests under way end with an error.
func (p *Pool) Close() error {
	p.close()
	p.dials.Wait()
	return nil
}

func (p *Pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.ended)
	}
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
	for c := range p.busy {
		c.link.kill(ErrClosed)
	}
}

// Clock reads the clock of the agent's host.
func (p *Pool) Clock(ctx context.Context) (Clock, error) {
	c, err := p.get(ctx)
	if err != nil {
		return Clock{}, err
	}
	defer p.put(c)
	return c.Clock(ctx)
}

// Stream asks for the named stream; see Conn.Stream.
func (p *Pool) Stream(ctx context.Context, name, arg string) (io.ReadCloser, error) {
	c, err := p.get(ctx)
	if err != nil {
		return nil, err
	}
	r, err := c.Stream(ctx, name, arg, func() { p.put(c) })
	if err != nil {
		p.put(c)
		return nil, err
	}
	return r, nil
}

// Source opens the tree below a directory of the agent's host. Closing the
// Source leaves the Pool open.
func (p *Pool) Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	c, err := p.get(ctx)
	if err != nil {
		return nil, err
	}
	defer p.put(c)
	t := Tree{root, v}
	a, err := c.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	return &source{pool: p, tree: t, abilities: a}, nil
}

// source is a directory served by the agents of a Pool.
type source struct {
	pool      *Pool
	tree      Tree
	abilities rsyncx.Abilities
}

var (
	_ rsyncx.Source = (*source)(nil)
	_ rsyncx.Clock  = (*source)(nil)
)

// Now is the time of the agent's host, or a little before.
func (s *source) Now(ctx context.Context) (rsyncx.Time, error) {
	c, err := s.pool.Clock(ctx)
	if err != nil {
		return rsyncx.Time{}, err
	}
	now := time.Now().Add(c.Skew - c.Bound)
	return rsyncx.Time{Sec: now.Unix(), Nsec: int32(now.Nanosecond())}, nil
}

func (s *source) Abilities() rsyncx.Abilities { return s.abilities }

func (s *source) Lstat(ctx context.Context, path string) (rsyncx.Entry, error) {
	c, err := s.pool.get(ctx)
	if err != nil {
		return rsyncx.Entry{}, err
	}
	defer s.pool.put(c)
	return c.Lstat(ctx, s.tree, path)
}

func (s *source) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		c, err := s.pool.get(ctx)
		if err != nil {
			yield(rsyncx.Dir{}, err)
			return
		}
		defer s.pool.put(c)
		c.Walk(ctx, s.tree, o)(yield)
	}
}

// Read is spread over connections that nobody else needs; see stripes.
func (s *source) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		c, err := s.pool.get(ctx)
		if err != nil {
			yield(rsyncx.File{}, err)
			return
		}
		s.stripes(ctx, c, false).files(ctx, c, want, yield)
	}
}

// Sums is spread like Read.
func (s *source) Sums(ctx context.Context, want iter.Seq[rsyncx.SumWant]) iter.Seq2[rsyncx.FileSums, error] {
	return func(yield func(rsyncx.FileSums, error) bool) {
		if !s.abilities.Sums {
			rsyncx.NoSums{}.Sums(ctx, want)(yield)
			return
		}
		c, err := s.pool.get(ctx)
		if err != nil {
			yield(rsyncx.FileSums{}, err)
			return
		}
		s.stripes(ctx, c, true).fileSums(ctx, c, want, yield)
	}
}

func (s *source) stripes(ctx context.Context, c *Conn, sums bool) *stripes {
	st := c.stripes(ctx, s.tree, sums)
	st.give, st.claim, st.grow = s.pool.put, s.pool.claim, s.pool.grow
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if st.most = s.pool.lanes; st.most == 0 {
		st.most = lanesFor(s.pool.trip)
	}
	return st
}

func (s *source) Close() error { return nil }
