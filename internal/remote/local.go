package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/wire"
)

// LocalHost returns this host itself, for an active whose files and database
// are mounted or reachable here. streams are those an agent would offer.
func LocalHost(streams map[string]wire.StreamFunc) Host { return &localHost{streams} }

type localHost struct{ streams map[string]wire.StreamFunc }

var _ Host = (*localHost)(nil)

func (h *localHost) Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return rsyncx.LocalView(root, v)
}

func (h *localHost) Clock(context.Context) (skew, bound time.Duration, err error) { return 0, 0, nil }

func (h *localHost) Stream(ctx context.Context, name, arg string) (io.ReadCloser, error) {
	write, ok := h.streams[name]
	if !ok {
		return nil, fmt.Errorf("stream %s: %w", rsyncx.Printable(name), errors.ErrUnsupported)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r, w := io.Pipe()
	s := &localStream{PipeReader: r, cancel: cancel, stop: context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })}
	s.writer.Go(func() {
		err := write(ctx, arg, w)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		s.stop()
		w.CloseWithError(err)
	})
	return s, nil
}

// localStream is a stream of this host under way.
type localStream struct {
	*io.PipeReader
	cancel context.CancelCauseFunc
	stop   func() bool
	writer sync.WaitGroup
}

func (s *localStream) Close() error {
	s.cancel(io.ErrClosedPipe)
	s.PipeReader.Close()
	s.writer.Wait()
	return nil
}

func (h *localHost) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return c, err
}

func (h *localHost) Describe() string { return "this host" }
func (h *localHost) Close() error     { return nil }
