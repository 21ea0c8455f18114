package cli

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
)

const timeFormat = "2006/01/02 15:04:05"

// has reports whether format has the escape letter.
func has(format string, letter byte) bool {
	found := false
	expand(format, func(e escape) (string, bool) {
		found = found || e.letter == letter
		return "", true
	})
	return found
}

// escape is one %-sequence of a format: %'-20n for instance.
type escape struct {
	letter byte
	left   bool // set to the left of the width
	width  int
	human  int // how many apostrophes: the steps of -h
}

// maxWidth bounds what a format can ask for.
const maxWidth = 4096

// expand replaces the escapes of format by what value knows of them; the others stay.
func expand(format string, value func(escape) (string, bool)) string {
	var b strings.Builder
	for i := 0; i < len(format); {
		if format[i] != '%' {
			b.WriteByte(format[i])
			i++
			continue
		}
		e, n := parseEscape(format[i:])
		text, ok := "", false
		if n > 0 {
			text, ok = value(e)
		}
		if !ok {
			b.WriteByte('%')
			i++
			continue
		}
		b.WriteString(e.pad(text))
		i += n
	}
	return b.String()
}

// pad fills a text up to the width.
func (e escape) pad(text string) string {
	fill := strings.Repeat(" ", max(e.width-len(text), 0))
	if e.left {
		return text + fill
	}
	return fill + text
}

// parseEscape reads the escape at the start of s and returns its length, 0 if it is none.
func parseEscape(s string) (e escape, n int) {
	i := 1
	quotes := func() {
		for ; i < len(s) && s[i] == '\''; i++ {
			e.human++
		}
	}
	quotes()
	if i < len(s) && s[i] == '-' {
		e.left = true
		i++
	}
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		e.width = min(e.width*10+int(s[i]-'0'), maxWidth)
	}
	quotes()
	if i == len(s) {
		return e, 0
	}
	e.letter = s[i]
	return e, i + 1
}

// change writes one change as format says.
func (c *Command) change(format string, e event.Event) string {
	return expand(format, func(x escape) (string, bool) {
		number := func(n int64) (string, bool) {
			return (Plain + Numbers(min(x.human, 3))).Count(n), true
		}
		switch x.letter {
		case '%':
			return "%", true
		case 'i':
			return e.Itemize, true
		case 'n':
			return c.name(e.Name), true
		case 'f':
			return c.name(c.whole(e)), true
		case 'L':
			return c.target(e, x), true
		case 'o':
			return c.operation(e), true
		case 'l':
			return number(e.Entry.Size)
		case 'b':
			return number(moved(e))
		case 'M':
			mtime := e.Entry.Mtime
			if mtime.IsZero() { // as of what is deleted
				mtime = time.Unix(0, 0)
			}
			return strings.Replace(mtime.Local().Format(timeFormat), " ", "-", 1), true
		case 'B':
			return Permissions(e.Entry.Mode)[1:], true
		case 'U':
			if !c.Options.Owner { // as rsync, which does not send it then
				return "0", true
			}
			return fmt.Sprint(e.Entry.UID), true
		case 'G':
			if !c.Options.Group {
				return "DEFAULT", true
			}
			return fmt.Sprint(e.Entry.GID), true
		case 'p':
			return fmt.Sprint(os.Getpid()), true
		case 't':
			return e.Time.Local().Format(timeFormat), true
		case 'm':
			return "", true
		case 'C':
			return c.sum(e), true
		}
		return "", false
	})
}

// ShowsSums reports whether a line about a change has the sum of the content.
func (c *Command) ShowsSums() bool {
	return has(c.Format, 'C') || c.LogFile != "" && has(c.LogFormat, 'C')
}

// SumOf says which sum of its content a line about a change shows; false is none.
// As in rsync, all files have one with -c, and otherwise those that were transferred.
func (c *Command) SumOf(e *event.Event) (rsyncx.SumKind, bool) {
	const typeBits, regular = 0o170000, 0o100000
	kind, none := c.shownSum()
	told := !none && (e.Kind == event.Change || e.Kind == event.Skip && e.Itemize != "") && e.Itemize != deleting && e.Entry.Mode&typeBits == regular
	return kind, told && (c.Options.Checksum || strings.HasPrefix(e.Itemize, ">") && !c.DryRun)
}

func (c *Command) shownSum() (kind rsyncx.SumKind, none bool) {
	if c.Options.Checksum {
		return c.Options.ChecksumKind, c.noCompareSum
	}
	return c.transferSum, c.noTransferSum
}

