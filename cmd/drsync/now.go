package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
	drsync "github.com/drsync/drsync/sync"
)

// output is how a run shows itself.
type output struct {
	progress       bool
	verbose        int
	logFile        string
	quiet          bool // only warnings and errors
	noLog          bool // the command changes nothing, so no log file is written
	changes        bool // the command changes the standby: a log file that cannot be written stops it before it begins
	source         bool // accept another directory as the active's home
	verifyDatabase bool // compare the captured database with the active's
	files          bool // also look at the files that only a connection or a run would need
}

func (f *output) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.progress, "progress", false, "show how far each step is: bars on a terminal, plain lines elsewhere")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "only warnings and errors, for cron")
	c.Flags().CountVarP(&f.verbose, "verbose", "v", "name what changes; twice: also what is left alone, and why")
	c.Flags().StringVar(&f.logFile, "log-file", "", "write rsync's log format to `FILE` (default: files.log_file)")
}

// check refuses flags that contradict each other.
func (f *output) check() error {
	if f.quiet && (f.progress || f.verbose > 0) {
		return usageError{errors.New("--quiet goes neither with --progress nor with --verbose")}
	}
	return nil
}

func newNow(o *options) *cobra.Command {
	var f output
	var dryRun bool
	c := &cobra.Command{
		Use:   "now",
		Short: "Bring the standby to a new snapshot of the active",
		Long: `now makes one run: it captures the active's database, fetches the blobs that it
names and this host lacks, stages what changed in the home, verifies, publishes
all of it in one step, and prunes what no kept snapshot names.

It never changes the active, never deletes a blob while copying, and publishes
nothing unless every blob that the active can serve has arrived. A run that was
interrupted leaves the previous snapshot, and the next run finishes or undoes it.

With --dry-run every decision is made and shown: the database is captured,
unseen, and the capture is thrown away.

Exit status: 0 done; 1 failed, the previous snapshot stands (the error says so
when only --verify-db failed, after the publish); 3 published, but blobs are
missing on the active or files could not be carried; 10 this host is no standby;
11 another drsync is running; 130 interrupted.`,
		Example: "  drsync now --progress\n  drsync now --quiet   # from cron",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			f.noLog, f.changes = dryRun, !dryRun
			return runNow(c.Context(), o, f, dryRun)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&f.source, "new-source", false, "accept that the active's home is another directory than the last time, or lacks a mount, or that the standby's is empty")
	c.Flags().BoolVar(&f.verifyDatabase, "verify-db", false, "compare the captured database with the active's, by sums, before it is published (with replication: after)")
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "decide and show everything, keep nothing")
	o.addJSON(c)
	return c
}

func runNow(ctx context.Context, o *options, f output, dryRun bool) error {
	s, err := openStandby(o, f)
	if err != nil {
		return err
	}
	defer s.Close()
	report, err := s.runner.Run(ctx, dryRun)
	return tellRun(s, f, report, err)
}

// tellRun prints what a run did in the way that was asked for, and says how the
// command ends.
func tellRun(s *standby, f output, report drsync.Report, err error) error {
	s.finishOutput()
	switch {
	case err != nil:
		return reportedError{err, report}
	case s.json:
		err = show.JSON(s.out, report)
	case f.quiet:
		printShortcomings(s.err, report)
	default:
		err = printReport(s.out, report)
	}
	if err == nil && report.Incomplete() {
		return statusError(exitIncomplete)
	}
	return err
}

// printReport says in a few lines what a run did.
func printReport(w io.Writer, r drsync.Report) error {
	s := r.Snapshot
	if s == nil {
		return nil
	}
	verb := "Snapshot"
	if r.DryRun {
		verb = "Would be snapshot"
	}
	fmt.Fprintf(w, "%s %s: the active as of %s", verb, s.ID, s.Time.UTC().Format("2006-01-02 15:04:05 MST"))
	if s.Clock.Measured {
		fmt.Fprintf(w, " (its clock is %s)", describeSkew(s.Clock.Skew, s.Clock.Error))
	}
	fmt.Fprintln(w)
	for _, d := range s.Databases {
		fmt.Fprintf(w, "  database  %s: %s tables, %s rows, position %s\n", d.Name, show.Count(int64(d.Tables)), show.Count(d.Rows), d.Position)
	}
	for _, b := range s.BlobSets {
		fmt.Fprintf(w, "  %-9s %s named (%s), %s copied (%s)\n", b.Name, show.Count(b.Named), show.Bytes(b.NamedBytes), show.Count(b.Copied), show.Bytes(b.CopiedBytes))
	}
	for _, t := range s.Trees {
		fmt.Fprintf(w, "  tree      %s entries, %s files transferred (%s), %s deleted\n", show.Count(t.Files), show.Count(t.Transferred), show.Bytes(t.TransferredBytes), show.Count(t.Deleted))
	}
	if p := r.Prune; p != nil && !r.DryRun {
		fmt.Fprintf(w, "  prune     %s\n", describePrune(*p))
	}
	printShortcomings(w, r)
	return nil
}

// printShortcomings says what is missing from a run that did its work.
func printShortcomings(w io.Writer, r drsync.Report) {
	if s := r.Snapshot; s != nil && !s.Complete {
		text := "INCOMPLETE: " + incomplete(*s)
		if !r.DryRun {
			text += "; `drsync snapshots " + s.ID + "` has the details"
		}
		fmt.Fprintln(w, text)
	}
	if r.PruneError != "" {
		fmt.Fprintf(w, "NOT PRUNED: %s\n", r.PruneError)
	}
}

// incomplete says why a record does not claim to be complete.
func incomplete(s snapshot.Record) string {
	var missing, torn, skipped int64
	for _, b := range s.BlobSets {
		missing += b.Missing
	}
	for _, t := range s.Trees {
		torn += t.Torn
		skipped += t.Skipped
	}
	var parts []string
	if missing > 0 {
		parts = append(parts, show.Plural(missing, "blob is", "blobs are")+" missing on the active")
	}
	if torn > 0 {
		parts = append(parts, show.Plural(torn, "file changed each time it was read", "files changed each time they were read"))
	}
	if skipped > 0 {
		parts = append(parts, show.Plural(skipped, "entry", "entries")+" of the home could not be carried")
	}
	return strings.Join(parts, "; ")
}

func describeSkew(skew, bound float64) string {
	d := time.Duration(skew * float64(time.Second)).Round(time.Millisecond)
	b := time.Duration(bound * float64(time.Second)).Round(time.Millisecond)
	if d.Abs() <= b {
		return fmt.Sprintf("equal to ours within %s", max(b, time.Millisecond))
	}
	if d > 0 {
		return fmt.Sprintf("%s ahead of ours", d)
	}
	return fmt.Sprintf("%s behind ours", -d)
}
