package wire

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/drsync/drsync/rsyncx"
)

// Stream asks for the named stream. Its reader returns io.EOF only when
// everything has arrived undamaged. The Conn is busy until the reader is closed;
// done is then called once.
func (c *Conn) Stream(ctx context.Context, name, arg string, done func()) (io.ReadCloser, error) {
	wrap := func(err error) error { return fmt.Errorf("stream %s: %w", rsyncx.Printable(name), err) }
	if len(name) > maxStream || len(arg) > maxStream {
		return nil, wrap(fmt.Errorf("a name of %d and an argument of %d bytes", len(name), len(arg)))
	}
	end := c.begin(ctx)
	c.leastAlive = leastAliveWhole
	err := c.ask(frameStream, appendString(appendString(nil, name), arg))
	if err == nil {
		_, err = c.expect(frameDone) // begun
	}
	if err != nil {
		return nil, wrap(end(err))
	}
	return &stream{body: body{c: c}, wrap: wrap, end: end, done: done}, nil
}

type stream struct {
	mu   sync.Mutex // Close may come while Read is blocked
	body body
	wrap func(error) error
	end  func(error) error
	done func()
	once sync.Once
}

var _ io.ReadCloser = (*stream)(nil)

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.body.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a lost connection wraps io.EOF
		err = s.wrap(err)
	}
	return n, err
}

// Close ends the stream. When it was not read to its end, the rest is dropped
// together with the Conn.
func (s *stream) Close() error {
	s.once.Do(func() {
		if !s.mu.TryLock() {
			s.body.c.link.kill(errStopped)
			s.mu.Lock()
		}
		defer s.mu.Unlock()
		switch {
		case s.body.err == nil || s.body.lost:
			_ = s.end(errStopped)
		default:
			_ = s.end(nil)
		}
		s.body.err = io.ErrClosedPipe
		s.done()
	})
	return nil
}
