package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/zeebo/xxh3"
)

func appendTime(b []byte, t time.Time) []byte { return binary.AppendVarint(b, t.UnixNano()) }

func (a *agent) stream(ctx context.Context, d *decoder) error {
	name, arg := d.string("name", maxStream), d.string("argument", maxStream)
	if err := d.end("request"); err != nil {
		return err
	}
	write, ok := a.Streams[name]
	if !ok {
		return fmt.Errorf("this drsync (%s) has no stream %q: %w", a.Version, name, errors.ErrUnsupported)
	}
	if err := errors.Join(a.send(frameDone, nil), a.out.flush()); err != nil {
		return &sessionError{err}
	}
	stop := a.keepAlive()
	defer stop()
	w := &streamWriter{a: a}
	err := write(ctx, arg, w)
	stop()
	if w.err != nil {
		return w.err
	}
	if err != nil {
		return a.send(frameCut, appendError(nil, err))
	}
	return a.send(frameSum, appendSum(nil, w.total, &w.hash))
}

// streamWriter sends what is written to it as the content of a stream.
type streamWriter struct {
	a     *agent
	hash  xxh3.Hasher
	total int64
	err   error
}

var _ io.Writer = (*streamWriter)(nil)

func (w *streamWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 && w.err == nil {
		part := p[:min(len(p), dataFrame)]
		_, _ = w.hash.Write(part)
		if w.err = w.a.send(frameData, part); w.err == nil {
			written += len(part)
			w.total += int64(len(part))
			p = p[len(part):]
		}
	}
	return written, w.err
}

// Flush sends what was written and is gathered still, for a stream that goes on much later.
func (w *streamWriter) Flush() error {
	if w.err == nil {
		w.err = w.a.flush()
	}
	return w.err
}
