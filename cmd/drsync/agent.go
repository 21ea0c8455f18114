package main

import (
	"context"
	"errors"
	"io"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/dbrepl/sqlite"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx/wire"
)

func newAgent(o *options) *cobra.Command {
	var roots []string
	c := &cobra.Command{
		Use:   "agent --root DIR...",
		Short: "Answer a standby over standard input and output (started by ssh)",
		Long: `agent runs on the active host, started by the standby through ssh. It lists and
reads what lies below its roots and changes nothing. Force it in the active's
authorized_keys, so that the standby's key can do nothing else:

  restrict,command="drsync agent --root /var/opt/jfrog/artifactory" ssh-ed25519 ...`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(roots) == 0 {
				return usageError{hint.New("agent has no --root", "name each directory that a standby may read: --root DIR")}
			}
			return quietly(serveAgent(c.Context(), o.version, roots, o.in, o.out))
		},
	}
	c.Flags().StringArrayVar(&roots, "root", nil, "a `DIR` that may be read; repeatable")
	return c
}

// quietly keeps what only says that the standby's run was given up from the agent's
// standard error: it is the standby's own, where a line tells of that already.
func quietly(err error) error {
	for _, gone := range []error{wire.ErrClientGone, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, gone) {
			return statusError(exitFailed)
		}
	}
	if errors.Is(err, errInterrupted) { // at a terminal both are
		return statusError(exitInterrupted)
	}
	return err
}

// serveAgent answers one standby until in ends.
func serveAgent(ctx context.Context, version string, roots []string, in io.Reader, out io.Writer) error {
	return wire.Serve(ctx, in, out, wire.Server{
		Roots:   roots,
		Version: version,
		Streams: map[string]wire.StreamFunc{sqlite.StreamName: sqlite.NewSnapshotHandler(roots)},
	})
}
