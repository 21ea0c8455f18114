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
	Risked    = "may be deleted by the rule "
)

// unsafe is the text of a Skip event of a link that leads out of the tree.
const unsafe = "ignoring unsafe symlink"

// backedUp begins the text of an Info event about a backup.
const backedUp = "backed up "

// UpToDate is the text of a Skip event of a name that is as it should be.
const UpToDate = "is uptodate"

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
		if c.LogFormat != "" {
			return c.change(c.LogFormat, e)
		}
		line := c.change("%i %n%L", e)
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
	case event.Skip:
		if e.Itemize != "" && has(c.format(), 'i') && (c.Itemize > 1 || c.Info("NAME") > 1) {
			if c.LogFormat != "" {
				return c.change(c.LogFormat, e)
			}
			return c.change("%i %n%L", e)
		}
	}
	return c.message(e)
}

// Line returns the line of e on standard output; "" if e has none there. Steps
// and progress have none.
func (c *Command) Line(e event.Event) string {
	format := c.format()
	switch e.Kind {
	case event.Change:
	case event.Info:
		if c.Info("MISC") == 0 && e.Name == "" || strings.HasPrefix(e.Text, backedUp) && c.Info("BACKUP") == 0 {
			return ""
		}
		return c.message(e)
	case event.Skip:
		if e.Itemize != "" && has(format, 'i') && (c.Itemize > 1 || c.Info("NAME") > 1) {
			return c.change(format, e)
		}
		return c.message(e)
	default:
		return c.message(e)
	}
	// Without letters, a file whose attributes alone change is worth -vv only, and no
	// more than its name.
	quiet := strings.HasPrefix(e.Itemize, ".") && !strings.HasPrefix(e.Itemize, ".d") && !has(format, 'i')
	switch {
	case e.Itemize == deleting && format == "" && c.Info("DEL") == 0:
		return ""
	case e.Itemize == deleting && !has(format, 'i') && !has(format, 'o'):
		return "deleting " + c.name(e.Name)
	case format == "" || quiet && c.Info("NAME") < 2:
		return ""
	case quiet && strings.HasSuffix(e.Itemize, "........x"): // which rsync does not count
		return c.name(e.Name) + " " + UpToDate
	case quiet:
		return c.name(e.Name)
	}
	return c.change(format, e)
}

// Itemizes reports whether changes are shown by letters.
func (c *Command) Itemizes() bool { return has(c.format(), 'i') }

// NamesOnly reports whether changes are shown by nothing that is known only when they are done.
func (c *Command) NamesOnly() bool { return c.format() == "%n%L" || c.format() == "%n" }

// format is how a change is shown, or "".
func (c *Command) format() string {
	switch {
	case c.Quiet:
		return ""
	case c.Format != "":
		return c.Format
	case c.Itemize > 0:
		return "%i %n%L"
	case c.Info("NAME") > 0:
		return "%n%L"
	}
	return ""
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
			return "warning: " + c.name(e.Name) + ": " + text
		}
		return "warning: " + text
	case event.Info:
		return text
	}
	return ""
}

func (c *Command) skip(e event.Event, text string) string {
	if text == nonRegular {
		if c.Info("NONREG") == 0 {
			return ""
		}
		return fmt.Sprintf("%s \"%s\"", text, c.name(e.Name))
	}
	if rule, ok := strings.CutPrefix(text, Hidden); ok {
		return c.met("sender] hiding", e.Name, rule)
	}
	if rule, ok := strings.CutPrefix(text, Protected); ok {
		return c.met("generator] protecting", e.Name, rule)
	}
	if rule, ok := strings.CutPrefix(text, Risked); ok {
		return c.met("generator] risking", e.Name, rule)
	}
	name := c.name(strings.TrimSuffix(e.Name, "/"))
	switch {
	case text == UpToDate:
		if c.Info("NAME") < 2 {
			return ""
		}
		if strings.HasSuffix(e.Name, "/") {
			if !strings.HasPrefix(e.Itemize, "c") { // one that is new is as an alternate directory has it
				return ""
			}
			name += "/"
		}
		return name + " " + text
	case text == unsafe:
		if c.Info("SYMSAFE") == 0 {
			return ""
		}
		return fmt.Sprintf("%s \"%s\" -> \"%s\"", text, name, c.name(e.Target))
	case c.Info("SKIP") == 0:
		return ""
	case strings.HasPrefix(text, "is ") || text == "exists":
		return name + " " + text
	case strings.HasPrefix(text, "not creating new "):
		return fmt.Sprintf("%s \"%s\"", text, name)
	}
	return name + ": " + text
}

// met says which rule decided. A name that ends in '/' is a directory.
func (c *Command) met(what, name, rule string) string {
	if c.Debug("FILTER") == 0 {
		return ""
	}
	kind := "file"
	if dir, ok := strings.CutSuffix(name, "/"); ok {
		kind, name = "directory", dir
	}
	return fmt.Sprintf("[%s %s %s because of pattern %s", what, kind, c.name(name), rule)
}

// name makes the name of an entry printable.
func (c *Command) name(name string) string {
	if !c.EightBit {
		parts := strings.Split(name, "\t") // which rsync shows as it is
		for i := range parts {
			parts[i] = rsyncx.Printable(parts[i])
		}
		return strings.Join(parts, "\t")
	}
	var b strings.Builder
	for i := range len(name) {
		switch {
		case name[i] < 0x20 && name[i] != '\t' || name[i] == 0x7f:
			fmt.Fprintf(&b, `\#%03o`, name[i])
		case name[i] == '\\' && strings.HasPrefix(name[i:], `\#`):
			b.WriteString(`\#134`)
		default:
			b.WriteByte(name[i])
		}
	}
	return b.String()
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
