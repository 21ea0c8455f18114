// Package postgres is the engine for PostgreSQL, in dump mode: pg_dump copies
// one database of the active as of one snapshot, pg_restore loads it into a new
// database of the standby, and one transaction exchanges the names of the two.
//
// Its invariants: the active is only ever read. On the standby the database
// NAME is always wholly one generation: a database is renamed whole, both
// renames of a publish are in one transaction, and the comment of a database
// says which generation it is, so that after any crash the server itself
// answers how far a publish came. Nothing counts that was not counted: the rows
// of every table are counted on the active inside the snapshot and on the
// standby after the load, and must be as many.
//
// For the database NAME the standby also has NAME__drsync_new while a capture
// exists, NAME__drsync_prev, the generation before, and NAME__drsync_draft while
// a dump is restored beside it. A published database is read only by default
// until Promote.
//
// The time T of a snapshot is that of the transaction's start, read before the
// snapshot is taken and at most a round trip earlier: whatever was committed
// before T is in it. The position is read after the snapshot: whatever is in it
// was written before the position.
//
// Before an engine changes anything on the standby it takes a lock of that server
// for the database NAME, and holds it until Close, so that two configurations
// with different homes and state directories cannot work on one database.
//
// While a capture runs, its sessions hold the weakest lock there is on every
// table (ACCESS SHARE), which only a change of a table's definition has to wait
// for. But whoever uses that table next waits behind the change, so a capture
// that somebody waits for longer than Timeouts.Lock is given up and begun anew.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

// Options says which database is captured from where to where.
type Options struct {
	Name    string // the database, which has the same name on both sides
	Active  Server
	Standby Server
	// Maintenance is the database of the standby that drsync connects to for work
	// on others ("postgres").
	Maintenance string
	// Scratch is the absolute path of a directory that is the engine's own: it is
	// made and removed at will. Its parent exists and belongs to nobody else. A
	// capture takes there what the tables take, without their indexes.
	Scratch string
	// Jobs is how many tables are dumped and loaded at once (as many as there are
	// processors, but 2 to 4).
	Jobs  int
	Event event.Sink
	// Instance tells this standby from others that use the same account on the
	// active: what a lost run has left there under this name, the next one ends.
	// It is of letters and digits, 16 at most; "" leaves everything.
	Instance string
	Timeouts
}

// Timeouts bound the waiting. Zero values mean the defaults.
type Timeouts struct {
	// Connect bounds a dial with everything up to the first answer (15 s).
	Connect time.Duration
	// Quiet is how often a server that is at work is asked, over another
	// connection, whether it still is (30 s). One that does not answer that within
	// Connect is given up.
	Quiet time.Duration
	// Lock bounds the wait for what others use, and how long a capture lets
	// others wait (10 s).
	Lock time.Duration
}

// Engine replicates one database. It implements dbrepl.Engine,
// dbrepl.ActiveAsker, dbrepl.Restorer and dbrepl.Comparer.
type Engine struct {
	opt     Options
	active  *server
	standby *server
	held    *claim

	// before is called before each statement that changes something during a
	// publish or a recovery; an error stops it there. Like the fields below it is for tests.
	before func(statement string) error
	// during is called when the snapshot is taken, and before and after what was
	// dumped is loaded.
	during func(what string)
	// claiming is called before the engine sees to its claim.
	claiming func()
	// alter changes what is known of the servers before it is judged.
	alter func(p *pair)
	// free is the room in a directory of the standby, in bytes; nil asks the system.
	free func(dir string) (bytes int64, ok bool)
}

const (
	newSuffix  = "__drsync_new"
	prevSuffix = "__drsync_prev"
	// draftSuffix is of the database that is restored beside the visible one, until
	// it is whole and gets its name.
	draftSuffix = "__drsync_draft"
)

// New makes an engine. It connects to nothing yet.
func New(o Options) (*Engine, error) {
	o.Timeouts.setDefaults()
	if o.Maintenance == "" {
		o.Maintenance = "postgres"
	}
	if o.Jobs <= 0 {
		o.Jobs = min(max(runtime.NumCPU(), 2), 4)
	}
	var scratch error
	if !filepath.IsAbs(o.Scratch) {
		scratch = fmt.Errorf("the scratch directory %q is not an absolute path", o.Scratch)
	}
	err := errors.Join(
		validName(o.Name),
		o.Active.valid("active"),
		o.Standby.valid("standby"),
		validInstance(o.Instance),
		scratch,
	)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		opt:     o,
		active:  newServer("active", o.Active, o.Timeouts),
		standby: newServer("standby", o.Standby, o.Timeouts),
		held:    &claim{},
	}
	e.active.name = sessionName(o.Instance)
	return e, nil
}

func (t *Timeouts) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&t.Connect, 15*time.Second)
	def(&t.Quiet, 30*time.Second)
	def(&t.Lock, 10*time.Second)
}

func validName(name string) error {
	const longest = 63 - len(draftSuffix) // of 63 bytes that a name may have
	switch {
	case name == "":
		return errors.New("the database has no name")
	case len(name) > longest:
		return fmt.Errorf("the database name %q has more than %d bytes", name, longest)
	case !utf8.ValidString(name) || strings.ContainsAny(name, "\x00/\\\n\r=") || strings.TrimSpace(name) != name:
		return fmt.Errorf("the database name %q is not usable", name)
	case name == "postgres" || name == "template0" || name == "template1":
		return fmt.Errorf("the database %s belongs to the server itself", name)
	case strings.HasSuffix(name, newSuffix) || strings.HasSuffix(name, prevSuffix) || strings.HasSuffix(name, draftSuffix):
		return fmt.Errorf("the database %s is one of drsync's own", name)
	}
	return nil
}

// Describe says what is captured from where.
func (e *Engine) Describe() string {
	return fmt.Sprintf("database %s from %s to %s (PostgreSQL, dump)", e.opt.Name, e.opt.Active.Address, e.opt.Standby.Address)
}

// Close lets other configurations have the standby's database. All other
// connections live no longer than what they are made for.
func (e *Engine) Close() error {
	e.release()
	return nil
}

func (e *Engine) stagingName() string { return e.opt.Name + newSuffix }
func (e *Engine) prevName() string    { return e.opt.Name + prevSuffix }
func (e *Engine) draftName() string   { return e.opt.Name + draftSuffix }

func (e *Engine) warn(format string, args ...any) {
	e.opt.Event.Emit(event.Event{Kind: event.Warning, Name: e.opt.Name, Text: fmt.Sprintf(format, args...)})
}

// failed says what was being done to which database when err came up.
func (e *Engine) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s database %s: %w", what, e.opt.Name, err)
}

var (
	_ dbrepl.Engine      = (*Engine)(nil)
	_ dbrepl.ActiveAsker = (*Engine)(nil)
	_ dbrepl.Restorer    = (*Engine)(nil)
	_ dbrepl.Comparer    = (*Engine)(nil)
)

// interrupted returns the cause of a cancellation before anything was begun.
func interrupted(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
