package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/rsyncx"
	drsync "github.com/drsync/drsync/sync"
)

func newVerify(o *options) *cobra.Command {
	var deep, database bool
	var f output
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check that every blob the standby's database names is there, or the database itself",
		Long: `verify reads the standby's visible database and asks the disk for each blob that
it names: present, with its length; with --deep also with its hash. It needs no
active, takes no lock and changes nothing.

With --db it compares the database itself with the active's, table by table, by
sums that both servers make of ranges of rows, each side inside one snapshot, and
names the tables and the keys between which rows differ. Of SQLite what the active
changed is fetched once more and compared row by row, which takes as much room as
the database while it lasts. Definitions are compared
too. It changes nothing, but no run can begin meanwhile. What the active changed
after the time T of the standby's snapshot differs rightly: compare when nobody
writes, or right after a run; drsync now --verify-db compares inside the capture's
own snapshot, where nothing may differ.

Exit status: 0 everything is as it should be; 3 something is not, or could not be
compared; with --db also 11, another drsync is running.`,
		Example: "  drsync verify --deep\n  drsync now && drsync verify --db",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case database && deep:
				return usageError{errors.New("--deep is about blobs and --db about the database: give one of them")}
			case f.progress && !database:
				return usageError{errors.New("--progress shows how far --db is, which is not given")}
			}
			f.noLog = true
			s, err := openStandby(o, f)
			if err != nil {
				return err
			}
			defer s.Close()
			if database {
				return verifyDatabase(c.Context(), o, s)
			}
			report, err := s.runner.Verify(c.Context(), deep)
			if err != nil {
				return err
			}
			return printVerify(o, report)
		},
	}
	c.Flags().BoolVar(&deep, "deep", false, "read every blob and compute its hash")
	c.Flags().BoolVar(&database, "db", false, "compare the database with the active's instead")
	c.Flags().BoolVar(&f.progress, "progress", false, "with --db, show how far it is")
	o.addJSON(c)
	return c
}

func printVerify(o *options, r drsync.VerifyReport) error {
	if o.json {
		if err := show.JSON(o.out, r); err != nil {
			return err
		}
	} else {
		how := "length"
		if r.Deep {
			how = "length and hash"
		}
		fmt.Fprintf(o.out, "%s blobs named (%s), %s with another %s or absent\n", show.Count(r.Named), show.Bytes(r.Bytes), show.Count(r.Broken), how)
		for _, p := range r.Problems {
			fmt.Fprintf(o.out, "  %s: %s\n", p.Set, p.Problem)
		}
		if more := r.Broken - int64(len(r.Problems)); more > 0 {
			fmt.Fprintf(o.out, "  and %s more\n", show.Count(more))
		}
	}
	if r.Broken > 0 {
		return statusError(exitIncomplete)
	}
	return nil
}

// databaseReport is what verify --db prints with --json.
type databaseReport struct {
	// SnapshotTime is T of the standby's snapshot: what the active changed after it differs rightly.
	SnapshotTime   *time.Time `json:"snapshot_time,omitempty"`
	ActiveTime     time.Time  `json:"active_time"` // when the active was looked at, by its own clock
	ActivePosition string     `json:"active_position,omitempty"`
	dbrepl.Comparison
}

func verifyDatabase(ctx context.Context, o *options, s *standby) error {
	all, err := snapshot.Read(s.config.Standby.State)
	if err != nil {
		return err
	}
	c, err := s.runner.VerifyDatabase(ctx)
	s.finishOutput()
	if err != nil {
		return err
	}
	r := databaseReport{ActiveTime: c.Active.Time.UTC(), ActivePosition: c.Active.Position, Comparison: c}
	if len(all) > 0 {
		t := all[0].Time.UTC()
		r.SnapshotTime = &t
	}
	if o.json {
		err = show.JSON(o.out, r)
	} else {
		err = printDatabase(o.out, r)
	}
	if err == nil && (c.Different > 0 || len(c.Uncompared) > 0) {
		return statusError(exitIncomplete)
	}
	return err
}

// printDatabase prints names and keys, which are the active's to choose, so that
// they cannot write anything else on a terminal.
func printDatabase(w io.Writer, r databaseReport) error {
	at := func(t time.Time) string { return t.Format("2006-01-02 15:04:05.000 MST") }
	fmt.Fprintf(w, "%s and %s compared in %s, with the active as of %s\n", show.Plural(int64(r.Tables), "table", "tables"),
		show.Plural(r.Rows, "row", "rows"), show.Plural(r.Chunks, "range", "ranges"), at(r.ActiveTime))
	for _, what := range r.Uncompared {
		fmt.Fprintf(w, "not compared: %s\n", rsyncx.Printable(what))
	}
	if r.Different == 0 {
		found := "no difference"
		if r.Uncompared != nil {
			found = "no difference in the rest"
		}
		_, err := fmt.Fprintln(w, found)
		return err
	}
	fmt.Fprintf(w, "%s\n", show.Plural(r.Different, "difference", "differences"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tFROM\tTO BEFORE\tACTIVE ROWS\tSTANDBY ROWS\t")
	var others []dbrepl.Difference
	for _, d := range r.Differences {
		if d.Text != "" {
			others = append(others, d)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t\n", rsyncx.Printable(d.Table), key(d.From, "the first"), key(d.To, "the end"), show.Count(d.Active), show.Count(d.Standby))
	}
	if len(others) < len(r.Differences) {
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, d := range others {
		fmt.Fprintln(w, rsyncx.Printable(d.String()))
	}
	if more := r.Different - int64(len(r.Differences)); more > 0 {
		fmt.Fprintf(w, "and %s more\n", show.Count(more))
	}
	if r.SnapshotTime != nil {
		fmt.Fprintf(w, "the standby's snapshot has T = %s: what the active changed after T differs rightly\n", at(*r.SnapshotTime))
	}
	return nil
}

func key(k, open string) string {
	if k == "" {
		return open
	}
	return strings.ReplaceAll(rsyncx.Printable(k), "\t", " ")
}
