package show

import (
	"fmt"
	"io"
	"strings"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// Error prints err: "error: …" and, where there is one, "hint: …" below it.
// Errors that were joined are printed one after the other, each with its hints;
// a hint that several carry is printed once.
func Error(w io.Writer, err error) {
	if err == nil {
		return
	}
	said := map[string]bool{}
	for _, e := range flatten(err) {
		printLines(w, "error: ", e.Error())
		printHints(w, hint.Of(e), said)
	}
	printHints(w, hint.Of(err), said)
}

func printHints(w io.Writer, hints string, said map[string]bool) {
	for h := range strings.SplitSeq(hints, "\n") {
		if h != "" && !said[h] {
			said[h] = true
			printLines(w, "hint: ", h)
		}
	}
}

// printLines prints text after prefix; further lines of it are indented.
func printLines(w io.Writer, prefix, text string) {
	for i, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if i > 0 {
			prefix = strings.Repeat(" ", 4)
		}
		fmt.Fprintln(w, prefix+rsyncx.Printable(l))
	}
}

// flatten returns the errors that err merely lists. One that puts them into a
// sentence of its own stays whole.
func flatten(err error) []error {
	switch u := err.(type) { //nolint:errorlint // walks the error tree itself
	case interface{ Unwrap() error }:
		if inner := u.Unwrap(); inner != nil && inner.Error() == err.Error() {
			if all := flatten(inner); len(all) > 1 {
				return all
			}
		}
	case interface{ Unwrap() []error }:
		var texts []string
		for _, e := range u.Unwrap() {
			texts = append(texts, e.Error())
		}
		if strings.Join(texts, "\n") == err.Error() {
			var all []error
			for _, e := range u.Unwrap() {
				all = append(all, flatten(e)...)
			}
			return all
		}
	}
	return []error{err}
}
