package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is everything that is wrong with one configuration file.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	text := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		text[i] = p.Error()
	}
	return strings.Join(text, "\n")
}

// Unwrap returns each problem as an error of its own.
func (e *Error) Unwrap() []error {
	errs := make([]error, len(e.Problems))
	for i, p := range e.Problems {
		errs[i] = p
	}
	return errs
}

// Problem is one thing that is wrong. Text and Source never hold a secret.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`           // from 1; 1 also for what is missing at the top level
	Path   string `json:"path,omitempty"` // "database.active.via"; "" for the file as a whole
	Text   string `json:"problem"`
	Source string `json:"source,omitempty"` // the line, without what might be a secret
}

// Error is FILE:LINE: PATH: PROBLEM and, on a second line, the source.
func (p Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", p.File, p.Line)
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	if p.Source != "" {
		fmt.Fprintf(&b, "\n%6d | %s", p.Line, p.Source)
	}
	return b.String()
}

// source is the text of a file and where each of its keys stands.
type source struct {
	name  string
	lines []string
	keyAt map[string]int // path to line
	shown []string       // lines as they may be shown, made when the first is
}

func newSource(name string, data []byte) *source {
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	return &source{name: name, lines: strings.Split(text, "\n"), keyAt: map[string]int{}}
}

// problem describes path, at the line of its key or of the nearest key around it.
func (s *source) problem(path, text string) Problem {
	for at := path; at != ""; {
		if line, ok := s.keyAt[at]; ok {
			return s.problemAt(line, path, text)
		}
		at = at[:max(0, strings.LastIndexAny(at, ".["))]
	}
	return Problem{File: s.name, Line: 1, Path: path, Text: text}
}

func (s *source) problemAt(line int, path, text string) Problem {
	line = min(max(line, 1), len(s.lines))
	return Problem{File: s.name, Line: line, Path: path, Text: text, Source: s.show(line)}
}

func sortProblems(all []Problem) {
	slices.SortStableFunc(all, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
}
