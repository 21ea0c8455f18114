package remote

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// maxAnswer bounds what a command may answer, in bytes.
const maxAnswer = 64 << 10

// exchange runs a command to its end and returns the beginning of its output. It
// ends early when nothing moves for as long as silence.
func exchange(ctx context.Context, f far, silence time.Duration, in io.Reader, words ...string) (string, error) {
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
	var answer []byte
	buf := make([]byte, 4<<10)
	for err == nil {
		var n int
		n, err = p.Read(buf)
		idle.Reset(silence)
		answer = append(answer, buf[:min(n, maxAnswer-len(answer))]...)
	}
	err = p.wait(ctx)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return string(answer), err
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
