package wire

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// link moves bytes between a Conn and its transport in two goroutines of its
// own, so that a request can give up, on its context or its deadline, whatever
// the transport is stuck in. The goroutines end when the transport is closed.
type link struct {
	rwc     io.ReadWriteCloser
	silence time.Duration

	chunks chan []byte // arrived, in order; closed at the end of the input
	spare  chan []byte // buffers to read into
	out    chan []byte // to be written

	part  []byte // what is left of the current chunk
	whole []byte // its buffer
	timer *time.Timer

	dead chan struct{} // closed by kill
	once sync.Once
	err  error // why; set before dead is closed
}

// lostError is an error of the transport, about which its owner may know more.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

const (
	chunkSize = 64 << 10
	chunkRing = 8
)

func newLink(rwc io.ReadWriteCloser, silence time.Duration) *link {
	l := &link{
		rwc: rwc, silence: silence,
		chunks: make(chan []byte, chunkRing), spare: make(chan []byte, chunkRing),
		out: make(chan []byte, 4), dead: make(chan struct{}),
	}
	l.timer = time.NewTimer(silence)
	l.timer.Stop()
	for range chunkRing {
		l.spare <- nil // made when first needed: most links carry little
	}
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
	for {
		var buf []byte
		select {
		case buf = <-l.spare:
		case <-l.dead:
			return
		}
		if buf == nil {
			buf = make([]byte, chunkSize)
		}
		n, err := l.rwc.Read(buf[:cap(buf)])
		if n > 0 {
			select {
			case l.chunks <- buf[:n]:
			case <-l.dead:
				return
			}
		} else {
			l.spare <- buf
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
	if len(l.part) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.part)
	l.part = l.part[n:]
	return n, nil
}

func (l *link) next() error {
	if l.whole != nil {
		l.spare <- l.whole
		l.whole = nil
	}
	var chunk []byte
	var ok bool
	select {
	case chunk, ok = <-l.chunks:
	default:
		l.timer.Reset(l.silence)
		select {
		case chunk, ok = <-l.chunks:
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
	l.part, l.whole = chunk, chunk
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
