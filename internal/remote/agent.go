package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/wire"
)

// agentHost reaches the host through drsync processes that it starts there, one
// for each request under way. They end when their input does.
type agentHost struct {
	agentConfig
	pool    *wire.Pool
	dialing chan struct{} // holds one for each agent that is being started
	ready   chan *wire.Conn

	installing chan struct{} // holds one while one is installed
	installed  atomic.Int32  // how often one was

	moved traffic
}

type agentConfig struct {
	far         far
	command     []string // what starts drsync, in words for the far side's shell
	roots       []string
	version     string
	compress    wire.Compress
	self        *self // to be installed where drsync is not found; or nil
	channels    int
	oneByOne    bool          // agents are started one at a time: each may ask for a password
	dialTimeout time.Duration // of starting one agent
	silence     time.Duration
	tunnel      func(ctx context.Context, network, addr string) (net.Conn, error)
}

var _ Host = (*agentHost)(nil)

func newAgentHost(c agentConfig) *agentHost {
	together := c.channels
	if c.oneByOne {
		together = 1
	}
	h := &agentHost{agentConfig: c, dialing: make(chan struct{}, together), ready: make(chan *wire.Conn, 1), installing: make(chan struct{}, 1)}
	h.pool = wire.NewPool(c.channels, h.dial)
	return h
}

// first starts an agent for the first request to come.
func (h *agentHost) first(ctx context.Context) error {
	c, err := h.dial(ctx)
	if err == nil {
		h.ready <- c
	}
	return err
}

func (h *agentHost) dial(ctx context.Context) (*wire.Conn, error) {
	select {
	case h.dialing <- struct{}{}:
		defer func() { <-h.dialing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case c := <-h.ready:
		return c, nil
	default:
	}
	c, err := h.greet(ctx)
	if err != nil {
		return nil, fmt.Errorf("start the agent on %s: %w", h.far, err)
	}
	return c, nil
}

// greet starts an agent, if need be by installing it.
func (h *agentHost) greet(ctx context.Context) (*wire.Conn, error) {
	before := h.installed.Load()
	c, err := h.try(ctx)
	if h.self == nil || !lacking(err) {
		return c, err
	}
	select {
	case h.installing <- struct{}{}:
		defer func() { <-h.installing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if h.installed.Load() != before { // by another request meanwhile
		if c, err = h.try(ctx); !lacking(err) {
			return c, err
		}
	}
	if h.installed.Load() >= maxInstalls {
		return nil, err
	}
	if failed := h.installAgent(ctx); failed != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("install it there, since %w: %w", err, failed)
	}
	h.installed.Add(1)
	return h.try(ctx)
}

// maxInstalls bounds how often an agent is installed anew on one host: one that
// somebody there keeps changing is no agent.
const maxInstalls = 3

// lacking says whether an agent is to be installed because of err.
func lacking(err error) bool {
	return errors.Is(err, ErrRemoteNotFound) || errors.Is(err, wire.ErrVersion)
}

// try starts an agent.
func (h *agentHost) try(ctx context.Context) (*wire.Conn, error) {
	late := error(verdict{fmt.Errorf("the agent did not greet within %v", h.dialTimeout), ErrConnectTimeout})
	ctx, cancel := context.WithTimeoutCause(ctx, h.dialTimeout, late)
	defer cancel()
	p, err := h.far.run(ctx, h.words()...)
	if err != nil {
		return nil, err
	}
	c, err := wire.Dial(ctx, &counted{p, &h.moved}, wire.ClientOptions{Version: h.version, Compress: h.compress, Silence: h.silence, Greeting: h.dialTimeout + unhurried, Explain: func(err error) error {
		if errors.Is(err, wire.ErrSilent) {
			return verdict{withStderr(err, p.said()), ErrTimeout}
		}
		return p.explain(err)
	}})
	if errors.Is(err, ErrConnectTimeout) {
		err = withStderr(err, p.said())
	}
	return c, err
}

// unhurried keeps the silence before the greeting from being found before the end of the time for it,
// which says the same and is another error.
const unhurried = time.Minute

// words are the command line that starts the agent.
func (h *agentHost) words() []string {
	words := slices.Clone(h.command)
	if h.self != nil {
		words = h.self.preferring(strings.Join(h.command, " "))
	}
	words = append(words, "agent")
	for _, root := range h.roots {
		words = append(words, "--root", quoteWord(root))
	}
	return words
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
	return h.tunnel(ctx, network, addr)
}

func (h *agentHost) Describe() string { return h.far.String() + " (agent)" }

func (h *agentHost) Close() error {
	err := h.pool.Close()
	select {
	case c := <-h.ready:
		c.Close()
	default:
	}
	return errors.Join(err, h.far.close())
}
