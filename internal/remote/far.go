package remote

import (
	"context"
	"io"
	"sync"
)

// far starts programs on a host, whatever leads there.
type far interface {
	// run starts the command line that the words make with spaces in between; the
	// login's shell on the host reads it.
	run(ctx context.Context, words ...string) (program, error)
	// lost returns why nothing can be started any more, or nil.
	lost() error
	// close ends everything that was started, and waits for what runs on this host.
	close() error
	String() string
}

// program is one command under way on a host: its input and output as one stream.
type program interface {
	io.ReadWriteCloser
	// CloseWrite ends its input. It must not be called during a Write.
	CloseWrite() error
	// wait returns when it has ended and nil if that was with status 0, a
	// *ShellError otherwise, or why that is not known. Its output must be read meanwhile.
	wait(ctx context.Context) error
	// explain adds to an error of the stream how the program ended and what it said.
	explain(err error) error
	// said returns what it wrote to stderr, safe to print.
	said() string
	// lines returns the same as it came, line by line.
	lines() []string
}

// limited is a far on which only so many programs run at once.
type limited struct {
	far
	slots chan struct{}
}

func (l limited) run(ctx context.Context, words ...string) (program, error) {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p, err := l.far.run(ctx, words...)
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{program: p, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// slotted is a program that holds a slot until it is closed.
type slotted struct {
	program
	free func()
}

func (s *slotted) Close() error {
	defer s.free()
	return s.program.Close()
}
