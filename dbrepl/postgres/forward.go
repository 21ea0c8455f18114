package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// access is how the client programs reach a server: what their environment
// says, in a private directory that close removes. No secret is ever in the
// arguments of a program.
type access struct {
	env   []string
	dir   string
	close func()
}

// access opens the way to a server for programs. Where only this process can
// reach the server, or encrypts what goes there, the way leads through a
// socket in the private directory. more are further settings of their sessions.
func (s *server) access(ctx context.Context, more ...[2]string) (*access, error) {
	dir, err := os.MkdirTemp(s.private, "drsync-pg-") // 0700
	if err != nil {
		return nil, err
	}
	a := &access{dir: dir, close: func() { os.RemoveAll(dir) }}
	host, port := s.spec.place()
	if s.spec.Dial != nil || s.spec.TLS != nil {
		f, err := s.forward(ctx, filepath.Join(dir, socketPrefix+port))
		if err != nil {
			a.close()
			return nil, err
		}
		host = dir
		a.close = func() {
			f.close()
			os.RemoveAll(dir)
		}
	}
	passwords := filepath.Join(dir, "pgpass")
	if err := os.WriteFile(passwords, []byte("*:*:*:*:"+escapePassword(s.spec.Password)+"\n"), 0o600); err != nil {
		a.close()
		return nil, err
	}
	a.env = append(plainEnvironment(),
		"PGHOST="+host, "PGPORT="+port, "PGUSER="+s.spec.User, "PGPASSFILE="+passwords,
		"PGSSLMODE=disable", "PGGSSENCMODE=disable", "PGCLIENTENCODING=UTF8",
		fmt.Sprintf("PGCONNECT_TIMEOUT=%d", max(2, int(s.limit.Connect.Seconds()))),
		"PGAPPNAME="+s.name, "PGOPTIONS="+s.sessionOptions(more...), "LC_ALL=C")
	return a, nil
}

// plainEnvironment is what child programs get of this process's environment: nothing that speaks
// to the client programs, and no passwords, which a server that is started would keep.
func plainEnvironment() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TZ", "LANG", "USER", "LOGNAME", "SHELL", "LD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// escapePassword writes a password as a line of a password file needs it.
func escapePassword(p string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(p)
}

// forwarder passes connections of a socket on to a server.
type forwarder struct {
	listener net.Listener
	cancel   context.CancelFunc
	work     sync.WaitGroup
}

func (s *server) forward(parent context.Context, path string) (*forwarder, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open a way to the %s database: %w", s.role, err)
	}
	ctx, cancel := context.WithCancel(parent)
	f := &forwarder{listener: l, cancel: cancel}
	context.AfterFunc(ctx, func() { l.Close() })
	f.work.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			f.work.Go(func() {
				defer near.Close()
				far, err := s.reach(ctx)
				if err != nil {
					return // the program says that the connection was closed
				}
				join(ctx, near, far, s.spec.TLS != nil)
			})
		}
	})
	return f, nil
}

func (f *forwarder) close() {
	f.cancel()
	f.listener.Close()
	f.work.Wait()
}

// join copies both ways until one side ends. encrypted says that far is and near
// is not.
func join(ctx context.Context, near, far net.Conn, encrypted bool) {
	both := func() {
		near.Close()
		far.Close()
	}
	stop := context.AfterFunc(ctx, both)
	defer stop()
	var work sync.WaitGroup
	// Whoever speaks over it notices an end that is too early.
	work.Go(func() {
		defer both()
		_, _ = io.Copy(far, near)
	})
	work.Go(func() {
		defer both()
		if !encrypted || withoutBinding(near, far) == nil {
			_, _ = io.Copy(near, far)
		}
	})
	work.Wait()
}

// maxGreeting bounds the messages before the one that asks for a password.
const maxGreeting = 64 << 10 // bytes

// withoutBinding passes the server's messages on up to the one that asks who is
// there, and takes from that the mechanism that binds the password to the
// encryption: the program's end is not encrypted, and it would refuse the offer.
func withoutBinding(near io.Writer, far io.Reader) error {
	for {
		header := make([]byte, 5) // what it is, and the length of the rest with itself
		if _, err := io.ReadFull(far, header); err != nil {
			return err
		}
		n := int64(binary.BigEndian.Uint32(header[1:])) - 4
		if n < 0 || n > maxGreeting {
			return fmt.Errorf("a message of %d bytes before the login", n)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(far, body); err != nil {
			return err
		}
		const mechanisms = 10 // the request for one of several
		asks := header[0] == 'R'
		if asks && n >= 4 && binary.BigEndian.Uint32(body) == mechanisms {
			body = bytes.Replace(body, []byte("SCRAM-SHA-256-PLUS\x00"), nil, 1)
			binary.BigEndian.PutUint32(header[1:], uint32(len(body))+4)
		}
		if _, err := near.Write(append(header, body...)); err != nil || asks || header[0] == 'E' {
			return err
		}
	}
}

// reach opens a connection on which the protocol's first message may be sent,
// encrypted if the server's specification says so.
func (s *server) reach(parent context.Context) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeoutCause(parent, s.limit.Connect, errSilent)
	defer cancel()
	c, err := s.dial(ctx)
	if err != nil || s.spec.TLS == nil {
		return c, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	// The request for encryption: its length and its code. "S" is a yes.
	answer := make([]byte, 1)
	if _, err = c.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err == nil && answer[0] != 'S' {
		err = errors.New("the server offers no encryption")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	t := tls.Client(c, s.spec.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}
