package program

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// maxHeld is how much of the output is held back when it is buffered, in bytes.
const maxHeld = 64 << 10

// lines writes whole lines.
type lines struct {
	mu   sync.Mutex
	w    io.Writer
	hold bool // write when much has come together
	held []byte
	open bool // the last line has no end
	deaf bool // nobody reads: what could not be written is forgotten, and nothing more is tried
}

func (l *lines) line(text string) { l.write(text + "\n") }

// over writes text over the line that stands open, or as a new one. Without end it stays open.
func (l *lines) over(text string, end bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end {
		text += "\n"
	}
	l.addLocked(text)
	l.open = !end
}

// close ends the line that stands open.
func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		l.addLocked("\n")
	}
	l.open = false
}

func (l *lines) write(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		text = "\n" + text
	}
	l.open = false
	l.addLocked(text)
}

func (l *lines) addLocked(text string) {
	l.held = append(l.held, text...)
	if !l.hold || len(l.held) > maxHeld {
		l.flushLocked()
	}
}

func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushLocked()
}

func (l *lines) flushLocked() {
	if len(l.held) > 0 && !l.deaf {
		_, err := l.w.Write(l.held)
		l.deaf = errors.Is(err, syscall.EPIPE)
	}
	l.held = l.held[:0]
}

// say prints a line and logs it.
func (r *run) say(line string) {
	r.out.line(line)
	r.logged(line)
}

func (r *run) logged(line string) {
	if r.log != nil {
		r.log.line(line)
	}
}

// problem prints a line where errors go, and logs it.
func (r *run) problem(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	r.out.flush()
	r.err.line(line)
	r.logged(line)
}

// sourceError tells of a source of the line that cannot be looked at.
func (r *run) sourceError(call, path string, err error) {
	r.worse(Partial)
	r.problem("drsync: [sender] %s %s failed: %s", call, quoted(r.here(path)), reason(err))
}

// quoted is a path in quotes, safe to show.
func quoted(path string) string { return `"` + rsyncx.Printable(path) + `"` }

// shownSafely is a line of an error, in which names are safe to show already: what is
// not is escaped, and what is stays as it is.
func shownSafely(line string) string {
	return strings.ReplaceAll(rsyncx.Printable(line), `\#134#`, `\#`)
}

// reason is the system's word for what is wrong, with its number as rsync has it.
func reason(err error) string {
	var number syscall.Errno
	if errors.As(err, &number) {
		return fmt.Sprintf("%s (%d)", capital(number.Error()), int(number))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return reason(syscall.ENOENT)
	}
	for _, number := range []syscall.Errno{syscall.ENOTDIR, syscall.EACCES, syscall.ELOOP} { // what a host says has lost it
		if strings.HasSuffix(err.Error(), ": "+number.Error()) {
			return reason(number)
		}
	}
	return shownSafely(err.Error())
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// explain prints an error, one line for each of several, and what can be done about it.
func (r *run) explain(err error) {
	for _, one := range flatten(err) {
		for line := range strings.SplitSeq(one.Error(), "\n") {
			r.problem("drsync: %s", shownSafely(line))
		}
		if h := hint.Of(one); h != "" {
			for line := range strings.SplitSeq(h, "\n") {
				r.problem("drsync: %s", shownSafely(line))
			}
		}
	}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if known, ok := err.(failed); ok { //nolint:errorlint // the outermost alone is taken off
		return flatten(known.error)
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}

// sink prints and logs what happens.
func (r *run) sink(e event.Event) {
	if r.sums != nil {
		r.sums.events <- e
		return
	}
	r.show(e)
}

func (r *run) show(e event.Event) {
	if e.Name != "" && !r.byDestination(e) {
		e.Name = r.shownAs(e.Name)
	}
	switch e.Kind {
	case event.Warning:
		r.warning(e)
		return
	case event.Info:
		if strings.Contains(e.Text, "-dest arg ") { // a warning in rsync
			r.problem("%s", r.c.Line(e))
			return
		}
	case event.Progress:
		r.progress.take(r, e)
		return
	}
	if (e.Kind == event.Change || e.Kind == event.Skip) && r.untold(e) {
		return
	}
	r.change(e)
}

// shownAs is how a name of the destination is shown.
func (r *run) shownAs(name string) string {
	if r.renamed != "" {
		name = swap(name, r.as, r.renamed)
	}
	return r.lead + name
}

// byDestination reports a line in which rsync calls what it renames as it is at the
// destination: those about what is there.
func (r *run) byDestination(e event.Event) bool {
	if r.renamed == "" || e.Kind != event.Skip || e.Itemize != "" && r.c.Itemizes() {
		return false
	}
	return slices.Contains([]string{rsyncx.SkipUpToDate, rsyncx.SkipExists, rsyncx.SkipNewer, rsyncx.SkipNotCreated, rsyncx.SkipNotCreatedDir}, e.Text)
}

// untold reports what is told of otherwise, or what rsync is silent about.
func (r *run) untold(e event.Event) bool {
	dir, isDir := strings.CutSuffix(e.Name, "/")
	return isDir && slices.ContainsFunc(r.implied, func(u *unimplied) bool { return u.leads(dir) })
}

// change prints and logs what has a line of its own.
func (r *run) change(e event.Event) {
	if line := r.c.Line(e); line != "" && !r.progress.named(e) {
		r.out.line(line)
	}
	if r.log != nil {
		if line := r.c.LogLine(e); line != "" {
			r.logged(line)
		}
	}
	if e.Kind == event.Change {
		r.progress.file(r, e)
	}
}

func (r *run) warning(e event.Event) {
	if strings.HasPrefix(e.Text, "could not make way for") || strings.HasPrefix(e.Text, rsyncx.XattrsNotKept) {
		r.worse(Partial)
	}
	r.problem("%s", r.c.Line(e))
}
