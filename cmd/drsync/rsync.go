package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/remote"
	"github.com/drsync/drsync/rsyncx/cli"
	"github.com/drsync/drsync/rsyncx/program"
	"github.com/drsync/drsync/rsyncx/wire"
)

func newRsync(o *options) *cobra.Command {
	return &cobra.Command{
		Use:                "rsync [OPTION]... SRC... DEST",
		Short:              "Copy trees by the command line of rsync",
		DisableFlagParsing: true, // the flags are rsync's
		RunE: func(c *cobra.Command, args []string) error {
			if status := rsync(c.Context(), o.env, args); status != exitDone {
				return statusError(status)
			}
			return nil
		},
	}
}

// rsync carries out a command line of rsync and returns its exit status, which is rsync's too.
func rsync(ctx context.Context, e env, args []string) int {
	return program.Run(ctx, program.World{
		In: e.in, Out: e.out, Err: e.err, Env: os.Getenv, Now: e.now, Version: e.version,
		Dial:   func(ctx context.Context, to program.Remote) (program.Host, error) { return dialFor(ctx, e, to) },
		Status: remoteStatus,
	}, args)
}

// dialFor opens the host of a command line: by the remote shell that it names,
// or else by drsync's own ssh.
func dialFor(ctx context.Context, e env, to program.Remote) (program.Host, error) {
	if to.Shell != "" {
		shell, err := remote.SplitShell(to.Shell)
		if err != nil {
			return nil, err
		}
		c := remote.CommandConfig{
			Shell: shell, User: to.User, Host: to.Host, Roots: to.Roots, Version: e.version, Compress: compression(to.Compress), Install: to.Install,
			DialTimeout: to.ConnectTimeout, Silence: to.Silence, BandwidthLimit: to.BytesPerSecond, Stderr: e.err,
		}
		if to.Program != "" {
			c.RemoteCommand = []string{to.Program}
		}
		asked := c.DialTimeout > 0
		if !asked {
			c.DialTimeout = to.Silence // --timeout counts from the start
		}
		h, err := remote.DialCommand(ctx, c)
		if !asked && to.Silence > 0 && errors.Is(err, remote.ErrConnectTimeout) {
			err = fmt.Errorf("%w: %w", remote.ErrTimeout, err)
		}
		return host(h, err)
	}
	agent, err := cli.SplitLine(to.Program)
	if err != nil {
		return nil, err
	}
	h, err := remote.Dial(ctx, remote.Config{
		Host: to.Host, User: to.User, Transport: remote.TransportAgent, AgentCommand: agent, Roots: to.Roots, Version: e.version,
		Compress: compression(to.Compress), Install: to.Install, DialTimeout: to.ConnectTimeout, Silence: to.Silence,
		BandwidthLimit: to.BytesPerSecond,
	})
	if err != nil {
		err = sshError{err}
	}
	return host(h, err)
}

// sshError is why the built-in ssh could not connect.
type sshError struct{ error }

func (e sshError) Unwrap() error { return e.error }

func compression(c cli.Compress) wire.Compress {
	switch c {
	case cli.CompressAlways:
		return wire.CompressAlways
	case cli.CompressDefault:
		return wire.CompressDefault
	case cli.CompressBetter:
		return wire.CompressBetter
	case cli.CompressBest:
		return wire.CompressBest
	case cli.CompressNever:
		return wire.CompressNever
	}
	return wire.CompressAuto
}

// host keeps a nil Host from becoming an interface that is not nil.
func host(h remote.Host, err error) (program.Host, error) {
	if err != nil {
		return nil, err
	}
	return h, nil
}

// remoteStatus is rsync's exit status for what is wrong with a host.
func remoteStatus(err error) int {
	var shell *remote.ShellError
	var lookup *exec.Error
	var ssh sshError
	var start *fs.PathError
	switch {
	case errors.Is(err, errToldToEnd):
		return int(program.Signal1)
	case errors.Is(err, remote.ErrRemoteNotFound):
		return int(program.NoCommand)
	case errors.Is(err, remote.ErrTimeout):
		return int(program.Timeout)
	case errors.Is(err, remote.ErrConnectTimeout):
		return int(program.ConnectTimeout)
	case errors.As(err, &shell):
		if errors.As(shell, &lookup) || errors.As(shell, &start) { // it could not be started
			return int(program.IPC)
		}
		return max(int(program.Stream), shell.Status) // what the shell says counts when it is more
	case errors.Is(err, remote.ErrUnreachable), errors.Is(err, remote.ErrAnswered):
		return int(program.ShellFailed) // as when ssh says it
	case errors.Is(err, wire.ErrRefused):
		return int(program.Unsupported)
	case errors.Is(err, wire.ErrSilent):
		return int(program.Timeout)
	case errors.Is(err, wire.ErrVersion), errors.Is(err, wire.ErrNoise):
		return int(program.Protocol)
	case errors.Is(err, wire.ErrLost), errors.Is(err, wire.ErrMute), errors.Is(err, wire.ErrDamaged), errors.Is(err, wire.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return int(program.Stream)
	case errors.As(err, &ssh):
		return int(program.ShellFailed)
	}
	return 0
}
