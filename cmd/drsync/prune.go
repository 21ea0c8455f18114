package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/prune"
)

func newPrune(o *options) *cobra.Command {
	var dryRun bool
	var verbose int
	c := &cobra.Command{
		Use:   "prune",
		Short: "Take away the blobs that no kept snapshot names",
		Long: `prune drops the snapshots that snapshots.keep_* does not keep, then moves blobs
that no kept snapshot names into quarantine, brings back what one names, and
deletes what lay there longer than prune.quarantine. Every run of now ends with
it. It refuses when a list of names is empty, damaged or much shorter than the
one before, and when more than prune.max_fraction of the blobs would go.

With --dry-run it changes nothing; -v then names each blob and why it would go,
-vv also each that stays.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openStandby(o, output{verbose: verbose, noLog: dryRun, changes: !dryRun})
			if err != nil {
				return err
			}
			defer s.Close()
			var explain func(prune.Item)
			if verbose > 0 && dryRun {
				explain = func(it prune.Item) {
					if it.Action != prune.Keep || verbose > 1 {
						fmt.Fprintf(o.err, "%-10s %s: %s\n", it.Action, it.Ref.Sum, it.Reason)
					}
				}
			}
			report, err := s.runner.PruneOnly(c.Context(), dryRun, explain)
			s.finishOutput()
			if err != nil {
				return reportedError{err, report}
			}
			if o.json {
				return show.JSON(o.out, report)
			}
			if len(report.Removed) > 0 {
				fmt.Fprintf(o.out, "snapshots dropped: %s\n", strings.Join(report.Removed, " "))
			}
			switch {
			case report.Plan != nil:
				_, err = fmt.Fprintf(o.out, "would %s\n", describePlan(*report.Plan))
			case report.Done != nil:
				_, err = fmt.Fprintf(o.out, "%s\n", describePrune(*report.Done))
			}
			return err
		},
	}
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "decide and show, change nothing")
	c.Flags().CountVarP(&verbose, "verbose", "v", "name each blob")
	o.addJSON(c)
	return c
}

func count(c prune.Count) string {
	return fmt.Sprintf("%s (%s)", show.Count(c.Blobs), show.Bytes(c.Bytes))
}

func describePlan(p prune.Plan) string {
	return fmt.Sprintf("quarantine %s, restore %s, delete %s of %s blobs", count(p.Quarantine), count(p.Restore),
		count(prune.Count{Blobs: p.Delete.Blobs + p.Purge.Blobs, Bytes: p.Delete.Bytes + p.Purge.Bytes}), show.Count(p.Stored.Blobs))
}

func describePrune(r prune.Report) string {
	text := fmt.Sprintf("%s quarantined, %s restored, %s deleted", count(r.Quarantined), count(r.Restored),
		count(prune.Count{Blobs: r.Deleted.Blobs + r.Purged.Blobs, Bytes: r.Deleted.Bytes + r.Purged.Bytes}))
	if r.Skipped.Blobs > 0 {
		text += fmt.Sprintf(", %s left alone", count(r.Skipped))
	}
	return text
}
