package show

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/drsync/drsync/internal/event"
)

// TerminalOptions says what a Terminal shows and how.
type TerminalOptions struct {
	Out io.Writer
	// Progress shows how far a step is: bars if Bars, lines otherwise.
	Progress bool
	// Bars says that Out is a terminal that redraws; see IsTerminal.
	Bars bool
	// Verbose is how many -v there were: 1 shows changed names, 2 skipped ones too.
	Verbose int
	// Every is the least time between two lines of progress of one step; 0 is 3 seconds.
	Every time.Duration
	// Quiet leaves only warnings.
	Quiet bool
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Terminal shows events to a person. Its Sink may be called from several
// goroutines at once.
type Terminal struct {
	o      TerminalOptions
	mu     sync.Mutex
	screen screen
	steps  map[string]*stepProgress // those that run
	closed bool
}

// stepProgress is one running step.
type stepProgress struct {
	started time.Time
	shown   time.Time // when its progress was last shown
}

// screen is where lines and progress go: plain, or with bars.
type screen interface {
	println(line string)
	// progress shows how far step is; more calls replace it.
	progress(step string, e event.Event, since time.Duration)
	// done ends the progress of step.
	done(step string)
	// close ends all progress and writes what is left.
	close()
}

// NewTerminal returns a Terminal. Close must be called at the end.
func NewTerminal(o TerminalOptions) *Terminal {
	if o.Every <= 0 {
		o.Every = 3 * time.Second
	}
	t := &Terminal{o: o, steps: map[string]*stepProgress{}}
	if o.Progress && o.Bars && !o.Quiet {
		t.screen = newBarScreen(o.Out, barOptions{})
	} else {
		t.screen = plainScreen{o.Out}
	}
	return t
}

// redrawEvery thins what is passed on to bars.
const redrawEvery = 50 * time.Millisecond

// Sink shows one event. After Close it writes plain lines.
func (t *Terminal) Sink(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if t.o.Quiet && e.Kind != event.Warning {
		return
	}
	switch e.Kind {
	case event.StepStart:
		t.steps[e.Step] = &stepProgress{started: e.Time, shown: e.Time}
	case event.StepDone:
		delete(t.steps, e.Step)
		t.screen.done(e.Step)
		t.screen.println(stepLine(e))
	case event.Progress:
		t.progress(e)
	case event.Change:
		if t.o.Verbose >= 1 {
			t.screen.println(changeLine(e))
		}
	case event.Skip:
		if t.o.Verbose >= 2 {
			t.screen.println("skipping " + named(e))
		}
	case event.Warning:
		t.screen.println("warning: " + named(e))
	case event.Info:
		if e.Step == "" || t.o.Verbose >= 1 {
			t.screen.println(named(e))
		}
	}
}

func (t *Terminal) progress(e event.Event) {
	if e.Step == "" && len(t.steps) == 1 {
		for e.Step = range t.steps { // it can be about nothing else
		}
	}
	s := t.steps[e.Step]
	// Of a step that does not run nothing would ever take a bar away again.
	if s == nil || !t.o.Progress || t.closed {
		return
	}
	every := t.o.Every
	if t.o.Bars {
		every = redrawEvery
	}
	if !s.shown.IsZero() && e.Time.Sub(s.shown) < every {
		return
	}
	s.shown = e.Time
	t.screen.progress(e.Step, e, e.Time.Sub(s.started))
}

// Close ends the bars, so that what is printed next begins on a line of its own.
func (t *Terminal) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	t.screen.close()
	t.screen = plainScreen{t.o.Out}
}

// plainScreen writes lines. A terminal that went away must not stop a run, so
// errors of writing are dropped.
type plainScreen struct{ w io.Writer }

func (p plainScreen) println(line string) { fmt.Fprintln(p.w, line) }

func (p plainScreen) progress(step string, e event.Event, since time.Duration) {
	if text := progressLine(e, since); text != "" {
		fmt.Fprintln(p.w, column(step)+text)
	}
}

func (p plainScreen) done(string) {}
func (p plainScreen) close()      {}

var (
	_ screen = plainScreen{}
	_ screen = (*barScreen)(nil)
)
