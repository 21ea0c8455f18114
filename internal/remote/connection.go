package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/wire"
)

// connection is one SSH login. It is dead once the host was silent for four
// intervals of the keepalive, or after close.
type connection struct {
	client *ssh.Client
	wire   *timedConn
	name   string // user@host:port

	dead     chan struct{} // closed when the connection is of no more use
	once     sync.Once
	err      error // why, set before dead is closed
	watchers sync.WaitGroup
}

var errClosed = errors.New("the connection was closed")

func connect(ctx context.Context, c Config) (*connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.DialTimeout, verdict{fmt.Errorf("no login within %v", c.DialTimeout), ErrConnectTimeout})
	defer cancel()
	t, err := resolve(c)
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort(t.host, strconv.Itoa(t.port))
	check, algorithms, err := hostKeys(t, addr)
	if err != nil {
		return nil, err
	}
	signers, release, err := credentials(ctx, t)
	defer release()
	if err != nil {
		return nil, err
	}
	raw, err := reach(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	timed := &timedConn{Conn: raw, start: time.Now(), limit: newThrottle(c.BandwidthLimit), closed: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	var refused atomic.Pointer[error] // the callback's error, which the handshake does not wrap
	sshConn, channels, requests, err := ssh.NewClientConn(timed, addr, &ssh.ClientConfig{
		User: t.user,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)},
		HostKeyCallback: func(host string, from net.Addr, key ssh.PublicKey) error {
			err := check(host, from, key)
			if err != nil {
				refused.Store(&err)
			}
			return err
		},
		HostKeyAlgorithms: algorithms,
		ClientVersion:     "SSH-2.0-drsync",
	})
	if err = failedHandshake(ctx, stop(), timed.heard(), err); err != nil {
		raw.Close()
		if why := refused.Load(); why != nil {
			return nil, verdict{*why, ErrAnswered}
		}
		return nil, explainLogin(err, t)
	}
	n := &connection{client: ssh.NewClient(sshConn, channels, requests), wire: timed, name: t.user + "@" + addr, dead: make(chan struct{})}
	n.watch(c.KeepAlive)
	return n, nil
}

// kill ends the connection; the first reason counts.
func (n *connection) kill(err error) {
	n.once.Do(func() {
		n.err = err
		close(n.dead)
		n.wire.Close() // and not the client's Close, which first wants to say goodbye
	})
}

// close ends the connection and waits until its goroutines have noticed.
func (n *connection) close() error {
	n.kill(errClosed)
	n.watchers.Wait()
	return nil
}

// watch notices the end of the connection, and asks a silent host for a sign of life.
func (n *connection) watch(every time.Duration) {
	n.watchers.Go(func() {
		err := n.client.Wait()
		n.kill(verdict{fmt.Errorf("the ssh connection to %s was lost: %w", n.name, err), wire.ErrLost})
	})
	n.watchers.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		asked := make(chan struct{}, 1) // holds one while a question is open
		for {
			select {
			case <-t.C:
			case <-n.dead:
				return
			}
			silent := n.wire.silence()
			if silent > 4*every {
				n.kill(verdict{fmt.Errorf("%s was silent for %v", n.name, silent.Round(time.Millisecond)), ErrTimeout})
				return
			}
			if silent < every {
				continue
			}
			select {
			case asked <- struct{}{}:
				n.watchers.Go(func() {
					_, _, _ = n.client.SendRequest("keepalive@openssh.com", true, nil)
					<-asked
				})
			default:
			}
		}
	})
}

// lost returns why the connection is dead, or nil.
func (n *connection) lost() error {
	select {
	case <-n.dead:
		return n.err
	default:
		return nil
	}
}

// await runs do, which may block in the SSH library, until ctx or the connection ends.
// undo is called with the result if nobody waits for it any more.
func await[T any](ctx context.Context, n *connection, do func() (T, error), undo func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do()
		done <- result{v, err}
	}()
	var none T
	select {
	case r := <-done:
		if r.err != nil {
			if lost := n.lost(); lost != nil {
				return none, lost
			}
			return none, r.err
		}
		return r.value, nil
	case <-ctx.Done():
	case <-n.dead:
	}
	go func() {
		if r := <-done; r.err == nil {
			undo(r.value)
		}
	}()
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	return none, n.err
}

// dialContext opens a tunnel. The connection it returns has deadlines, which a
// channel of the SSH library has not.
func (n *connection) dialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	far, err := await(ctx, n, func() (net.Conn, error) { return n.client.Dial(network, addr) }, func(c net.Conn) { c.Close() })
	if err != nil {
		wrapped := fmt.Errorf("connect to %s through %s: %w", addr, n.name, err)
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) && refused.Reason == ssh.Prohibited {
			return nil, hint.With(wrapped, fmt.Sprintf("let this key forward there, on the active: permitopen=%q in its line of authorized_keys, AllowTcpForwarding and PermitOpen in sshd_config", addr))
		}
		return nil, wrapped
	}
	return newTunnel(far, network, addr), nil
}

// timedConn remembers when something last arrived.
type timedConn struct {
	net.Conn
	start time.Time
	last  atomic.Int64 // nanoseconds after start
	some  atomic.Bool  // something has arrived

	limit  *throttle
	once   sync.Once
	closed chan struct{}
}

// heard says whether anything has arrived at all.
func (c *timedConn) heard() bool { return c.some.Load() }

func (c *timedConn) silence() time.Duration {
	return time.Since(c.start) - time.Duration(c.last.Load())
}

func (c *timedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(c.limit.share(p))
	c.limit.spend(n, c.closed)
	if n > 0 {
		c.last.Store(int64(time.Since(c.start)))
		c.some.Store(true)
	}
	return n, err
}

func (c *timedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
