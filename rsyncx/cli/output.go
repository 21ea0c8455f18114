package cli

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
)

// deleting is the itemized form of a deletion.
const deleting = "*deleting  "

// Texts of Skip events that say which filter rule a name met; the pattern
// follows. They are written in rsync's words, and only with -vv.
const (
	Hidden    = "hidden by the rule "
	Protected = "protected by the rule "
)

// nonRegular is the text of a Skip event that rsync writes at any verbosity.
const nonRegular = "skipping non-regular file"

// Stamp is what stands before every line of a log file.
func Stamp(t time.Time, pid int) string {
	return t.Format("2006/01/02 15:04:05") + fmt.Sprintf(" [%d] ", pid)
}

// LogLine returns the line of a log file for e, without Stamp and line end, as
// rsync with -vv writes it; "" if e has none. Names are made printable.
func LogLine(e event.Event) string {
	c := Command{Verbose: 2}
	return c.LogLine(e)
}

// LogLine returns the line of a log file for e at the command's verbosity.
func (c *Command) LogLine(e event.Event) string {
	switch e.Kind {
	case event.Change:
		line := e.Itemize + " " + name(e)
		if e.Text != "" {
			line += " (" + clean(e.Text) + ")"
		}
		return line
	case event.StepStart:
		return steps(e, "starts")
	case event.StepDone:
		if e.Err != nil {
			return steps(e, "error: "+e.Err.Error())
		}
		return steps(e, fmt.Sprintf("done in %s", e.Elapsed.Round(time.Millisecond)))
	}
	return c.message(e)
}

// Line returns the line of e on standard output; "" if e has none there. Steps
// and progress have none.
func (c *Command) Line(e event.Event) string {
	if e.Kind != event.Change {
		if e.Kind == event.Info && c.Verbose == 0 {
			return ""
		}
		return c.message(e)
	}
	// Without -i, a file whose attributes alone change is worth -vv only.
	quiet := strings.HasPrefix(e.Itemize, ".") && !strings.HasPrefix(e.Itemize, ".d") && c.Verbose < 2
	switch {
	case c.Itemize:
		return e.Itemize + " " + name(e)
	case c.Verbose == 0 || quiet:
		return ""
	case e.Itemize == deleting:
		return "deleting " + name(e)
	}
	return name(e)
}

func steps(e event.Event, what string) string {
	line := e.Step + ": " + what
	if e.Text != "" {
		line += ": " + e.Text
	}
	return clean(line)
}

// message returns the line of what is no change of an entry.
func (c *Command) message(e event.Event) string {
	text := clean(e.Text)
	switch e.Kind {
	case event.Skip:
		return c.skip(e, text)
	case event.Warning:
		if e.Name != "" {
			return "warning: " + rsyncx.Printable(e.Name) + ": " + text
		}
		return "warning: " + text
	case event.Info:
		return text
	}
	return ""
}

func (c *Command) skip(e event.Event, text string) string {
	if text == nonRegular {
		return fmt.Sprintf("%s \"%s\"", text, rsyncx.Printable(e.Name))
	}
	if c.Verbose < 2 {
		return ""
	}
	if rule, ok := strings.CutPrefix(text, Hidden); ok {
		return met("sender] hiding", e.Name, rule)
	}
	if rule, ok := strings.CutPrefix(text, Protected); ok {
		return met("generator] protecting", e.Name, rule)
	}
	return rsyncx.Printable(e.Name) + ": " + text
}

// met says which rule decided. A name that ends in '/' is a directory.
func met(what, name, rule string) string {
	kind := "file"
	if dir, ok := strings.CutSuffix(name, "/"); ok {
		kind, name = "directory", dir
	}
	return fmt.Sprintf("[%s %s %s because of pattern %s", what, kind, rsyncx.Printable(name), rule)
}

// name returns the name of a changed entry, and what it points to.
func name(e event.Event) string {
	s := rsyncx.Printable(e.Name)
	switch {
	case e.Target == "":
		return s
	case strings.HasPrefix(e.Itemize, "h"):
		return s + " => " + rsyncx.Printable(e.Target)
	}
	return s + " -> " + rsyncx.Printable(e.Target)
}

// clean makes a text one printable line. Names in it were made so by whoever
// wrote it, which must not happen twice.
func clean(text string) string {
	for _, r := range text {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return rsyncx.Printable(text)
		}
	}
	return text
}
