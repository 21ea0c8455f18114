// Package remote is this host's connection to the active: one SSH login for
// files, clock, streams and tunnels.
//
// Its invariant: the active is never changed, but for one directory of drsync's own in
// the login's cache if Config.Install asks for it; and no wait on it is without an end. The dial has a timeout that covers the handshake, a peer that has gone
// silent is cut off, and a host key that is not known is refused; there is
// no switch for that.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/wire"
)

// Host is the active as seen from here. Its methods may be called from several
// goroutines at once.
type Host interface {
	// Source opens the tree below the directory root of the host.
	Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error)

	// Clock returns the host's clock minus this one's; the true value is within
	// skew ± bound. A transport that cannot tell wraps errors.ErrUnsupported.
	Clock(ctx context.Context) (skew, bound time.Duration, err error)

	// Stream starts the named stream with an argument. Its reader returns
	// io.EOF only when everything has arrived undamaged, and must be closed. A
	// host that does not have the stream wraps errors.ErrUnsupported.
	Stream(ctx context.Context, name, arg string) (io.ReadCloser, error)

	// DialContext connects to an address as that host sees it: a port of its
	// loopback, or with network "unix" a socket.
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)

	// Describe names the host and how it is reached, in a few words.
	Describe() string

	// Close ends everything under way, on the other side too. What came from
	// the Host must not be used after it.
	Close() error
}

// Config says how to reach a host by SSH. What is zero is taken from the user's
// ~/.ssh/config, then from the usual defaults.
type Config struct {
	Host string // a name, an address, or a Host of ~/.ssh/config
	User string
	Port int

	Identity   string // file of a private key; without it the agent's keys and the usual files are tried
	KnownHosts string // file of host keys; without it the user's and the system's
	SSHConfig  string // instead of ~/.ssh/config; "none" reads none

	Transport    string        // TransportAgent or TransportSFTP
	AgentCommand []string      // what starts the agent on the host, in words; none is "drsync"
	Roots        []string      // directories that Source may be asked for: the agent is told to serve no others
	Version      string        // of this program, for the agent's error messages
	Compress     wire.Compress // what the agent sends; with TransportAgent

	// Install copies this program to a host on which AgentCommand is not found or
	// speaks another version of the protocol, if that is of the same platform: to
	// ${XDG_CACHE_HOME:-$HOME/.cache}/drsync/agents/VERSION-SUM/drsync of the login, which is
	// run from then on. Of older ones there the last two are kept. Only with TransportAgent.
	Install bool

	DialTimeout time.Duration // for connecting, handshake and login; 0 is 20 s
	KeepAlive   time.Duration // how often a silent host is asked for a sign of life; it is given up after four; 0 is 15 s
	Silence     time.Duration // ends a request in which nothing arrives for so long; 0 is 2 min
}

// The transports.
const (
	TransportAgent = "agent" // drsync on the active, started by SSH
	TransportSFTP  = "sftp"  // nothing but sshd on the active
)

// maxChannels is how many requests may run at once. OpenSSH allows ten sessions in one connection.
const maxChannels = 10

// Dial connects to a host and logs in. An error wraps ErrUnreachable or
// ErrAnswered when the attempt says whether the host is there; one that wraps
// neither, of the configuration for instance, says nothing about the host.
func Dial(ctx context.Context, c Config) (Host, error) {
	switch {
	case c.Host == "":
		return nil, errors.New("connect to the active: no host is given")
	case c.Transport != TransportAgent && c.Transport != TransportSFTP:
		return nil, fmt.Errorf("connect to %s: unknown transport %q: it is %s or %s", c.Host, c.Transport, TransportAgent, TransportSFTP)
	}
	if c.DialTimeout <= 0 {
		c.DialTimeout = 20 * time.Second
	}
	if c.KeepAlive <= 0 {
		c.KeepAlive = 15 * time.Second
	}
	if c.Silence <= 0 {
		c.Silence = 2 * time.Minute
	}
	if len(c.AgentCommand) == 0 {
		c.AgentCommand = []string{"drsync"}
	}
	c.Roots = slices.Clone(c.Roots)
	var me *self
	if c.Install {
		var err error
		if me, err = examineSelf(c.Version); err != nil {
			return nil, fmt.Errorf("connect to %s: %w", rsyncx.Printable(c.Host), err)
		}
	}
	conn, err := connect(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", rsyncx.Printable(c.Host), err)
	}
	if c.Transport == TransportSFTP {
		return newSFTPHost(conn, c), nil
	}
	return newAgentHost(agentConfig{
		far: conn, command: []string{quote(c.AgentCommand...)}, roots: c.Roots, version: c.Version, compress: c.Compress, self: me,
		channels: maxChannels, dialTimeout: c.Silence, silence: c.Silence, tunnel: conn.dialContext,
	}), nil
}
