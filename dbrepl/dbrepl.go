// Package dbrepl is the contract of the database engines: to capture a
// database on the active at one point, invisible on the standby, and to make
// it the standby's visible database in one step.
//
// Its invariant, which every engine keeps: what readers of the standby's
// database see is always one whole generation, the last published one, also
// after a crash at any moment.
package dbrepl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/drsync/drsync/internal/blob"
)

// Engine keeps one database of the standby at published points of the active's.
// One command at a time uses it: the caller holds the host-wide lock. All
// methods obey ctx.
type Engine interface {
	// Describe says in one line what is captured from where, without secrets.
	Describe() string

	// Check returns what would stop or spoil a run: privileges, versions,
	// settings, space. It changes nothing. The error is for servers that could
	// not be asked at all.
	Check(ctx context.Context) ([]Finding, error)

	// Capture fixes a point and brings the database as of that point to the
	// standby, invisible. The previous capture must be published or discarded.
	// What Check has found just before need not be asked again.
	// What it cannot do of the options it refuses before it begins.
	Capture(ctx context.Context, o CaptureOptions) (Captured, error)

	// Recover settles what a crash left. commit is nil when no publish had
	// begun: leftovers of a capture are removed. Otherwise it is the Token of
	// the capture whose publish had begun, which is rolled forward without the
	// active; it wraps ErrCaptureGone when the capture is not there any more.
	// Idempotent.
	Recover(ctx context.Context, commit Token) error

	// Visible opens the standby's visible database for reading. It wraps
	// ErrNoDatabase when nothing was ever published.
	Visible(ctx context.Context) (View, error)

	// Promote makes the visible database writable for the application and
	// returns its position. Idempotent.
	Promote(ctx context.Context) (Point, error)

	Close() error
}

// CaptureOptions is what a capture does beside its work.
type CaptureOptions struct {
	// Dump is a directory that does not exist: the capture makes it and leaves a
	// dump in it (package dump), from the same stream. After an error nothing of
	// it is left. "" keeps none.
	Dump string
	// Verify compares what was captured with the active, by sums taken inside the
	// snapshot. A difference is an error that wraps ErrDiffers: of Capture, or, when what it returns is a
	// Verifier, of that.
	Verify bool
}

// ErrCaptureGone says that Recover found the capture of its Token neither staged
// nor visible: the visible database is the generation before it.
var ErrCaptureGone = errors.New("the captured database is no longer on the standby")

// ErrDiffers says that a comparison that was asked for found a difference.
var ErrDiffers = errors.New("the database differs from the active's")

// ErrBusy says that another drsync, with another configuration, is at work on the
// same database of the standby.
var ErrBusy = errors.New("another drsync is at work on the standby's database")

// ErrNoDatabase says that the standby has no visible database.
var ErrNoDatabase = errors.New("no database has been published")

// Point is a position of the active's database and its time.
type Point struct {
	Time     time.Time // T, UTC, on the active database's own clock
	Position string    // the engine's own words: GTID, binlog file and offset, …
	Server   string    // product and version of the active's server
	// Skew is the active database's clock minus this host's; the true value
	// lies within Skew ± SkewError.
	Skew      time.Duration
	SkewError time.Duration
}

// Counts is how much a capture holds.
type Counts struct {
	Tables int
	Rows   int64
	Bytes  int64 // as transferred
	// Locked is how long others on the active had to wait for the capture at most,
	// as measured, and Against what they had to wait with: "commits", for instance.
	// 0 is that nothing was locked.
	Locked  time.Duration `json:"Locked,omitempty"`
	Against string        `json:"Against,omitempty"`
}

// Token is what Recover needs to finish a publish: JSON, without secrets.
type Token = json.RawMessage

// View is a database at one point.
type View interface {
	// Refs runs a query that returns a blob name and its length per row (NULL is
	// 0; names and lengths are not judged, one bad row must not stop the others),
	// and yields the rows ascending by name in byte order.
	Refs(ctx context.Context, query string) iter.Seq2[blob.Ref, error]
	// Strings runs a query with one string parameter ("?") and yields the
	// columns of each row joined by "/".
	Strings(ctx context.Context, query, arg string) iter.Seq2[string, error]
	Close() error
}

