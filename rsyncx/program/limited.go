package program

import (
	"context"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// limited is a source whose content comes no faster than a rate.
type limited struct {
	rsyncx.Source
	rate *rate
}

var _ rsyncx.Source = (*limited)(nil)

func (l *limited) Read(ctx context.Context, want iter.Seq[rsyncx.Want]) iter.Seq2[rsyncx.File, error] {
	return func(yield func(rsyncx.File, error) bool) {
		for f, err := range l.Source.Read(ctx, want) {
			if f.Body != nil {
				f.Body = &slowed{ctx, f.Body, l.rate}
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

// rate says when so much may have been read.
type rate struct {
	perSecond int64 // bytes
	now       func() time.Time

	mu   sync.Mutex
	next time.Time // when what was read so far is paid for
}

// owe takes n bytes and returns how long to wait for them. What was not used for
// more than a second is lost.
func (r *rate) owe(n int) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if earliest := now.Add(-time.Second); r.next.Before(earliest) {
		r.next = earliest
	}
	r.next = r.next.Add(time.Duration(float64(n) / float64(r.perSecond) * float64(time.Second)))
	return r.next.Sub(now)
}

type slowed struct {
	ctx  context.Context // of the iterator that the body belongs to
	body io.Reader
	rate *rate
}

func (s *slowed) Read(p []byte) (int, error) {
	n, err := s.body.Read(p[:min(len(p), 64<<10)])
	if wait := s.rate.owe(n); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.ctx.Done():
			return n, context.Cause(s.ctx)
		}
	}
	return n, err
}