// sum is the escape %C. Where there is none, rsync leaves as much room.
func (c *Command) sum(e event.Event) string {
	kind, none := c.shownSum()
	switch {
	case none:
		return "  "
	case e.Entry.Sum != "":
		return hex.EncodeToString([]byte(e.Entry.Sum))
	case c.DryRun && !c.Options.Checksum && strings.HasPrefix(e.Itemize, ">"):
		return strings.Repeat("00", kind.Len())
	}
	return strings.Repeat("  ", kind.Len())
}

// whole is a name with where it comes from.
func (c *Command) whole(e event.Event) string {
	name := strings.TrimSuffix(e.Name, "/")
	if e.Itemize != deleting {
		name = c.From + name
	}
	return strings.TrimPrefix(name, "/")
}

// moved is how many bytes of content a change fetched.
func moved(e event.Event) int64 {
	if strings.HasPrefix(e.Itemize, ">") {
		return e.Bytes - e.Entry.Reused
	}
	return 0
}

func (c *Command) operation(e event.Event) string {
	switch {
	case e.Itemize == deleting:
		return "del."
	case c.Remote:
		return "recv"
	}
	return "send"
}

// target is what a link points to, as it stands behind its name. The width is that of
// the name alone, and where there is none the arrow's place stays empty.
func (c *Command) target(e event.Event, x escape) string {
	arrow := " -> "
	switch {
	case e.Target == "" && x.width == 0:
		return ""
	case e.Target == "":
		arrow = "    "
	case strings.HasPrefix(e.Itemize, "h") && (e.Kind == event.Change || strings.HasPrefix(e.Itemize, "hf")): // else it is a symbolic link that is the same
		arrow = " => "
	}
	return arrow + x.pad(c.name(e.Target))
}

// Permissions writes a mode as ls does.
func Permissions(mode uint32) string {
	const types = "?pc?d?b?-?l?s???"
	b := []byte(types[mode>>12&15:][:1] + "rwxrwxrwx")
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			b[1+i] = '-'
		}
	}
	for _, s := range []struct {
		bit, x        uint32
		at            int
		with, without byte
	}{{0o4000, 0o100, 3, 's', 'S'}, {0o2000, 0o010, 6, 's', 'S'}, {0o1000, 0o001, 9, 't', 'T'}} {
		if mode&s.bit != 0 {
			b[s.at] = s.without
			if mode&s.x != 0 {
				b[s.at] = s.with
			}
		}
	}
	return string(b)
}

// Listed is the line of one entry in a listing.
func (c *Command) Listed(e *rsyncx.Entry, path string) string {
	name := path
	if name == "" {
		name = "."
	}
	size := e.Size
	line := fmt.Sprintf("%s %14s %s %s", Permissions(e.Mode), c.Numbers.Count(size),
		time.Unix(e.Mtime.Sec, 0).Local().Format(timeFormat), c.name(name))
	if e.Target != "" {
		line += " -> " + c.name(e.Target)
	}
	return line
}

// ProgressLine is the line of a file that has arrived, which starts with a carriage return and has no line end.
func (c *Command) ProgressLine(p Progressed) string {
	percent := 100
	if p.Bytes != p.Size && p.Size > 0 {
		percent = int(100 * float64(p.Bytes) / float64(p.Size))
	}
	rate, unit := 0.0, "kB/s"
	if s := p.Elapsed.Seconds(); s > 0 {
		rate = float64(p.Bytes) / 1024 / s
	}
	switch {
	case rate > 1024*1024:
		rate, unit = rate/1024/1024, "GB/s"
	case rate > 1024:
		rate, unit = rate/1024, "MB/s"
	}
	left := int64(p.Left.Seconds())
	line := fmt.Sprintf("\r%15s %3d%% %7.2f%s %4d:%02d:%02d", c.Numbers.Count(p.Bytes), percent, rate, unit, left/3600, left/60%60, left%60)
	if p.Files > 0 {
		line += fmt.Sprintf(" (xfr#%d, to-chk=%d/%d)", p.Files, p.ToCheck, p.Total)
	}
	return line
}

// Progressed is how far a file, or the whole transfer, is.
type Progressed struct {
	Bytes, Size    int64
	Elapsed, Left  time.Duration
	Files          int64 // how many were transferred, this one among them; 0 while one is under way
	ToCheck, Total int64
}
