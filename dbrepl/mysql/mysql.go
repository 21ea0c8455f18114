// Package mysql is the engine for MySQL and MariaDB, in dump mode: it copies
// one schema of the active as of one moment to a staging schema of the standby
// and swaps that in with a single RENAME TABLE.
//
// Its invariants: the active is only ever read. On the standby a schema NAME is
// always wholly one generation: its tables change hands in one atomic
// statement, together with a marker table that says which generation they are,
// so that after any crash the server itself answers how far a publish came. No
// row is lost quietly: every table is loaded in a transaction that is only
// committed when the server took exactly the rows that were read, without a
// single warning.
//
// For the schema NAME the standby also has NAME__drsync_new while a capture
// exists, and NAME__drsync_prev, the generation before.
package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

// Options says which schema is captured from where to where.
type Options struct {
	Name    string // the schema, which has the same name on both sides
	Active  Server
	Standby Server
	Event   event.Sink
	// Instance tells this standby from others that use the same account on the
	// active: what a lost run has left there under this name, the next one ends.
	// It is of letters and digits, 16 at most; "" leaves everything.
	Instance string
	Timeouts
}

// Server is how to reach one of the two servers.
type Server struct {
	Address  string // host:port, or the absolute path of a unix socket
	User     string
	Password string
	TLS      *tls.Config // nil: not encrypted
	// Dial replaces the ordinary way to connect, for instance through an SSH
	// tunnel. It may be called from several goroutines at once.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Timeouts bound the waiting. Zero values mean the defaults.
type Timeouts struct {
	// Connect bounds a dial with everything up to the first answer (15 s).
	Connect time.Duration
	// Quiet is how long a server may be silent in the middle of an exchange
	// until it is asked, over another connection, whether it is still at it
	// (30 s). A server that does not answer that within Connect is given up.
	Quiet time.Duration
	// Lock bounds the wait for tables that others use (10 s).
	Lock time.Duration
}

// Engine replicates one schema. It implements dbrepl.Engine and
// dbrepl.ActiveAsker.
type Engine struct {
	opt     Options
	active  *server
	standby *server
	checked recent
	claims  claims
	alone   aloneness

	// before is called before each statement that changes something during a
	// publish or a recovery; an error stops it there. Like the fields below it is for tests.
	before func(statement string) error
	// during is called before the snapshot, with "", and when rows of a table
	// have been read.
	during func(table string)
	// between is called before each session of a snapshot begins it, one after the other.
	between func()
	// workers is how many tables are copied at once; 0 for workers().
	workers int
	// chunkBytes is from how many bytes on a table may be divided; 0 for chunkBytes.
	chunkBytes int64
	// chunk is how many rows are compared at once; 0 for chunkRows.
	chunk int64
	// free is the room in a directory of the standby, in bytes; nil asks the system.
	free func(dir string) (bytes int64, ok bool)
	// anyRename accepts servers that a crash can stop in the middle of a RENAME TABLE.
	anyRename bool
	// neverLocal loads as if LOAD DATA LOCAL were refused.
	neverLocal bool
}

var (
	_ dbrepl.Engine      = (*Engine)(nil)
	_ dbrepl.ActiveAsker = (*Engine)(nil)
)

const (
	newSuffix  = "__drsync_new"
	prevSuffix = "__drsync_prev"
)

// New makes an engine. It connects to nothing yet.
func New(o Options) (*Engine, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Connect, 15*time.Second)
	def(&o.Quiet, 30*time.Second)
	def(&o.Lock, 10*time.Second)
	err := errors.Join(
		validName(o.Name),
		o.Active.valid("active"),
		o.Standby.valid("standby"),
		validInstance(o.Instance),
	)
	if err != nil {
		return nil, err
	}
	return &Engine{
		opt:     o,
		claims:  claims{instance: o.Instance, mine: make(map[string]bool)},
		active:  newServer("active", o.Active, o.Timeouts),
		standby: newServer("standby", o.Standby, o.Timeouts),
	}, nil
}

func validName(name string) error {
	const longest = 64 - len(prevSuffix) // of 64 characters that a schema name may have
	lower := strings.ToLower(name)
	switch {
	case name == "":
		return errors.New("the database has no name")
	case utf8.RuneCountInString(name) > longest:
		return fmt.Errorf("the database name %q has more than %d characters", name, longest)
	case !utf8.ValidString(name) || strings.ContainsAny(name, "\x00/\\.") || strings.TrimSpace(name) != name:
		return fmt.Errorf("the database name %q is not usable", name)
	case lower == "mysql" || lower == "information_schema" || lower == "performance_schema" || lower == "sys":
		return fmt.Errorf("the database %s belongs to the server itself", name)
	case strings.HasSuffix(lower, newSuffix) || strings.HasSuffix(lower, prevSuffix):
		return fmt.Errorf("the database %s is one of drsync's own", name)
	}
	return nil
}

func (s Server) valid(role string) error {
	if s.User == "" {
		return fmt.Errorf("the %s database has no user", role)
	}
	if strings.HasPrefix(s.Address, "/") {
		return nil
	}
	if host, port, err := net.SplitHostPort(s.Address); err != nil || host == "" || port == "" {
		return fmt.Errorf("the %s database's address %q is neither host:port nor the path of a socket", role, s.Address)
	}
	return nil
}

// Describe says what is captured from where.
func (e *Engine) Describe() string {
	return fmt.Sprintf("database %s from %s to %s (MySQL or MariaDB, dump)", e.opt.Name, e.opt.Active.Address, e.opt.Standby.Address)
}

// Close closes all connections, and with them lets others change the schema.
func (e *Engine) Close() error {
	e.endAlone()
	e.active.close()
	e.standby.close()
	return nil
}

func (e *Engine) stagingName() string { return e.opt.Name + newSuffix }
func (e *Engine) prevName() string    { return e.opt.Name + prevSuffix }

// settle waits for what a cancelled call set in motion to end it on the servers.
func (e *Engine) settle() {
	e.active.kills.wait()
	e.standby.kills.wait()
}

func (e *Engine) warn(format string, args ...any) {
	e.opt.Event.Emit(event.Event{Kind: event.Warning, Name: e.opt.Name, Text: fmt.Sprintf(format, args...)})
}
