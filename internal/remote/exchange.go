package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// maxAnswer bounds what a command may answer, in bytes.
const maxAnswer = 64 << 10

// exchange runs a command to its end and returns its output, or the beginning of
// that. It ends early when nothing moves for as long as silence.
func exchange(ctx context.Context, f far, silence time.Duration, in io.Reader, words ...string) (string, error) {
	var answer strings.Builder
	_, err := converse(ctx, f, silence, in, func(out io.Reader) error {
		if _, err := io.CopyN(&answer, out, maxAnswer); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err := io.Copy(io.Discard, out)
		return err
	}, words...)
	return answer.String(), err
}

// converse runs a command to its end, gives its output to read, and returns what
// it wrote to stderr. An error of read ends it early; that of the command counts
// more otherwise, and says how it ended. Nothing moves for longer than silence.
func converse(ctx context.Context, f far, silence time.Duration, in io.Reader, read func(io.Reader) error, words ...string) (said string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(silence, func() {
		cancel(verdict{fmt.Errorf("%s was silent for %v", f, silence), ErrTimeout})
	})
	defer idle.Stop()
	p, err := f.run(ctx, words...)
	if err != nil {
		return "", err
	}
	defer p.Close()
	defer context.AfterFunc(ctx, func() { p.Close() })()

	var writer sync.WaitGroup
	writer.Go(func() {
		if in != nil {
			// A command that ends before its input says why by its status.
			_, _ = io.Copy(moved{p, idle, silence}, in)
		}
		_ = p.CloseWrite()
	})
	defer writer.Wait()
	defer p.Close() // for a writer whose reader has ended
	err = read(heard{p, idle, silence})
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	switch {
	case errors.Is(err, rsyncx.ErrHostile), errors.Is(err, rsyncx.ErrTooMany):
		return "", err
	case err != nil:
		return "", p.explain(err)
	}
	if err = p.wait(ctx); ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return p.said(), err
}

// heard passes on what is read from it, and puts off the end of patience.
type heard struct {
	r       io.Reader
	idle    *time.Timer
	silence time.Duration
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.idle.Reset(h.silence)
	return n, err
}

// moved passes on what is written to it, and puts off the end of patience.
type moved struct {
	w       io.Writer
	idle    *time.Timer
	silence time.Duration
}

func (m moved) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.idle.Reset(m.silence)
	return n, err
}
