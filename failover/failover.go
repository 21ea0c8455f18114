// Package failover makes a standby the active host.
//
// Its invariant: the epoch rises exactly once per failover, before anything
// becomes writable, and from then on this host refuses to pull; and nothing is
// changed at all while the old active answers, unless the operator insists.
//
// A failover is a list of steps, which Plan prints and Run walks. Every step is
// idempotent: Run after a crash, or after a step that failed, goes through the
// whole list again with the epoch that was taken the first time. The steps that
// may refuse come before the role changes, so that a refusal leaves a standby.
package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
)

var (
	// ErrActiveAnswers is wrapped when the old active answers, or when it could
	// not be found out whether it does.
	ErrActiveAnswers = errors.New("the active host may still be serving")
	// ErrNoSnapshot is wrapped when there is nothing to promote.
	ErrNoSnapshot = errors.New("no snapshot has been published")
	// ErrIncomplete is wrapped when the visible database names blobs that are
	// not here, beyond those that the snapshot's record lists as missing.
	ErrIncomplete = errors.New("blobs of the snapshot are missing")
)

// Deps is what a failover works on. All functions are required and obey ctx.
type Deps struct {
	StateDir string
	Home     string // the application's home on this host
	Host     string // this host's name, for the marker
	Now      func() time.Time

	// ActiveAnswers tries the old active. evidence says in words what was seen,
	// in either case. An error means that it could not be found out, which
	// counts as an answer.
	ActiveAnswers func(ctx context.Context) (evidence string, answers bool, err error)
	// Recover finishes or undoes an interrupted publish.
	Recover func(ctx context.Context) error
	// Snapshot returns the record of the visible snapshot, and false if none was ever published.
	Snapshot func(ctx context.Context) (snapshot.Record, bool, error)
	// Verify counts the blobs that the visible database names and that are not
	// here with their length.
	Verify func(ctx context.Context) (Presence, error)
	// Promote makes the visible databases writable and returns their points.
	Promote func(ctx context.Context) ([]dbrepl.Point, error)
	// Start starts the service.
	Start Command

	Event event.Sink

	// before is called before each step; tests stop a run here.
	before func(step string) error
}

// Presence is how many blobs were looked for and not found.
type Presence struct {
	Named   int64 `json:"named"`
	Missing int64 `json:"missing"`
}

// Options are the operator's words.
type Options struct {
	// Force goes on although the active answers or blobs are missing.
	Force bool
	// Reason is kept in the role file and the report.
	Reason string
}

// Step is one thing that a failover does.
type Step struct {
	Name   string
	Detail string // for a person
	Do     func(ctx context.Context) error
}

// Plan returns the steps that Run would walk, for printing. It changes
// nothing; the error is the refusal that the role of this host calls for.
func Plan(d Deps, o Options) ([]Step, error) {
	r, err := newRun(d, o)
	if err != nil {
		return nil, err
	}
	return r.steps(), nil
}

// Run makes this host the active one and returns what it did, also when it
// stopped with an error. It takes the host-wide lock for as long as it works.
//
// On a host that is active already it returns an error that wraps
// role.ErrWrongRole, unless the last failover did not get as far as a started
// service: then it goes on from there.
func Run(ctx context.Context, d Deps, o Options) (rep Report, err error) {
	lock, err := role.Acquire(d.StateDir, "failover", d.Now())
	if err != nil {
		var locked *role.LockedError
		if errors.As(err, &locked) && locked.Holder.PID != 0 {
			err = hint.With(err, fmt.Sprintf("wait for it, or end process %d; what it leaves half done is recovered here", locked.Holder.PID))
		}
		return Report{}, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()

	r, err := newRun(d, o)
	if err != nil {
		return Report{}, err
	}
	for _, s := range r.steps() {
		if ctx.Err() != nil {
			return r.report, context.Cause(ctx)
		}
		if err := r.walk(ctx, s); err != nil {
			return r.report, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return r.report, nil
}

func (r *run) walk(ctx context.Context, s Step) error {
	if r.d.before != nil {
		if err := r.d.before(s.Name); err != nil {
			return err
		}
	}
	began := r.d.Now()
	r.d.Event.Emit(event.Event{Kind: event.StepStart, Step: s.Name, Text: s.Detail})
	err := s.Do(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	took := r.d.Now().Sub(began)
	r.d.Event.Emit(event.Event{Kind: event.StepDone, Step: s.Name, Err: err, Elapsed: took})
	done := StepReport{Name: s.Name, Seconds: took.Seconds()}
	if err != nil {
		done.Error = err.Error()
	}
	r.report.Steps = append(r.report.Steps, done)
	return err
}
