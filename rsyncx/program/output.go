package program

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// lines writes whole lines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(l.w, text+"\n")
}

func (r *run) problem(format string, args ...any) { r.err.line(fmt.Sprintf(format, args...)) }

// explain prints an error, one line for each of several, and what can be done about it.
func (r *run) explain(err error) {
	for _, one := range flatten(err) {
		r.problem("drsync: %s", rsyncx.Printable(one.Error()))
		if h := hint.Of(one); h != "" {
			r.problem("drsync: %s", strings.ReplaceAll(rsyncx.Printable(h), `\#012`, "\ndrsync: "))
		}
	}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	var known failed
	if errors.As(err, &known) && err == error(known) { //nolint:errorlint // the outermost alone is taken off
		return flatten(known.error)
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // as above
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}

// sink prints what happens.
func (r *run) sink(e event.Event) {
	if e.Kind == event.Warning {
		r.warning(e)
		return
	}
	if line := r.c.Line(e); line != "" {
		r.out.line(line)
	}
}

func (r *run) warning(e event.Event) {
	if strings.HasPrefix(e.Text, "could not make way for") {
		r.worse(Partial)
	}
	r.problem("%s", r.c.Line(e))
}
