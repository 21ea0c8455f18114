package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
)

// run is one walk through the steps.
type run struct {
	d        Deps
	o        Options
	state    role.State // as it was found, then as it was last written
	snapshot snapshot.Record
	report   Report
}

// newRun reads the role and decides whether a failover may begin or go on.
func newRun(d Deps, o Options) (*run, error) {
	state, err := role.Load(d.StateDir)
	if err != nil {
		return nil, err
	}
	r := &run{d: d, o: o, state: state, report: Report{
		Format: 1, Began: d.Now().UTC(), Host: d.Host, Reason: o.Reason, Forced: o.Force, Resumed: state.Role != role.Standby,
	}}
	if state.Role == role.Active {
		service, err := lastService(d.StateDir, state.Epoch)
		if err != nil {
			return nil, err
		}
		if service != ServicePending && service != ServiceFailed {
			return nil, hint.With(fmt.Errorf("%w: this host is active since %s (epoch %d)", role.ErrWrongRole, state.Since.Format(time.RFC3339), state.Epoch),
				"there is nothing to fail over; if the service is down, start it")
		}
	}
	if r.resumed() && r.o.Reason == "" {
		r.report.Reason = state.Reason
	}
	return r, nil
}

func (r *run) resumed() bool { return r.state.Role != role.Standby }

func (r *run) steps() []Step {
	epoch := "raise the epoch and refuse to pull from now on"
	if r.resumed() {
		epoch = fmt.Sprintf("go on with epoch %d, taken on %s", r.state.Epoch, r.state.Since.Format(time.RFC3339))
	}
	return []Step{
		{"ask", "refuse if the active still answers", r.ask},
		{"recover", "finish or undo an interrupted publish", r.recover},
		{"snapshot", "find the published snapshot and what would be lost", r.findSnapshot},
		{"verify", "look for every blob that the visible database names", r.verify},
		{"promoting", epoch, r.promoting},
		{"promote", "make the database writable", r.promote},
		{"mark", "write the epoch into " + r.d.Home + "/" + role.MarkerPath, r.mark},
		{"active", "make this host the active one", r.active},
		{"start", r.d.Start.String(), r.start},
	}
}

func (r *run) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.report.Warnings = append(r.report.Warnings, text)
	r.d.Event.Emit(event.Event{Kind: event.Warning, Text: text})
}

func (r *run) ask(ctx context.Context) error {
	evidence, answers, err := r.d.ActiveAnswers(ctx)
	r.report.Evidence = evidence
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var refusal error
	switch {
	case err != nil:
		refusal = fmt.Errorf("%w: it could not be found out: %w", ErrActiveAnswers, err)
	case answers:
		refusal = fmt.Errorf("%w: %s", ErrActiveAnswers, evidence)
	default:
		return nil
	}
	if r.o.Force {
		r.warn("forced: %v", refusal)
		return nil
	}
	return hint.With(refusal, "stop the active first and make sure that it stays down; --force goes on all the same, and two active hosts lose data")
}

func (r *run) recover(ctx context.Context) error { return r.d.Recover(ctx) }

func (r *run) findSnapshot(ctx context.Context) error {
	s, ok, err := r.d.Snapshot(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return hint.With(ErrNoSnapshot, "a host becomes a standby by its first complete run of drsync now")
	}
	r.snapshot = s
	r.report.describe(s)
	if !s.Complete {
		r.warn("snapshot %s is incomplete: %d blobs were missing when it was published", s.ID, known(s))
	}
	if r.report.LossSeconds < 0 {
		r.warn("the snapshot's time %s lies in the future: a clock is wrong", s.Time.Format(time.RFC3339))
	}
	return nil
}

// known counts the blobs that the record lists as missing.
func known(s snapshot.Record) (n int64) {
	for _, set := range s.BlobSets {
		n += set.Missing
	}
	return n
}

func (r *run) verify(ctx context.Context) error {
	p, err := r.d.Verify(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		r.report.Presence = &p
		if lost := p.Missing - known(r.snapshot); lost > 0 {
			err = fmt.Errorf("%w: %d of %d, %d of them since it was published", ErrIncomplete, p.Missing, p.Named, lost)
		}
	}
	if err == nil {
		return nil
	}
	if r.o.Force {
		r.warn("forced: %v", err)
		return nil
	}
	return hint.With(err, "drsync verify lists them; --force promotes without them")
}

// promoting takes the epoch. It is above every epoch that this host has heard
// of, also when its own state directory was lost.
func (r *run) promoting(context.Context) error {
	if r.resumed() {
		r.report.Epoch = r.state.Epoch
		return nil
	}
	marker, _, err := role.LoadMarker(r.d.Home)
	if err != nil {
		return err
	}
	next := role.State{
		Role: role.Promoting, Epoch: max(r.state.Epoch, marker.Epoch, r.snapshot.Epoch) + 1,
		Since: r.d.Now().UTC(), Reason: r.o.Reason,
	}
	if err := role.Save(r.d.StateDir, next); err != nil {
		return err
	}
	r.state, r.report.Epoch = next, next.Epoch
	return nil
}

func (r *run) promote(ctx context.Context) error {
	points, err := r.d.Promote(ctx)
	if err != nil {
		return err
	}
	r.report.Positions = nil
	for _, p := range points {
		r.report.Positions = append(r.report.Positions, p.Position)
	}
	return nil
}

func (r *run) mark(context.Context) error {
	s := r.state
	s.Role = role.Active
	return role.SaveMarker(r.d.Home, r.d.Host, s)
}

// active writes first that the service is still to be started, then the role: a
// crash in between is resumed as a promotion, one after it as a start.
func (r *run) active(context.Context) error {
	r.report.Service = ServicePending
	if err := r.report.save(r.d.StateDir); err != nil {
		return err
	}
	if r.state.Role == role.Active {
		return nil
	}
	next := r.state
	next.Role, next.Since = role.Active, r.d.Now().UTC()
	if err := role.Save(r.d.StateDir, next); err != nil {
		return err
	}
	r.state = next
	return nil
}

func (r *run) start(ctx context.Context) error {
	if len(r.d.Start.Argv) == 0 {
		r.report.Service = ServiceManual
		r.warn("no start command is configured: start the application now")
		return r.report.save(r.d.StateDir)
	}
	output, err := r.d.Start.Run(ctx)
	r.report.Output = output
	r.report.Service = ServiceStarted
	if err != nil {
		r.report.Service = ServiceFailed
		err = hint.With(err, "this host is active now; mend what is wrong with the service, then repeat drsync failover or start the service yourself")
	}
	return errors.Join(err, r.report.save(r.d.StateDir))
}
