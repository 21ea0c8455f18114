package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// sftpHost reaches the host through its SFTP server: nothing is installed there,
// and much is lost (see sftpSource).
type sftpHost struct {
	conn    *connection
	silence time.Duration

	mu     sync.Mutex
	links  map[*sftpLink]bool
	closed bool
}

var _ Host = (*sftpHost)(nil)

func newSFTPHost(n *connection, c Config) *sftpHost {
	return &sftpHost{conn: n, silence: c.Silence, links: map[*sftpLink]bool{}}
}

// Source opens root with an SFTP session of its own.
func (h *sftpHost) Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	wrap := func(err error) error {
		return fmt.Errorf("open %s on %s by sftp: %w", rsyncx.Printable(root), h.conn.name, err)
	}
	if v != (rsyncx.View{}) {
		return nil, wrap(fmt.Errorf("following links: %w by sftp", errors.ErrUnsupported))
	}
	if !path.IsAbs(root) {
		return nil, wrap(errors.New("it is not an absolute path"))
	}
	l, err := await(ctx, h.conn, func() (*sftpLink, error) { return openSFTP(h.conn, h.silence) }, func(l *sftpLink) { l.close(errClosed) })
	if err != nil {
		return nil, wrap(err)
	}
	s := &sftpSource{host: h, link: l, root: path.Clean(root)}
	h.mu.Lock()
	h.links[l] = true
	if h.closed {
		l.close(errClosed)
	}
	h.mu.Unlock()
	// The root itself may be, or pass through, a symbolic link.
	info, err := call(ctx, l, func() (*sftp.FileStat, error) { return statOf(l.client.Stat(s.root)) })
	if err == nil && info.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		s.Close()
		return nil, wrap(err)
	}
	return s, nil
}

func (h *sftpHost) Clock(context.Context) (skew, bound time.Duration, err error) {
	return 0, 0, fmt.Errorf("read the active's clock by sftp: %w", errors.ErrUnsupported)
}

func (h *sftpHost) Stream(_ context.Context, name, _ string) (io.ReadCloser, error) {
	return nil, hint.With(fmt.Errorf("stream %s by sftp: %w", rsyncx.Printable(name), errors.ErrUnsupported),
		"install drsync on the active and use transport: agent")
}

func (h *sftpHost) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return h.conn.dialContext(ctx, network, addr)
}

func (h *sftpHost) Describe() string { return h.conn.name + " (sftp)" }

func (h *sftpHost) Close() error {
	h.mu.Lock()
	h.closed = true
	for l := range h.links {
		l.close(errClosed)
	}
	h.mu.Unlock()
	return h.conn.close()
}

// maxSFTPRead is the largest piece of a file that is asked for at once. Above
// it the library takes a shorter answer, which a server may give, for the end of
// the file.
const maxSFTPRead = 32 << 10

// sftpLink is one SFTP session.
type sftpLink struct {
	conn    *connection
	client  *sftp.Client
	process *process
	silence time.Duration
	arrived atomic.Int64 // bytes

	dead chan struct{}
	once sync.Once
	err  error
}

func openSFTP(n *connection, silence time.Duration) (*sftpLink, error) {
	p, err := start(n, func(s *ssh.Session) error { return s.RequestSubsystem("sftp") })
	if err != nil {
		return nil, hint.With(err, "the active's sshd_config needs a line: Subsystem sftp internal-sftp")
	}
	l := &sftpLink{conn: n, process: p, silence: silence, dead: make(chan struct{})}
	l.client, err = sftp.NewClientPipe(&countedReader{p.Reader, &l.arrived}, p.input,
		sftp.MaxPacketChecked(maxSFTPRead), sftp.MaxConcurrentRequestsPerFile(64), sftp.UseConcurrentReads(true))
	if err != nil {
		p.Close()
		return nil, p.explain(err)
	}
	return l, nil
}

// close ends the session; everything that waits for it returns err.
func (l *sftpLink) close(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.dead)
		go func() {
			l.process.Close()
			l.client.Close()
		}()
	})
}

// call runs one request. It returns early when ctx or the session ends, or when
// nothing at all arrives for too long; what the request still does is then of no effect.
func call[T any](ctx context.Context, l *sftpLink, do func() (T, error)) (T, error) {
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
	for heard := int64(math.MinInt64); ; {
		timer := time.NewTimer(l.silence)
		select {
		case r := <-done:
			timer.Stop()
			if r.err != nil && !answered(r.err) {
				l.close(l.process.explain(fmt.Errorf("the sftp session broke: %w", r.err)))
				return none, l.err
			}
			return r.value, shorten(r.err)
		case <-ctx.Done():
			timer.Stop()
			return none, context.Cause(ctx)
		case <-l.dead:
			timer.Stop()
			return none, l.err
		case <-l.conn.dead:
			timer.Stop()
			return none, l.conn.err
		case <-timer.C:
			now := l.arrived.Load()
			if now == heard {
				l.close(verdict{fmt.Errorf("the sftp server was silent for %v", l.silence), ErrTimeout})
				continue
			}
			heard = now
		}
	}
}

// answered reports whether an error is the server's answer to one request;
// any other means that the session is of no more use.
func answered(err error) bool {
	var status *sftp.StatusError
	// Not errors.Is: a lost session wraps io.EOF too.
	return errors.As(err, &status) || err == io.EOF || err == fs.ErrNotExist || err == fs.ErrPermission || err == fs.ErrClosed //nolint:errorlint // see above
}

// shorten cuts the text of an error that the server made.
func shorten(err error) error {
	var status *sftp.StatusError
	if errors.As(err, &status) && len(err.Error()) > 500 {
		return fmt.Errorf("%s… (status %d)", err.Error()[:500], status.Code)
	}
	return err
}

type countedReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
