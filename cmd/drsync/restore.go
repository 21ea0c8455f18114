package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
)

func newRestore(o *options) *cobra.Command {
	var f output
	var into string
	var yes bool
	c := &cobra.Command{
		Use:   "restore SNAPSHOT",
		Short: "Bring the standby's database back to a kept snapshot",
		Long: `restore loads the dump that was kept with a snapshot (snapshots.dumps: true)
after it has compared every byte of it with its manifest, and publishes it as a
new snapshot of the same point. It needs no active. The blobs that it names are
here still, because no kept snapshot's are pruned; the rest of the home stays as
the last run left it, since no older one is kept.

The scheduler's next run brings the standby to the active's state again: stop it
first, or fail over, when the restored state is what you want to keep.

With --into the dump goes into a new database of that name (SQLite: into a new
file), and everything else stays as it is.

Exit status: 0 done; 1 refused or failed, nothing has changed; 3 done, but blobs
that the snapshot names are not here; 10 this host is no standby; 11 another
drsync is running.`,
		Example: "  drsync snapshots\n  drsync restore 20261121T201500Z --into artdb_yesterday\n  drsync restore 20261121T201500Z",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return runRestore(c.Context(), o, f, args[0], into, yes)
		},
	}
	c.Flags().StringVar(&into, "into", "", "restore into a new database called `NAME`, and leave the standby as it is")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&f.progress, "progress", false, "show how far each step is")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "only warnings and errors")
	o.addJSON(c)
	return c
}

func runRestore(ctx context.Context, o *options, f output, id, into string, yes bool) error {
	f.noLog = true
	s, err := openStandby(o, f)
	if err != nil {
		return err
	}
	defer s.Close()
	if into != "" {
		counts, err := s.runner.RestoreAs(ctx, id, into)
		s.finishOutput()
		if err != nil {
			return err
		}
		if o.json {
			return show.JSON(o.out, map[string]any{"snapshot": id, "database": into, "tables": counts.Tables, "rows": counts.Rows})
		}
		_, err = fmt.Fprintf(o.out, "Snapshot %s restored into %s: %s tables, %s rows\n", id, into, show.Count(int64(counts.Tables)), show.Count(counts.Rows))
		return err
	}
	if !yes {
		if err := confirmRestore(o, s.config.Standby.State, id); err != nil {
			return err
		}
	}
	report, err := s.runner.Restore(ctx, id)
	return tellRun(s, f, report, err)
}

// confirmRestore says how far back the standby is to go, and asks.
func confirmRestore(o *options, stateDir, id string) error {
	all, err := snapshot.Read(stateDir)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.ID == id {
			return confirm(o, "restore", fmt.Sprintf("The standby's database goes from %s back to %s. Type %s to go on: ",
				all[0].Time.UTC().Format("2006-01-02 15:04:05 MST"), r.Time.UTC().Format("2006-01-02 15:04:05 MST"), id), id)
		}
	}
	return hint.New(fmt.Sprintf("there is no snapshot %q", id), "drsync snapshots lists them")
}
