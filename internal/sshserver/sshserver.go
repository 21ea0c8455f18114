// Package sshserver is a small SSH server inside this process, on loopback, for
// the demonstration and for tests that need a peer which misbehaves.
//
// Its invariant: it listens on loopback only, lets one key in, runs no program
// by itself, and its SFTP subsystem is read only.
package sshserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Handler runs one command and returns its exit status. It obeys ctx, which ends
// when the client goes away. It may be called from several goroutines at once.
type Handler func(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) int

// Options configure a Server.
type Options struct {
	Authorized ssh.PublicKey // the key that may log in, under any name
	Exec       Handler       // nil refuses every command
	SFTP       bool          // offer the sftp subsystem, as of this process's user, read only
	Addr       string        // a loopback address; "" is a free port of 127.0.0.1
}

// Server is a running server.
type Server struct {
	listener net.Listener
	config   *ssh.ServerConfig
	options  Options
	hostKey  ssh.PublicKey
	cancel   context.CancelFunc
	all      sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Start starts a server with a new host key. It ends with ctx or Close.
func Start(ctx context.Context, o Options) (*Server, error) {
	wrap := func(err error) error { return fmt.Errorf("start the ssh server: %w", err) }
	if o.Authorized == nil {
		return nil, wrap(errors.New("no key may log in"))
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, wrap(err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, wrap(fmt.Errorf("%s is no loopback address", o.Addr))
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, wrap(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, wrap(err)
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, wrap(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Server{listener: l, options: o, hostKey: signer.PublicKey(), cancel: cancel, conns: map[net.Conn]bool{}}
	s.config = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), o.Authorized.Marshal()) {
			return nil, errors.New("another key")
		}
		return nil, nil
	}}
	s.config.AddHostKey(signer)
	s.all.Go(func() { s.accept(ctx) })
	s.all.Go(func() {
		<-ctx.Done()
		l.Close()
		s.Cut()
	})
	return s, nil
}

// Addr returns where the server listens, as host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// HostKey returns the server's key.
func (s *Server) HostKey() ssh.PublicKey { return s.hostKey }

// KnownHostsLine returns the line of a known_hosts file that makes the server known.
func (s *Server) KnownHostsLine() string {
	return knownhosts.Line([]string{knownhosts.Normalize(s.Addr())}, s.hostKey) + "\n"
}

// Cut ends every connection. New ones are welcome.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

// Close ends the server, its connections and its handlers, and waits for them.
func (s *Server) Close() error {
	s.cancel()
	s.all.Wait()
	return nil
}

func (s *Server) accept(ctx context.Context) {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		if ctx.Err() != nil {
			c.Close()
		}
		s.all.Go(func() {
			s.serve(ctx, c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

func (s *Server) serve(ctx context.Context, c net.Conn) {
	conn, channels, requests, err := ssh.NewServerConn(c, s.config)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	defer conn.Close()
	all.Go(func() { ssh.DiscardRequests(requests) })
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			all.Go(func() { s.session(ctx, ch) })
		case "direct-tcpip":
			all.Go(func() { forward(ctx, ch) })
		default:
			_ = ch.Reject(ssh.UnknownChannelType, "only sessions and tunnels")
		}
	}
	cancel() // the client is gone
}
