package mysql

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errSilent is the cause when a server does not answer in time.
var errSilent = errors.New("no answer in time")

// watchedConn is a network connection whose other side may be silent for as
// long as it is busy, but no longer. While a read or write waits, it asks
// through alive, every quiet, whether the other side is still at it, and gives
// the connection up when it is not. Deadlines could not tell a dead server from
// one that sorts for an hour.
type watchedConn struct {
	net.Conn
	quiet     time.Duration
	alive     func() error // nil: not watched
	abandoned func()       // called once when closed in the middle of something

	orderly atomic.Bool // the close that comes is the end of the session
	broken  atomic.Bool // the connection failed by itself
	once    sync.Once
}

func (w *watchedConn) Read(b []byte) (int, error) {
	defer w.watch()()
	n, err := w.Conn.Read(b)
	return n, w.result(err)
}

func (w *watchedConn) Write(b []byte) (int, error) {
	defer w.watch()()
	n, err := w.Conn.Write(b)
	return n, w.result(err)
}

func (w *watchedConn) result(err error) error {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		w.broken.Store(true)
	}
	return err
}

// watch begins to watch one operation and returns what ends that.
func (w *watchedConn) watch() (end func()) {
	if w.alive == nil || w.quiet <= 0 {
		return func() {}
	}
	var mu sync.Mutex
	var timer *time.Timer
	over := false
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(w.quiet, func() {
		err := w.alive()
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		if err == nil {
			timer.Reset(w.quiet)
			return
		}
		w.broken.Store(true)
		w.Conn.Close()
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// Close closes the connection. Without an orderly end before it, the server may
// still be working on a statement, which abandoned is told first: as soon as the
// connection is closed, those who wait for it go on.
func (w *watchedConn) Close() error {
	w.once.Do(func() {
		if !w.orderly.Load() && !w.broken.Load() && w.abandoned != nil {
			w.abandoned()
		}
		w.orderly.Store(true)
	})
	return w.Conn.Close()
}
