package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
	drsync "github.com/drsync/drsync/sync"
)

func newRun(o *options) *cobra.Command {
	var f output
	c := &cobra.Command{
		Use:   "run",
		Short: "Bring the standby to a new snapshot at the times of the schedule",
		Long: `run stays in the foreground, for a service manager, and does what now does at
the times of the configuration's schedule. One missed run is made up for at the
start; a run that fails is reported and the next one comes at its time. The
configuration is read again for each run. A run that comes after a time of
verify.database compares the database with the active's, as now --verify-db does.

It ends with 130 when it is told to stop, after the run that is at work was
interrupted, and with 10 when this host is no standby any more.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			f.changes = true
			return runSchedule(c.Context(), o, f)
		},
	}
	f.add(c)
	return c
}

func runSchedule(ctx context.Context, o *options, f output) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	if cfg.Schedule.IsZero() {
		return hint.With(cfg.Problem("schedule", errors.New("is missing, and run goes by it")), `add one, such as schedule: "*/15 * * * *"`)
	}
	state, err := role.Load(cfg.Standby.State)
	if err == nil {
		err = role.RequireStandby(state)
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Standby.State, 0o755); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	terminal := show.NewTerminal(show.TerminalOptions{Out: o.err, Quiet: f.quiet})
	defer terminal.Close()
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	s := drsync.Scheduler{
		Schedule: cfg.Schedule.Cron, StateDir: cfg.Standby.State, JitterKey: host, Event: terminal.Sink, Now: o.now,
		Job: func(ctx context.Context) error {
			f.verifyDatabase = verifyDue(o)
			err := runNow(ctx, o, f, false)
			var status statusError
			switch {
			case errors.As(err, &status): // the run said itself that it is incomplete
				return nil
			case errors.Is(err, role.ErrWrongRole):
				stop(err)
			}
			return err
		},
	}
	if f.quiet {
		return s.Run(ctx)
	}
	fmt.Fprintf(o.err, "next run at %s\n", s.Next(o.now()).Format(time.RFC3339))
	return s.Run(ctx)
}

// verifyDue says whether the next run compares the database. What cannot be read
// is the run's to report.
func verifyDue(o *options) bool {
	cfg, err := o.load()
	if err != nil || cfg.Verify.Database.IsZero() {
		return false
	}
	last, err := drsync.ReadLastVerify(cfg.Standby.State)
	return err != nil || last.Due(cfg.Verify.Database.Cron.Next, o.now())
}
