package status

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/rsyncx"
)

const timeFormat = "2006-01-02 15:04:05 MST"

// seconds is a length of time from a float, within what a Duration can hold.
func seconds(s float64) time.Duration {
	return time.Duration(min(s*float64(time.Second), math.MaxInt64/2))
}

// Text writes s for people. now is for ages of what s gives as times.
func Text(w io.Writer, s Status, now time.Time) error {
	var b strings.Builder
	row := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", label, rsyncx.Printable(fmt.Sprintf(format, args...)))
	}
	ago := func(t time.Time) string { return show.Duration(max(0, now.Sub(t))) + " ago" }

	row("host", "%s", s.Host)
	since := ""
	if !s.Since.IsZero() {
		since = fmt.Sprintf(", since %s", s.Since.Format(timeFormat))
	}
	if s.Role == "" {
		row("role", "not known")
	} else {
		row("role", "%s, epoch %d%s", s.Role, s.Epoch, since)
	}
	if s.Running == nil {
		row("running", "nothing")
	} else {
		row("running", "%s (pid %d) for %s", s.Running.Command, s.Running.PID, show.Duration(max(0, now.Sub(s.Running.Since))))
	}
	row("snapshot", "%s", lastText(s))
	if s.RPO != nil && s.Role != role.Active {
		met := "met"
		switch {
		case s.Failover.ExpectedLoss == nil && len(s.Unreadable) > 0:
			met = "not known"
		case !s.RPO.Met:
			met = "NOT met"
		}
		row("target", "%s: %s", show.Duration(seconds(s.RPO.Target)), met)
	}
	switch {
	case s.Interrupted:
		row("publish", "of %s was INTERRUPTED; the next run or a failover finishes it", s.Publish.ID)
	case s.Publish != nil:
		row("publish", "of %s is under way", s.Publish.ID)
	}
	if !s.NextRun.IsZero() {
		row("next run", "%s", nextText(s.NextRun, now))
	}
	if s.Prune != nil {
		row("prune", "%s; %s (%s) in quarantine", ago(s.Prune.Last),
			show.Plural(s.Prune.QuarantinedFiles, "file", "files"), show.Bytes(s.Prune.QuarantinedBytes))
	}
	if v := s.Verify; v != nil {
		switch {
		case v.Difference != "":
			row("compared", "%s: DIFFERS: %s", ago(v.Last), v.Difference)
		case v.Overdue:
			row("compared", "%s, OVERDUE; then there was no difference", ago(v.Last))
		default:
			row("compared", "%s: no difference (%s)", ago(v.Last), v.Snapshot)
		}
	}
	for _, u := range s.Unreadable {
		row("not known", "%s", u)
	}
	failoverText(row, s.Failover)
	_, err := io.WriteString(w, b.String())
	return err
}

func lastText(s Status) string {
	switch {
	case s.Last == nil && len(s.Unreadable) > 0:
		return "not known"
	case s.Last == nil:
		return "none was ever published"
	}
	text := fmt.Sprintf("%s, %s old, ", s.Last.ID, show.Duration(seconds(s.Last.Age)))
	if s.Last.Complete {
		text += "complete"
	} else {
		text += "INCOMPLETE" + missingText(": %s", s.Last.Missing)
	}
	return text + fmt.Sprintf(" (%d kept)", s.Snapshots)
}

func nextText(next, now time.Time) string {
	if left := next.Sub(now); left > 0 {
		return fmt.Sprintf("in %s (%s)", show.Duration(left), next.Format(timeFormat))
	}
	return "due since " + next.Format(timeFormat)
}

func failoverText(row func(label, format string, args ...any), f Failover) {
	label := "can fail over"
	if f.Can {
		loss := ""
		if f.ExpectedLoss != nil {
			loss = ", losing about " + show.Duration(seconds(*f.ExpectedLoss)) + " of changes"
		}
		row(label, "YES%s", loss)
	} else {
		verdict := "NO"
		if f.Unsure {
			verdict = "NOT SURE"
		}
		for _, r := range f.Reasons {
			row(label, "%s: %s", verdict, r)
			label = ""
		}
	}
	for _, n := range f.Notes {
		row("", "note: %s", n)
	}
}

// Listing is the object that `drsync snapshots --json` prints.
type Listing struct {
	Format    int               `json:"format"`
	Snapshots []snapshot.Record `json:"snapshots"` // in the order given
}

// List makes a Listing; its Snapshots are never null.
func List(all []snapshot.Record) Listing {
	return Listing{Format: 1, Snapshots: append([]snapshot.Record{}, all...)}
}

// Snapshots writes a table of all, one line each, in the order given. A star
// marks the one that is this host's state.
func Snapshots(w io.Writer, all []snapshot.Record, now time.Time) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no snapshots")
		return err
	}
	visible, _ := Visible(all)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tid\tage\ttables\trows\tblobs\tsize\tcopied\tmissing\ttook\tstate\t")
	for _, r := range all {
		mark, state := "", "complete"
		if r.ID == visible.ID {
			mark = "*"
		}
		if !r.Complete {
			state = "INCOMPLETE"
		}
		c := counts(r)
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", mark, rsyncx.Printable(r.ID),
			show.Duration(seconds(max(0, age(r.Time, r.Clock, now)))), show.Count(c.tables), show.Count(c.rows), show.Count(c.blobs),
			show.Bytes(c.bytes), show.Bytes(c.copied), show.Count(missing(r)), show.Duration(seconds(c.took)), state)
	}
	return t.Flush()
}

type sums struct {
	tables, rows, blobs, bytes, copied int64
	took                               float64 // seconds
}

func counts(r snapshot.Record) sums {
	var s sums
	for _, d := range r.Databases {
		s.tables += int64(d.Tables)
		s.rows += d.Rows
		s.copied += d.Bytes
	}
	for _, b := range r.BlobSets {
		s.blobs += b.Named
		s.bytes += b.NamedBytes
		s.copied += b.CopiedBytes
	}
	for _, t := range r.Trees {
		s.bytes += t.Bytes
		s.copied += t.TransferredBytes
	}
	for _, step := range r.Steps {
		s.took += step.Seconds
	}
	return s
}
