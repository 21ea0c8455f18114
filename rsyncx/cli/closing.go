package cli

import (
	"fmt"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// Totals is what the last lines of a run are about.
type Totals struct {
	Sent, Received int64 // bytes on the wire, from the standby's side
	Size           int64 // bytes of all files of the source
	Elapsed        time.Duration
}

// Closing returns the last two lines of a run. As in rsync the rate counts whole
// seconds and half a one more.
func (c *Command) Closing(t Totals) []string {
	moved := float64(t.Sent + t.Received)
	rate := moved / (0.5 + float64(t.Elapsed/time.Second))
	speedup := 0.0
	if moved > 0 {
		speedup = float64(t.Size) / moved
	}
	dry := ""
	if c.DryRun {
		dry = " (DRY RUN)"
	}
	return []string{
		fmt.Sprintf("sent %s bytes  received %s bytes  %s bytes/sec", c.Numbers.Count(t.Sent), c.Numbers.Count(t.Received), c.Numbers.Rate(rate)),
		fmt.Sprintf("total size is %s  speedup is %s%s", c.Numbers.Count(t.Size), c.Numbers.ratio(speedup), dry),
	}
}

// Statistics returns the lines of --stats that drsync measures, and its own.
func (c *Command) Statistics(s rsyncx.Stats, t Totals) []string {
	n := c.Numbers
	lines := []string{
		"Number of files: " + n.Count(s.Entries),
		"Number of created files: " + n.Count(s.Created),
		"Number of deleted files: " + n.Count(s.Deleted),
		"Number of regular files transferred: " + n.Count(s.Transferred),
		"Total file size: " + n.Count(s.Bytes) + " bytes",
		"Total transferred file size: " + n.Count(s.TransferredBytes) + " bytes",
		"Total bytes sent: " + n.Count(t.Sent),
		"Total bytes received: " + n.Count(t.Received),
	}
	for _, loss := range []struct {
		what string
		n    int64
	}{
		{"changed while read", s.Torn}, {"vanished", s.Vanished}, {"unreadable", s.Unreadable}, {"skipped", s.Skipped},
	} {
		if loss.n > 0 {
			lines = append(lines, fmt.Sprintf("Number of files %s: %s", loss.what, n.Count(loss.n)))
		}
	}
	return append(lines, s.Notes...)
}
