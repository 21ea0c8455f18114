package show

import (
	"strings"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
)

// stepWidth is the column where the text of a step begins.
const stepWidth = 9

func column(step string) string {
	step = rsyncx.Printable(step)
	return step + strings.Repeat(" ", max(1, stepWidth+1-len(step)))
}

// line makes text that may have line breaks one printable line.
func line(text string) string {
	return rsyncx.Printable(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; "))
}

// stepLine is how a step ended: "capture   art: 2 tables, 1,204 rows  0.8 s".
func stepLine(e event.Event) string {
	text := line(e.Text)
	if e.Err != nil {
		text = strings.TrimSpace(text + " failed")
	}
	if text != "" {
		text += "  "
	}
	return column(e.Step) + text + Duration(e.Elapsed)
}

// progressLine is how far a step is. since is how long it has worked.
func progressLine(e event.Event, since time.Duration) string {
	var parts []string
	if e.Items > 0 || e.Total > 0 {
		parts = append(parts, of(Count(e.Items), Count(e.Total), e.Total))
	}
	if e.Bytes > 0 || e.Size > 0 {
		parts = append(parts, of(Bytes(e.Bytes), Bytes(e.Size), e.Size))
	}
	done, total := e.Bytes, e.Size
	if total <= 0 {
		done, total = e.Items, e.Total
	}
	if total > 0 {
		parts = append(parts, Percent(done, total))
	}
	if s := since.Seconds(); e.Bytes > 0 && s >= 1 {
		parts = append(parts, Bytes(int64(float64(e.Bytes)/s))+"/s")
	}
	if s := since.Seconds(); total > done && done > 0 && s >= 2 {
		left := float64(total-done) / float64(done) * s
		if left < 30*24*3600 {
			parts = append(parts, Duration(time.Duration(left*float64(time.Second)).Round(time.Second))+" left")
		}
	}
	return strings.Join(parts, "  ")
}

func of(done, total string, known int64) string {
	if known <= 0 {
		return done
	}
	return done + " of " + total
}

// changeLine is a changed name the way rsync -v prints it.
func changeLine(e event.Event) string {
	if strings.HasPrefix(e.Itemize, "*deleting") {
		return "deleting " + entryName(e)
	}
	text := entryName(e)
	if e.Text != "" {
		text += " (" + line(e.Text) + ")"
	}
	return text
}

// itemizeLine is a change the way rsync's log has it: "%i %n%L".
func itemizeLine(e event.Event) string {
	letters := e.Itemize
	if pad := 11 - len(letters); pad > 0 {
		letters += strings.Repeat(" ", pad)
	}
	return rsyncx.Printable(letters) + " " + entryName(e)
}

// entryName is a name with what rsync appends to it: a slash for a directory,
// the target of a link.
func entryName(e event.Event) string {
	name := rsyncx.Printable(e.Name)
	if name == "" {
		name = "."
	}
	kind := byte(0)
	if len(e.Itemize) > 1 && e.Itemize[0] != '*' {
		kind = e.Itemize[1]
	}
	switch {
	case kind == 'd' && !strings.HasSuffix(name, "/"):
		name += "/"
	case e.Target != "" && e.Itemize != "" && e.Itemize[0] == 'h':
		name += " => " + rsyncx.Printable(e.Target)
	case e.Target != "":
		name += " -> " + rsyncx.Printable(e.Target)
	}
	return name
}

// named puts an event's name before its text.
func named(e event.Event) string {
	if e.Name == "" {
		return line(e.Text)
	}
	return rsyncx.Printable(e.Name) + ": " + line(e.Text)
}
