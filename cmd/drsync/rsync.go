package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/rsyncx/program"
)

func newRsync(o *options) *cobra.Command {
	return &cobra.Command{
		Use:                "rsync [OPTION]... SRC... DEST",
		Short:              "Copy trees by the command line of rsync",
		DisableFlagParsing: true, // the flags are rsync's
		RunE: func(c *cobra.Command, args []string) error {
			return asStatus(rsync(c.Context(), o.env, args))
		},
	}
}

func asStatus(status int) error {
	if status == exitDone {
		return nil
	}
	return statusError(status)
}

// rsync carries out a command line of rsync and returns its exit status.
func rsync(ctx context.Context, e env, args []string) int {
	return program.Run(ctx, program.World{In: e.in, Out: e.out, Err: e.err, Env: os.Getenv, Now: e.now, Version: e.version}, args)
}
