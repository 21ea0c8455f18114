package sshserver

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// session serves one session channel: it runs one command or the sftp subsystem.
func (s *Server) session(ctx context.Context, incoming ssh.NewChannel) {
	ch, requests, err := incoming.Accept()
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	started := false
	for r := range requests {
		run, ok := s.program(r)
		ok = ok && !started
		_ = r.Reply(ok, nil)
		if !ok {
			continue
		}
		started = true
		running.Go(func() {
			status := run(ctx, ch)
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
			ch.Close()
		})
	}
	// The client closed the channel, or the connection ended.
	cancel()
	ch.Close()
	running.Wait()
}

// program returns what a request asks to run.
func (s *Server) program(r *ssh.Request) (run func(context.Context, ssh.Channel) int, ok bool) {
	var what struct{ Text string }
	if r.Type != "exec" && r.Type != "subsystem" || ssh.Unmarshal(r.Payload, &what) != nil {
		return nil, false
	}
	switch {
	case r.Type == "exec" && s.options.Exec != nil:
		return func(ctx context.Context, ch ssh.Channel) int {
			return s.options.Exec(ctx, what.Text, ch, ch, ch.Stderr())
		}, true
	case r.Type == "subsystem" && what.Text == "sftp" && s.options.SFTP:
		return func(_ context.Context, ch ssh.Channel) int {
			server, err := sftp.NewServer(ch, sftp.ReadOnly())
			if err != nil {
				return 1
			}
			if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
				return 1
			}
			return 0
		}, true
	}
	return nil, false
}

// forward serves a tunnel to any address that this process can reach.
func forward(ctx context.Context, incoming ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(incoming.ExtraData(), &to); err != nil {
		_ = incoming.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	out, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))))
	if err != nil {
		_ = incoming.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer out.Close()
	ch, requests, err := incoming.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	var all sync.WaitGroup
	all.Go(func() { ssh.DiscardRequests(requests) })
	all.Go(func() {
		_, _ = io.Copy(ch, out)
		_ = ch.CloseWrite()
	})
	all.Go(func() {
		_, _ = io.Copy(out, ch)
		out.Close()
	})
	all.Wait()
}