// Captured is a captured database. Its View is of the captured point, before
// and after Publish.
type Captured interface {
	View
	Point() Point
	Counts() Counts
	Token() Token
	// Publish makes the captured database the visible one. Idempotent; after
	// an error the caller runs Recover with the Token. Until it begins to
	// change what is visible it obeys ctx; then it goes on to the end.
	Publish(ctx context.Context) error
	// Discard removes the capture. After Publish it does nothing.
	Discard(ctx context.Context) error
}

// ActiveAsker is an optional ability of an Engine: to ask the active's
// database, as it is now, which of some blobs it still names.
type ActiveAsker interface {
	// StillNamed runs query, which has one string parameter and returns a row
	// when the blob is named, for each of sums.
	StillNamed(ctx context.Context, query string, sums []blob.Sum) (map[blob.Sum]bool, error)
}

// Restorer is an optional ability of an Engine: to bring back a kept dump
// (package dump) of its own. None of it needs the active.
type Restorer interface {
	// Restore loads the dump in dir, invisible, as Capture would: what it returns
	// is published or discarded like a capture. The dump was checked before; it is
	// read once more and must still be as it was written.
	Restore(ctx context.Context, dir string) (Captured, error)
	// RestoreAs loads the dump in dir into a new database of the given name (for
	// SQLite: a new file of that path), which must not exist. After an error there
	// is none.
	RestoreAs(ctx context.Context, dir, name string) (Counts, error)
}

// Comparer is an optional ability of an Engine: to compare the standby's visible
// database with the active's, by sums of ranges of rows, each side inside one
// snapshot. Rows that the active changed after the visible point differ rightly.
type Comparer interface {
	Compare(ctx context.Context) (Comparison, error)
}

// Comparison is what Compare found. It holds at most MaxDifferences differences.
type Comparison struct {
	Active      Point        `json:"-"` // the point at which the active was looked at
	Tables      int          `json:"tables"`
	Rows        int64        `json:"rows"` // of the active
	Chunks      int64        `json:"chunks"`
	Different   int64        `json:"different"` // chunks, and tables that only one side has
	Differences []Difference `json:"differences,omitempty"`
	// Uncompared says what could not be compared, why, and what would mend that, each
	// in a line: with any, a comparison without differences has not shown that there are none.
	Uncompared []string `json:"uncompared,omitempty"`
}

// MaxDifferences bounds Comparison.Differences.
const MaxDifferences = 1000

// Difference is a range of rows of one table that is not the same on both sides.
type Difference struct {
	Table string `json:"table"`
	// From and To are the keys that the range lies between, From included, To not,
	// as SQL literals; "" is an open end.
	From    string `json:"from,omitempty"`
	To      string `json:"to,omitempty"`
	Active  int64  `json:"active_rows"`
	Standby int64  `json:"standby_rows"`
	// Text says what differs when it is not rows: a table that one side lacks, a definition.
	Text string `json:"text,omitempty"`
}

// String says on one line which rows differ.
func (d Difference) String() string {
	keys := ""
	switch {
	case d.Text != "":
		return strings.TrimPrefix(d.Table+": "+d.Text, ": ")
	case d.From != "" && d.To != "":
		keys = " from " + d.From + " to before " + d.To
	case d.From != "":
		keys = " from " + d.From
	case d.To != "":
		keys = " before " + d.To
	}
	return fmt.Sprintf("%s%s: %d rows, on the active %d", d.Table, keys, d.Standby, d.Active)
}

// Verifier is an optional ability of a Captured that shows itself on the standby
// only by its Publish, and was asked to be verified.
type Verifier interface {
	// Verify compares the published database with the active's as of the captured
	// point. It is called after Publish and before Close. A difference is an error
	// that wraps ErrDiffers.
	Verify(ctx context.Context) error
}

// Finding is one thing that Check found.
type Finding struct {
	Fatal   bool   `json:"fatal"`            // a run would be refused
	Advice  bool   `json:"advice,omitempty"` // nothing is amiss: for a check, and no warning of each run
	Subject string `json:"subject"`          // which server, account, table or setting
	Problem string `json:"problem"`
	Fix     string `json:"fix,omitempty"` // the statement or change that would mend it
}
