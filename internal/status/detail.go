package status

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/rsyncx"
)

// Detail writes all that is known about one snapshot for people.
func Detail(w io.Writer, r snapshot.Record, now time.Time) error {
	var b strings.Builder
	row := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", label, rsyncx.Printable(fmt.Sprintf(format, args...)))
	}
	state := "complete"
	if !r.Complete {
		state = "INCOMPLETE"
	}
	row("snapshot", "%s, %s, drsync %s", r.ID, state, r.Version)
	row("time", "%s on the active's clock, %s ago", r.Time.UTC().Format(timeFormat), show.Duration(seconds(max(0, age(r.Time, r.Clock, now)))))
	row("published", "%s, epoch %d", r.Published.UTC().Format(timeFormat), r.Epoch)
	row("source", "%s %s (%s)", r.Source.Host, r.Source.Home, r.Source.Transport)
	if r.Clock.Measured {
		way := "ahead"
		if r.Clock.Skew < 0 {
			way = "behind"
		}
		row("clock", "the active's is %s by %.3f s ± %.3f s", way, math.Abs(r.Clock.Skew), r.Clock.Error)
	}
	for _, d := range r.Databases {
		row("database", "%s %s: %s, %s, %s; %s at %s", d.Engine, d.Name, show.Plural(int64(d.Tables), "table", "tables"),
			show.Plural(d.Rows, "row", "rows"), show.Bytes(d.Bytes), d.Server, d.Position)
		if d.Dump != nil {
			row("dump", "kept, %s in %s", show.Bytes(d.Dump.Bytes), show.Plural(int64(d.Dump.Chunks), "file", "files"))
		}
	}
	if r.RestoredFrom != "" {
		row("restored", "from the dump of snapshot %s", r.RestoredFrom)
	}
	for _, s := range r.BlobSets {
		row("blobs", "%s: %s named (%s), %s copied (%s), %s missing", s.Name, show.Count(s.Named), show.Bytes(s.NamedBytes),
			show.Count(s.Copied), show.Bytes(s.CopiedBytes), show.Count(s.Missing))
	}
	for _, t := range r.Trees {
		row("tree", "%s: %s (%s), %s transferred (%s), %s deleted, %s torn, %s skipped", t.Path, show.Plural(t.Files, "entry", "entries"),
			show.Bytes(t.Bytes), show.Count(t.Transferred), show.Bytes(t.TransferredBytes), show.Count(t.Deleted), show.Count(t.Torn), show.Count(t.Skipped))
	}
	var steps []string
	for _, s := range r.Steps {
		steps = append(steps, s.Name+" "+show.Duration(seconds(s.Seconds)))
	}
	row("steps", "%s", strings.Join(steps, ", "))
	for _, text := range r.Warnings {
		row("warning", "%s", text)
	}
	for _, m := range r.Missing {
		row("missing", "%s %s (%s): %s", m.Set, m.Sum, show.Bytes(m.Size), m.Reason)
		for _, p := range m.Paths {
			row("", "  %s", p)
		}
		if m.MorePaths > 0 {
			row("", "  and %s more", show.Count(m.MorePaths))
		}
	}
	if more := missing(r) - int64(len(r.Missing)); more > 0 {
		row("missing", "and %s more", show.Count(more))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
