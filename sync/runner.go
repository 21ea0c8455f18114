// Package sync runs one pass of the standby: capture, copy, stage, verify,
// publish, prune.
//
// It owns the promise: what the standby shows (database, blobs and trees) is at
// every instant one whole published snapshot, or, once the publish journal is
// written, on its way to the next one without needing the active. Everything
// before the journal is invisible; everything after it is idempotent.
//
// Importers name it drsync, so that the standard library's sync keeps its name.
package sync

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/prune"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Active is the host that is copied. It is never changed.
type Active interface {
	// Source opens a directory of the active by its absolute path.
	Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error)
	// Clock measures the active's clock minus this host's, ± bound. It wraps
	// errors.ErrUnsupported where the transport cannot tell.
	Clock(ctx context.Context) (skew, bound time.Duration, err error)
}

// Runner is one configured standby. Its fields do not change while it works,
// and one goroutine at a time uses it.
type Runner struct {
	StateDir   string
	Home       string // of the standby
	ActiveHome string
	BlobDirs   []string        // directories outside Home that blobs may be written to
	Source     snapshot.Source // for the record
	Version    string

	// Connect opens the active, the first time a step needs it. Recover and
	// Prune never do.
	Connect func(ctx context.Context) (Active, error)
	// Engine is the database, nil for a home without one.
	Engine       dbrepl.Engine
	EngineName   string // for the record: "mysql", …
	EngineMode   string
	DatabaseName string
	// KeepDumps keeps with each snapshot what Restore needs to bring its database back.
	KeepDumps bool
	// VerifyCapture compares each captured database with the active's, before it is
	// published, or where that brings it (replication) just after.
	VerifyCapture bool
	// Profile describes the application; exists asks about a path below the active's home.
	Profile func(exists func(path string) (bool, error)) (app.Profile, error)

	// Rules adds the configured filter rules behind the application's own.
	Rules func(b *filter.Builder) error
	// Tree is what the configured rsync options ask for.
	Tree rsyncx.Options
	// NewSource accepts that the active's home is another directory than the last time, or
	// lacks a file system that was mounted in it, or that Home has become empty.
	NewSource bool

	Retention snapshot.Policy
	Prune     prune.Policy
	// Reserve is how many bytes stay free on the home's file system.
	Reserve int64

	Event event.Sink
	Now   func() time.Time // the clock; nil is time.Now
}

// Step is one step of a run: a value that plan prints and Run walks.
type Step struct {
	Name   string                                    `json:"name"`
	Detail string                                    `json:"detail"`
	Do     func(ctx context.Context) (string, error) `json:"-"` // returns what it found, for the operator
}

// Report is what a run did.
type Report struct {
	DryRun bool `json:"dry_run"`
	// Recovered is the id of a snapshot whose interrupted publish this run completed first.
	Recovered string `json:"recovered,omitempty"`
	// Snapshot is the record of what was published; with DryRun, of what would be.
	Snapshot  *snapshot.Record `json:"snapshot,omitempty"`
	Published bool             `json:"published"`
	Removed   []string         `json:"removed_snapshots,omitempty"`
	Prune     *prune.Report    `json:"prune,omitempty"`
	// PruneError says why pruning was left off; the snapshot stands.
	PruneError string `json:"prune_error,omitempty"`
}

// Incomplete reports whether the run did its work but not all of it.
func (r Report) Incomplete() bool {
	return r.PruneError != "" || r.Snapshot != nil && !r.Snapshot.Complete
}

func (r *Runner) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// Run makes one pass. It fails with *role.LockedError when another command is
// at work and with an error that wraps role.ErrWrongRole on a host that is no
// standby. With dryRun every decision is made and shown, the database is
// captured and the capture thrown away, and nothing that anybody sees changes.
//
// The report is valid, as far as the run came, also beside an error.
func (r *Runner) Run(ctx context.Context, dryRun bool) (Report, error) {
	lock, err := role.Acquire(r.StateDir, "now", r.now())
	if err != nil {
		return Report{DryRun: dryRun}, err
	}
	defer func() { _ = lock.Release() }()

	p := &pass{Runner: r, dryRun: dryRun, report: Report{DryRun: dryRun}}
	defer p.close()
	err = p.walk(ctx, p.steps())
	if err == nil && dryRun {
		p.record.Complete, p.record.Steps = complete(p.record), p.took
		p.report.Snapshot = &p.record
	}
	return p.report, err
}

// Plan returns the steps that Run would walk, to be printed.
func (r *Runner) Plan() []Step { return (&pass{Runner: r}).steps() }

// walk does the steps in order and stops at the first that fails.
func (p *pass) walk(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		began := p.now()
		p.began = began
		p.Event.Emit(event.Event{Kind: event.StepStart, Step: s.Name, Text: s.Detail})
		text, err := s.Do(ctx)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			text = "" // of what was done, which it was not
		}
		took := p.now().Sub(began)
		p.Event.Emit(event.Event{Kind: event.StepDone, Step: s.Name, Text: text, Elapsed: took, Err: err})
		p.took = append(p.took, snapshot.Step{Name: s.Name, Seconds: took.Round(time.Millisecond).Seconds()})
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return nil
}

// Recover settles what an interrupted run left: a publish that had begun is
// rolled forward, everything else is thrown away. It needs neither the active
// nor, beyond the lock which the caller holds, anything in memory. It returns
// the id of the snapshot it completed, or "".
func (r *Runner) Recover(ctx context.Context) (string, error) {
	p := &pass{Runner: r}
	defer p.close()
	if _, err := p.recover(ctx); err != nil {
		return "", err
	}
	return p.report.Recovered, nil
}

func (r *Runner) inHome(path string) string { return filepath.Join(r.Home, filepath.FromSlash(path)) }

// cleanupTimeout bounds what is done after a run failed or was cancelled: what
// is left then is removed by the next run.
const cleanupTimeout = time.Second

func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), cleanupTimeout, errors.New("cleaning up took too long"))
}
