// Package event carries what happens during a run from the code that does it
// to whoever shows it: the terminal, the log file, metrics.
//
// The core never prints and never logs; it calls one function, a Sink.
package event

import "time"

// Kind says which fields of an Event are meaningful.
type Kind string

const (
	// StepStart and StepDone bracket one step of a run: Step, Text; StepDone has Err and Elapsed.
	StepStart Kind = "step-start"
	StepDone  Kind = "step-done"
	// Progress says how far the current step is: Step, Items, TotalItems, Bytes, TotalBytes.
	// Totals are 0 when unknown. It may come often; a sink thins it out.
	Progress Kind = "progress"
	// Change is one entry of a tree or blob set that was changed, or would be: Itemize, Name, Bytes, Text.
	Change Kind = "change"
	// Skip is one entry that was left alone for a reason: Name, Text. Shown with -vv.
	Skip Kind = "skip"
	// Warning is something the operator should know but that did not stop the run: Name, Text.
	Warning Kind = "warning"
	// Info is a fact worth a line: Text, Name. One that names its Step is a
	// detail of it, shown with -v.
	Info Kind = "info"
)

// Event is one thing that happened. Fields that its Kind does not name are zero.
type Event struct {
	Time    time.Time     `json:"time"`
	Kind    Kind          `json:"kind"`
	Step    string        `json:"step,omitempty"`
	Itemize string        `json:"itemize,omitempty"` // rsync's eleven letters, or "*deleting  "
	Name    string        `json:"name,omitempty"`    // path relative to the tree, raw bytes
	Target  string        `json:"target,omitempty"`  // of a symbolic or hard link
	Text    string        `json:"text,omitempty"`
	Items   int64         `json:"items,omitempty"`
	Total   int64         `json:"total_items,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"`
	Size    int64         `json:"total_bytes,omitempty"`
	Elapsed time.Duration `json:"elapsed_ns,omitempty"`
	Err     error         `json:"-"`
	Entry   Entry         `json:"-"` // of a Change: what the name is on the source
}

// Entry is what a line about a change may tell of it beside its name.
type Entry struct {
	Mode     uint32 // st_mode: type and permission bits, changed as the run was told to
	Size     int64  // bytes, of any type of entry
	Mtime    time.Time
	UID, GID uint32
	Reused   int64 // bytes of its content that did not travel
	// Sum is that of the content, by an algorithm that who shows it has chosen; the core leaves it empty.
	Sum string
}

// Sink receives events. It is called from several goroutines at once and must
// return quickly; it must not call back into the code that emits. A nil Sink is
// valid and drops everything (see Emit).
type Sink func(Event)

// Emit sends e, stamped with the current time if it has none. A nil sink drops it.
func (s Sink) Emit(e Event) {
	if s == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	s(e)
}

// Tee returns a Sink that calls every non-nil one of sinks in order.
func Tee(sinks ...Sink) Sink {
	return func(e Event) {
		for _, s := range sinks {
			s.Emit(e)
		}
	}
}
