package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Story tells a person what happens, step by step. The first error of its
// writer stops it and is kept for Err. It is for one goroutine.
type Story struct {
	w     io.Writer
	color bool
	steps int
	err   error
}

// NewStory tells its story to w, with colours if w is a terminal that shows them.
func NewStory(w io.Writer, color bool) *Story { return &Story{w: w, color: color} }

// Err returns the first error of the writer.
func (s *Story) Err() error { return s.err }

// Title begins the story.
func (s *Story) Title(text string) {
	s.print(s.paint(bold, text) + "\n" + strings.Repeat("=", len([]rune(text))) + "\n")
}

// Step begins the next numbered step.
func (s *Story) Step(text string) {
	s.steps++
	s.print("\n" + s.paint(bold, fmt.Sprintf("%d. %s", s.steps, text)) + "\n")
}

// Say adds a paragraph, wrapped and indented below the step.
func (s *Story) Say(format string, args ...any) {
	const width = 76
	line := "  "
	for word := range strings.FieldsSeq(fmt.Sprintf(format, args...)) {
		if len(line) > 2 && len([]rune(line))+1+len([]rune(word)) > width {
			s.print(line + "\n")
			line = "  "
		}
		if len(line) > 2 {
			line += " "
		}
		line += word
	}
	s.print(line + "\n")
}

// Fact adds one line with a name and what it is, aligned with its neighbours.
func (s *Story) Fact(name, format string, args ...any) {
	s.print(fmt.Sprintf("    %-18s %s\n", name, fmt.Sprintf(format, args...)))
}

// Verdict adds one line that says whether something holds.
func (s *Story) Verdict(holds bool, format string, args ...any) {
	mark := s.paint(green, "ok    ")
	if !holds {
		mark = s.paint(red, "FAILED")
	}
	s.print("  " + mark + "  " + fmt.Sprintf(format, args...) + "\n")
}

// Command shows a command to type, ready to be copied.
func (s *Story) Command(command string) { s.print("    " + s.paint(bold, command) + "\n") }

// Changes tells what happened on the active.
func (s *Story) Changes(c Changes) {
	if n := len(c.Uploaded); n > 0 {
		s.Fact("uploaded", "%d artifacts, %s, the last one %s", n, Bytes(c.UploadedBytes), c.Uploaded[n-1])
	}
	s.Fact("deleted", "%s, and its content %.12s… collected", c.Collected, c.CollectedSum)
	s.Fact("edited", "%s", c.Edited)
	s.Fact("replaced", "%s by %s", c.Removed, c.Added)
	s.Fact("its own business", "%s", strings.Join(c.HostFiles, ", "))
}

// Check tells what Check found, and which of it is wrong.
func (s *Story) Check(r CheckReport) {
	const most = 10
	s.Verdict(len(r.Broken) == 0, "each of the %s blobs that the standby's database names is there with its length and SHA-1 (%s hashed)",
		Count(int64(r.Binaries)), Bytes(r.Bytes))
	for i, line := range r.Broken {
		if i == most {
			s.Say("and %d more", len(r.Broken)-most)
			break
		}
		s.Say("%s", line)
	}
	s.Verdict(len(r.Behind) == 0, "its %s rows of nodes and %d other files are the active's; its own host-specific files are its own",
		Count(int64(r.Nodes)), r.Files)
	for i, line := range r.Behind {
		if i == most {
			s.Say("and %d more", len(r.Behind)-most)
			break
		}
		s.Say("%s", line)
	}
	if r.Unnamed > 0 {
		s.Fact("waste", "%d blobs that no row of its database names", r.Unnamed)
	}
}

// Bytes formats a number of bytes for a person, in powers of ten.
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1000, "kB"
	for _, next := range []string{"MB", "GB", "TB"} {
		if f < 999.95 {
			break
		}
		f, unit = f/1000, next
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// Count formats a number with a comma at every thousand.
func Count(n int64) string {
	if n < 0 {
		return "-" + Count(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", Count(n/1000), n%1000)
}

// Took formats a duration with three digits that matter.
func Took(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

func (s *Story) paint(color, text string) string {
	if !s.color {
		return text
	}
	return color + text + plain
}

func (s *Story) print(text string) {
	if s.err == nil {
		_, s.err = io.WriteString(s.w, text)
	}
}
