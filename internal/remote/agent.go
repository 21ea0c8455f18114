package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/wire"
)

// agentHost reaches the host through drsync processes that it starts there, one
// for each request under way. They end when their input does.
type agentHost struct {
	conn *connection
	pool *wire.Pool
}

var _ Host = (*agentHost)(nil)

func newAgentHost(n *connection, c Config) *agentHost {
	words := append(slices.Clone(c.AgentCommand), "agent")
	for _, root := range c.Roots {
		words = append(words, "--root", root)
	}
	command := quote(words...)
	return &agentHost{n, wire.NewPool(maxChannels, func(ctx context.Context) (*wire.Conn, error) {
		p, err := await(ctx, n, func() (*process, error) { return start(n, func(s *ssh.Session) error { return s.Start(command) }) }, func(p *process) { p.Close() })
		if err != nil {
			return nil, fmt.Errorf("start the agent on %s: %w", n.name, err)
		}
		agent, err := wire.Dial(ctx, p, wire.ClientOptions{Version: c.Version, Silence: c.Silence, Explain: p.explain})
		if err != nil {
			return nil, fmt.Errorf("start the agent on %s: %w", n.name, err)
		}
		return agent, nil
	})}
}

func (h *agentHost) Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	return h.pool.Source(ctx, root, v)
}

func (h *agentHost) Clock(ctx context.Context) (skew, bound time.Duration, err error) {
	c, err := h.pool.Clock(ctx)
	return c.Skew, c.Bound, err
}

func (h *agentHost) Stream(ctx context.Context, name, arg string) (io.ReadCloser, error) {
	return h.pool.Stream(ctx, name, arg)
}

func (h *agentHost) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return h.conn.dialContext(ctx, network, addr)
}

func (h *agentHost) Describe() string { return h.conn.name + " (agent)" }

func (h *agentHost) Close() error {
	return errors.Join(h.pool.Close(), h.conn.close())
}

// process is a program running on the host: its input and output as one stream.
type process struct {
	io.Reader
	io.WriteCloser
	conn    *connection
	session *ssh.Session
	stderr  capped
	ended   chan struct{} // closed when the program has ended and its stderr was read
	status  error         // of session.Wait
}

var _ io.ReadWriteCloser = (*process)(nil)

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
	if p.WriteCloser, err = s.StdinPipe(); err == nil {
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

// Close closes the session, at which sshd closes the program's input, so that it
// ends too. The input is not closed by itself: that may not be done during a Write.
func (p *process) Close() error {
	if err := p.session.Close(); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
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
	if lost := p.conn.lost(nil); lost != nil {
		return lost
	}
	if exit != nil {
		err = fmt.Errorf("%w: it ended with status %d", err, exit.ExitStatus())
	}
	if said := p.stderr.text(); said != "" {
		err = fmt.Errorf("%w: it said: %s", err, said)
	}
	if exit != nil && (exit.ExitStatus() == 127 || exit.ExitStatus() == 126) {
		return hint.With(err, "install the same drsync on the active, where the login shell finds it, or use transport: sftp")
	}
	return err
}

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
	mu   sync.Mutex
	kept []byte
}

const maxStderr = 32 << 10

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, p[:min(len(p), maxStderr-len(c.kept))]...)
	return len(p), nil
}

// text returns what was written, safe to print.
func (c *capped) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return wire.Clean(c.kept)
}
