package sync

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// Scheduler runs one job at the times of a cron schedule, one run at a time.
//
//   - A time that was missed because nothing was running, or because the host
//     slept or its clock jumped, is made up for by one run, however many were missed.
//   - Times that pass while the job runs are skipped: a job that is slower than
//     its schedule must not keep the active busy for ever.
//   - In the hour that a change of the clocks repeats, a schedule of fixed hours
//     runs once; in the hour that is left out, it runs an hour later by the clock.
//   - An error of the job is reported, and the schedule goes on.
//
// Its fields are set before Run and not changed after.
type Scheduler struct {
	Schedule cron.Schedule
	// Job is one run. It must obey its context.
	Job func(context.Context) error
	// StateDir is where the scheduler keeps schedule.json.
	StateDir string
	// Timeout ends the context of one run; 0 is no limit.
	Timeout time.Duration
	// Jitter spreads hosts that share a schedule: each run starts at a fixed
	// delay below Jitter after its time, which depends on JitterKey alone. It must
	// be shorter than the schedule's distance.
	Jitter    time.Duration
	JitterKey string
	// Location is the zone of a schedule that names none; nil is time.Local.
	Location *time.Location
	// Event receives a line for each run, and warnings.
	Event event.Sink

	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// Wait returns nil after d, or context.Cause(ctx) before; nil waits on a timer.
	Wait func(ctx context.Context, d time.Duration) error
}

const (
	// wakeEvery bounds how long a suspend or a jump of the clock goes unnoticed:
	// timers count time that the host was awake.
	wakeEvery = time.Minute
	// clockSlack is how far the clock may be set back before times that were
	// served already are served again.
	clockSlack = 2 * time.Minute
)

// ErrRunTimeout is the cause of a run's context that outlived Scheduler.Timeout.
var ErrRunTimeout = errors.New("the run took longer than its time limit")

// Run runs the job at its times until ctx ends, and returns context.Cause(ctx).
// It waits for a job that is running.
func (s *Scheduler) Run(ctx context.Context) error {
	state, err := LoadScheduleState(s.StateDir)
	switch {
	case err != nil:
		// Nothing is known about earlier runs: as if one had been missed.
		s.warn(err, "the times of earlier runs are lost")
		state.Considered = s.now().Add(-366 * 24 * time.Hour)
	case state.Considered.IsZero():
		state.Considered = s.now()
		s.save(state)
	}
	for {
		slot, err := s.await(ctx, &state)
		if err != nil {
			return err
		}
		s.runOnce(ctx, slot, &state)
	}
}

// Next returns when the first run after now starts, Jitter included; zero if never.
func (s *Scheduler) Next(now time.Time) time.Time {
	slot := nextSlot(s.Schedule, s.location(), now.Round(0).Add(-s.delay()))
	if slot.IsZero() {
		return slot
	}
	return slot.Add(s.delay())
}

// await returns the first slot after state.Considered once it is due.
func (s *Scheduler) await(ctx context.Context, state *ScheduleState) (time.Time, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return time.Time{}, err
		}
		now := s.now()
		if state.Considered.After(now.Add(clockSlack)) {
			s.warn(nil, fmt.Sprintf("the clock was set back: times up to %s were served, now it is %s",
				state.Considered.Format(time.RFC3339), now.Format(time.RFC3339)))
			state.Considered = now.Add(-s.delay())
			s.save(*state)
		}
		slot := nextSlot(s.Schedule, s.location(), state.Considered)
		if slot.IsZero() {
			return slot, hint.New("the schedule never comes", "change schedule in the configuration")
		}
		left := slot.Add(s.delay()).Sub(now)
		if left <= 0 {
			return slot, nil
		}
		if err := s.wait(ctx, min(left, wakeEvery)); err != nil {
			return time.Time{}, err
		}
	}
}

// runOnce runs the job for slot, and for every other slot that is due already.
func (s *Scheduler) runOnce(ctx context.Context, slot time.Time, state *ScheduleState) {
	started := s.now()
	state.LastScheduled, state.LastStarted = slot, started
	state.Considered = later(slot, started.Add(-s.delay()))
	s.save(*state)
	text := "scheduled run of " + slot.Format(time.RFC3339)
	if late := started.Sub(slot.Add(s.delay())); late > 2*wakeEvery {
		text += fmt.Sprintf(", made up for %s late", late.Round(time.Second))
	}
	s.Event.Emit(event.Event{Kind: event.Info, Text: text})

	err := s.call(ctx)
	ended := s.now()
	if err != nil {
		s.warn(err, "scheduled run")
	} else {
		state.LastSuccess = ended
	}
	if skipped := nextSlot(s.Schedule, s.location(), state.Considered); !skipped.IsZero() && !skipped.Add(s.delay()).After(ended) {
		s.warn(nil, fmt.Sprintf("the run took %s, longer than the schedule allows; times from %s on were skipped",
			ended.Sub(started).Round(time.Second), skipped.Format(time.RFC3339)))
		state.Considered = later(state.Considered, ended.Add(-s.delay()))
	}
	s.save(*state)
}

func (s *Scheduler) call(ctx context.Context) error {
	if s.Timeout <= 0 {
		return s.Job(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.Timeout, fmt.Errorf("%w of %s", ErrRunTimeout, s.Timeout))
	defer cancel()
	return s.Job(ctx)
}

// delay is this host's share of Jitter, the same at every start.
func (s *Scheduler) delay() time.Duration {
	if s.Jitter <= 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(s.JitterKey))
	return time.Duration(h.Sum64() % uint64(s.Jitter)).Truncate(time.Second)
}

func (s *Scheduler) location() *time.Location {
	if s.Location == nil {
		return time.Local
	}
	return s.Location
}

// now is wall-clock time only: what a suspend hides from the monotonic clock must show.
func (s *Scheduler) now() time.Time {
	if s.Now == nil {
		return time.Now().Round(0)
	}
	return s.Now().Round(0)
}

func (s *Scheduler) wait(ctx context.Context, d time.Duration) error {
	if s.Wait != nil {
		return s.Wait(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// save keeps the times of runs. That it cannot is no reason to stop syncing.
func (s *Scheduler) save(state ScheduleState) {
	if err := saveScheduleState(s.StateDir, state); err != nil {
		s.warn(err, "the times of runs cannot be kept")
	}
}

func (s *Scheduler) warn(err error, text string) {
	if err != nil {
		text += ": " + err.Error()
	}
	s.Event.Emit(event.Event{Kind: event.Warning, Text: text, Err: err})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
