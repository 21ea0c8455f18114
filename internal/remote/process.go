package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/wire"
)

// process is a program running in a session of a connection.
type process struct {
	io.Reader
	input   io.WriteCloser
	conn    *connection
	session *ssh.Session
	stderr  capped
	ended   chan struct{} // closed when the program has ended and its stderr was read
	status  error         // of session.Wait
}

var _ program = (*process)(nil)

var _ far = (*connection)(nil)

func (n *connection) String() string { return n.name }

func (n *connection) run(ctx context.Context, words ...string) (program, error) {
	command := strings.Join(words, " ")
	return await(ctx, n, func() (program, error) {
		return start(n, func(s *ssh.Session) error { return s.Start(command) })
	}, func(p program) { p.Close() })
}

// start opens a session in which begin starts a program.
func start(n *connection, begin func(*ssh.Session) error) (*process, error) {
	s, err := n.client.NewSession()
	if err != nil {
		err = fmt.Errorf("open a session: %w", err)
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			err = hint.With(err, "set MaxSessions to 10 or more in the active's sshd_config")
		}
		return nil, err
	}
	p := &process{conn: n, session: s, ended: make(chan struct{})}
	s.Stderr = &p.stderr
	if p.input, err = s.StdinPipe(); err == nil {
		if p.Reader, err = s.StdoutPipe(); err == nil {
			err = begin(s)
		}
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("begin a session: %w", err)
	}
	go func() {
		p.status = s.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) Write(b []byte) (int, error) { return p.input.Write(b) }
func (p *process) CloseWrite() error           { return p.input.Close() }

// Close closes the session, at which sshd closes the program's input, so that it
// ends too. The input is not closed by itself: that may not be done during a Write.
func (p *process) Close() error {
	if err := p.session.Close(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.ended:
		if p.status == nil {
			return nil
		}
		return p.explain(errors.New("it failed"))
	case <-p.conn.dead:
		return p.conn.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// explain adds to an error of the stream how the program ended and what it said.
func (p *process) explain(err error) error {
	wait := time.After(time.Second)
	select {
	case <-p.ended:
	case <-p.conn.dead:
	case <-wait:
	}
	var exit *ssh.ExitError
	if p.hasEnded() && !errors.As(p.status, &exit) {
		select { // without a status it is the connection that ended
		case <-p.conn.dead:
		case <-wait:
		}
	}
	if lost := p.conn.lost(); lost != nil {
		return lost
	}
	switch {
	case exit == nil:
		return withStderr(err, p.stderr.text())
	case exit.Signal() != "":
		return shellError(err, -1, "signal "+wire.Clean([]byte(exit.Signal()))+" ended it", p.stderr.text())
	}
	return shellError(err, exit.ExitStatus(), "", p.stderr.text())
}

func (p *process) said() string    { return p.stderr.text() }
func (p *process) lines() []string { return p.stderr.lines() }

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// capped keeps the first 32 KiB written to it.
type capped struct {
	copyTo io.Writer // also gets it, line by line and safe to print; or nil
	mu     sync.Mutex
	kept   []byte
	line   []byte // that has no end yet
}

const maxStderr = 32 << 10

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, p[:min(len(p), maxStderr-len(c.kept))]...)
	if c.copyTo != nil {
		for rest := p; len(rest) > 0; {
			line, after, whole := bytes.Cut(rest, []byte("\n"))
			c.line = append(c.line, line...)
			if whole || len(c.line) > maxStderr {
				fmt.Fprintln(c.copyTo, wire.Clean(c.line))
				c.line = c.line[:0]
			}
			rest = after
		}
	}
	return len(p), nil
}

// text returns what was written, safe to print.
func (c *capped) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return wire.Clean(c.kept)
}

// lines returns what was written, as it came.
func (c *capped) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.FieldsFunc(string(c.kept), func(r rune) bool { return r == '\n' })
}
