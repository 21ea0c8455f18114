package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/internal/status"
	drsync "github.com/drsync/drsync/sync"
)

func newStatus(o *options) *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how this host stands, and whether it could take over now",
		Long: `status reads this host's state directory and connects to nothing: role, last
snapshot with its age, what is missing, whether the objective (rpo) is met,
whether a failover is possible and how much it would lose.

With --check it prints one line and exits as monitoring plugins do: 0 OK,
1 WARNING, 2 CRITICAL, 3 UNKNOWN.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := o.load()
			if err != nil {
				if check {
					fmt.Fprintln(o.out, "UNKNOWN - the configuration cannot be used")
					show.Error(o.err, err)
					return statusError(3) // as monitoring plugins say that they do not know
				}
				return err
			}
			s := status.Build(readStatus(o, cfg))
			switch {
			case check:
				code, line := status.Check(s)
				fmt.Fprintln(o.out, line)
				if code != 0 {
					return statusError(code)
				}
				return nil
			case o.json:
				return show.JSON(o.out, s)
			}
			return status.Text(o.out, s, o.now())
		},
	}
	c.Flags().BoolVar(&check, "check", false, "one line and an exit status for monitoring")
	o.addJSON(c)
	return c
}

// readStatus gathers what status shows. What cannot be read is listed, so that
// it is never taken for a good sign.
func readStatus(o *options, cfg *config.Config) status.Input {
	dir := cfg.Standby.State
	in := status.Input{Now: o.now(), RPO: cfg.RPO, Version: o.version}
	failed := func(err error) {
		if err != nil {
			in.Unreadable = append(in.Unreadable, err.Error())
		}
	}
	var err error
	in.Host, err = os.Hostname()
	failed(err)
	in.Role, err = role.Load(dir)
	failed(err)
	holder, held, err := role.Held(dir)
	failed(err)
	if held {
		in.Holder = &holder
	}
	in.Snapshots, err = snapshot.Read(dir)
	failed(err)
	pending, err := drsync.PublishPending(dir)
	failed(err)
	if pending != nil {
		in.Publish = &status.Publish{ID: pending.ID, Time: pending.Time, Failure: pending.Failure, Failed: pending.Failed}
	}
	last, err := drsync.ReadLastPrune(dir)
	failed(err)
	if last != nil {
		in.Prune = &status.Prune{Last: last.Time, QuarantinedFiles: last.Quarantine.Blobs, QuarantinedBytes: last.Quarantine.Bytes}
	}
	verified, err := drsync.ReadLastVerify(dir)
	failed(err)
	if verified != nil {
		in.Verify = &status.Verify{Last: verified.Time, Snapshot: verified.Snapshot, Difference: verified.Difference, Equal: verified.Equal}
	}
	if next := cfg.Verify.Database; !next.IsZero() && verified != nil && !verified.Equal.IsZero() {
		// One time may have been missed because a run had to wait for it.
		in.VerifyBy = next.Cron.Next(next.Cron.Next(verified.Equal))
	}
	in.NextRun = nextRun(cfg, in.Now)
	return in
}

func nextRun(cfg *config.Config, now time.Time) time.Time {
	if cfg.Schedule.IsZero() {
		return time.Time{}
	}
	return cfg.Schedule.Cron.Next(now)
}
