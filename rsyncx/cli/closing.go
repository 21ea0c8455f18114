package cli

import (
	"fmt"
	"strings"
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

// LogClosing returns the last lines of a log file.
func (c *Command) LogClosing(t Totals) []string {
	if c.Info("STATS") > 0 {
		return c.Closing(t)
	}
	return []string{fmt.Sprintf("sent %s bytes  received %s bytes  total size %s", c.Numbers.Count(t.Sent), c.Numbers.Count(t.Received), c.Numbers.Count(t.Size))}
}

// Statistics returns the lines of --stats, and drsync's own.
func (c *Command) Statistics(s rsyncx.Stats, t Totals) []string {
	n, k := c.Numbers, s.Counts
	literal, matched := s.TransferredBytes-s.Reused, s.Reused
	if c.DryRun { // nothing was
		literal, matched = 0, 0
	}
	lines := []string{
		"Number of files: " + c.kinds(s.Entries, k.Files, k.Dirs, k.Links, k.Devices, k.Specials),
		"Number of created files: " + c.kinds(s.Created, k.NewFiles, k.NewDirs, k.NewLinks, k.NewDevices, k.NewSpecials),
		"Number of deleted files: " + c.kinds(s.Deleted, k.DeletedFiles, k.DeletedDirs, k.DeletedLinks, k.DeletedDevices, k.DeletedSpecials),
		"Number of regular files transferred: " + n.Count(s.Transferred),
		"Total file size: " + n.Count(s.Bytes) + " bytes",
		"Total transferred file size: " + n.Count(s.TransferredBytes) + " bytes",
		"Literal data: " + n.Count(literal) + " bytes",
		"Matched data: " + n.Count(matched) + " bytes",
		"Total bytes sent: " + n.Count(t.Sent),
		"Total bytes received: " + n.Count(t.Received),
	}
	return append(lines, c.losses(s)...)
}

// losses are the lines that rsync has none of.
func (c *Command) losses(s rsyncx.Stats) (lines []string) {
	for _, loss := range []struct {
		what string
		n    int64
	}{
		{"changed while read", s.Torn}, {"vanished", s.Vanished}, {"unreadable", s.Unreadable}, {"skipped", s.Skipped}, {"linked", s.Linked},
	} {
		if loss.n > 0 {
			lines = append(lines, fmt.Sprintf("Number of files %s: %s", loss.what, c.Numbers.Count(loss.n)))
		}
	}
	return append(lines, s.Notes...)
}

// kinds writes a number of entries, and how many there are of each type.
func (c *Command) kinds(all int64, each ...int64) string {
	var parts []string
	sum := int64(0)
	for i, name := range []string{"reg", "dir", "link", "dev", "special"} {
		if each[i] > 0 {
			parts = append(parts, name+": "+c.Numbers.Count(each[i]))
			sum += each[i]
		}
	}
	if sum == 0 {
		return c.Numbers.Count(all)
	}
	return c.Numbers.Count(sum) + " (" + strings.Join(parts, ", ") + ")"
}
