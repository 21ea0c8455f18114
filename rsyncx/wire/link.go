package wire

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// link moves bytes between a Conn and its transport in two goroutines of its
// own, so that a request can give up, on its context or its deadline, whatever
// the transport is stuck in. The goroutines end when the transport is closed.
type link struct {
	rwc     io.ReadWriteCloser
	silence time.Duration

	chunks chan *chunk // arrived, in order; closed at the end of the input
	spare  chan *chunk // to read into again
	out    chan []byte // to be written

	part  []byte // what is left of the current chunk
	whole *chunk // the current chunk
	timer *time.Timer

	dead chan struct{} // closed by kill
	once sync.Once
	err  error // why; set before dead is closed
}

// lostError is an error of the transport, about which its owner may know more.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// Is makes errors.Is find ErrLost.
func (e *lostError) Is(target error) bool { return target == ErrLost }

const (
	chunkSize   = 64 << 10
	chunkRing   = 8 // arrived and not looked at
	chunkSpares = 64
)

// chunk is a buffer that several may hold parts of. Who holds one calls retain, and release in
// the end; its bytes are then used again.
type chunk struct {
	buf  []byte
	refs atomic.Int32
	home chan *chunk
}

func (c *chunk) retain() { c.refs.Add(1) }

func (c *chunk) release() {
	if c.refs.Add(-1) > 0 {
		return
	}
	select {
	case c.home <- c:
	default:
	}
}

// newChunk returns a chunk of n bytes from home, or a new one, held once.
func newChunk(home chan *chunk, n int) *chunk {
	var c *chunk
	select {
	case c = <-home:
	default:
		c = &chunk{buf: make([]byte, n), home: home}
	}
	c.refs.Store(1)
	return c
}

func newLink(rwc io.ReadWriteCloser, silence time.Duration) *link {
	l := &link{
		rwc: rwc, silence: silence,
		chunks: make(chan *chunk, chunkRing), spare: make(chan *chunk, chunkSpares),
		out: make(chan []byte, 4), dead: make(chan struct{}),
	}
	l.timer = time.NewTimer(silence)
	l.timer.Stop()
	go l.readAll()
	go l.writeAll()
	return l
}

// kill ends the link for good: everything on it returns err from now on, or the
// error of the first kill. It does not wait for the transport to close.
func (l *link) kill(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.dead)
		go l.rwc.Close()
	})
}

// killed returns why the link is dead, or nil.
func (l *link) killed() error {
	select {
	case <-l.dead:
		return l.err
	default:
		return nil
	}
}

func (l *link) readAll() {
	defer close(l.chunks)
	var next *chunk
	for {
		if next == nil {
			next = newChunk(l.spare, chunkSize)
		}
		n, err := l.rwc.Read(next.buf[:chunkSize])
		if n > 0 {
			full := next
			if n > chunkSize/4 {
				next = nil
			} else { // who keeps a part of little should not keep much
				full = &chunk{buf: bytes.Clone(next.buf[:n])}
				full.refs.Store(1)
			}
			full.buf = full.buf[:n]
			select {
			case l.chunks <- full:
			case <-l.dead:
				return
			}
		}
		if err != nil {
			if err != io.EOF { //nolint:errorlint // a lost connection wraps io.EOF
				// What arrived before it is of no use to a half answer.
				l.kill(&lostError{fmt.Errorf("read: %w", err)})
			}
			return
		}
	}
}

func (l *link) writeAll() {
	for {
		select {
		case b := <-l.out:
			if _, err := l.rwc.Write(b); err != nil {
				// A peer that ended may have said why: let the reader find
				// that, or the end of the input.
				select {
				case <-l.dead:
				case <-time.After(time.Second):
					l.kill(&lostError{fmt.Errorf("write: %w", err)})
				}
				return
			}
		case <-l.dead:
			return
		}
	}
}

// send queues b, which the caller gives away.
func (l *link) send(b []byte) error {
	select {
	case l.out <- b:
		return nil
	case <-l.dead:
		return l.err
	}
}

// Read waits for bytes, at most as long as the peer may be silent.
func (l *link) Read(p []byte) (int, error) {
	part, _, err := l.take(len(p))
	return copy(p, part), err
}

// take is Read without a copy: what it returns is valid until the next call, and longer
// for who retains the chunk.
func (l *link) take(limit int) ([]byte, *chunk, error) {
	if len(l.part) == 0 {
		if err := l.next(); err != nil {
			return nil, nil, err
		}
	}
	part := l.part[:min(limit, len(l.part))]
	l.part = l.part[len(part):]
	return part, l.whole, nil
}

func (l *link) next() error {
	if l.whole != nil {
		l.whole.release()
		l.whole = nil
	}
	var c *chunk
	var ok bool
	select {
	case c, ok = <-l.chunks:
	default:
		l.timer.Reset(l.silence)
		select {
		case c, ok = <-l.chunks:
			l.timer.Stop()
		case <-l.dead:
			l.timer.Stop()
			return l.err
		case <-l.timer.C:
			l.kill(&lostError{fmt.Errorf("%w for %v", ErrSilent, l.silence)})
			return l.err
		}
	}
	if !ok {
		if err := l.killed(); err != nil {
			return err
		}
		return io.EOF
	}
	l.part, l.whole = c.buf, c
	return nil
}

// quiet reports whether the link is open and nothing has arrived that nobody
// asked for. It must not be called while a Read may run.
func (l *link) quiet() bool {
	if len(l.part) > 0 {
		return false
	}
	select {
	case <-l.dead:
		return false
	case <-l.chunks: // something, or the end
		l.kill(hostile("something that was not asked for"))
		return false
	default:
		return true
	}
}
