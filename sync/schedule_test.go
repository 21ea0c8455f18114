package sync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	stdsync "sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/drsync/drsync/internal/event"
)

func spec(t *testing.T, text string) cron.Schedule {
	t.Helper()
	s, err := cron.ParseStandard(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// bench is a scheduler whose wall clock is the bubble's plus an offset.
type bench struct {
	*Scheduler
	mu     stdsync.Mutex
	offset time.Duration
	starts []string
	events []string
	job    func(ctx context.Context, n int) error
}

func newBench(t *testing.T, schedule string) *bench {
	b := &bench{}
	b.Scheduler = &Scheduler{
		Schedule: spec(t, schedule),
		StateDir: t.TempDir(),
		Location: time.UTC,
		Now: func() time.Time {
			b.mu.Lock()
			defer b.mu.Unlock()
			return time.Now().Add(b.offset)
		},
		Event: func(e event.Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, string(e.Kind)+" "+e.Text)
		},
	}
	b.Job = func(ctx context.Context) error {
		now := b.Now()
		b.mu.Lock()
		b.starts = append(b.starts, now.UTC().Format("02T15:04:05"))
		n := len(b.starts)
		b.mu.Unlock()
		if b.job != nil {
			return b.job(ctx, n)
		}
		return nil
	}
	return b
}

func (b *bench) jump(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.offset += d
}

// run lets the scheduler work for d of the bubble's time.
func (b *bench) run(t *testing.T, d time.Duration) {
	t.Helper()
	stop := errors.New("stopped by the test")
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, stop)
	defer cancel()
	if err := b.Run(ctx); !errors.Is(err, stop) {
		t.Errorf("Run returned %v", err)
	}
}

func (b *bench) expect(t *testing.T, starts ...string) {
	t.Helper()
	if !slices.Equal(b.starts, starts) {
		t.Errorf("runs at %v, want %v; events:\n%s", b.starts, starts, strings.Join(b.events, "\n"))
	}
	b.starts = nil
}

func (b *bench) warned(text string) bool {
	return slices.ContainsFunc(b.events, func(e string) bool { return strings.HasPrefix(e, "warning ") && strings.Contains(e, text) })
}

// The bubble's clock begins at midnight UTC of 2000-01-01.

func TestSchedulerRunsAtItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "*/15 * * * *")
		if got := b.Next(b.Now()); got.Format("15:04") != "00:15" {
			t.Errorf("Next: %v", got)
		}
		b.run(t, 46*time.Minute)
		b.expect(t, "01T00:15:00", "01T00:30:00", "01T00:45:00")
		state, err := LoadScheduleState(b.StateDir)
		if err != nil || state.LastScheduled.UTC().Format("15:04") != "00:45" || !state.LastSuccess.Equal(state.LastStarted) {
			t.Errorf("state: %+v %v", state, err)
		}
	})
}

func TestSchedulerErrorsDoNotStopIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "*/15 * * * *")
		b.job = func(_ context.Context, n int) error {
			if n == 2 {
				return nil
			}
			return errors.New("the active is away")
		}
		b.run(t, 46*time.Minute)
		b.expect(t, "01T00:15:00", "01T00:30:00", "01T00:45:00")
		if !b.warned("the active is away") {
			t.Errorf("not reported: %q", b.events)
		}
		state, _ := LoadScheduleState(b.StateDir)
		if state.LastSuccess.UTC().Format("15:04") != "00:30" || state.LastStarted.UTC().Format("15:04") != "00:45" {
			t.Errorf("state: %+v", state)
		}
	})
}

func TestSchedulerMakesUpForMissedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "0 * * * *")
		b.run(t, 61*time.Minute) // 00:00 to 01:01
		b.expect(t, "01T01:00:00")
		time.Sleep(5*time.Hour + 29*time.Minute) // stopped until 06:30
		b.run(t, 31*time.Minute)
		b.expect(t, "01T06:30:00", "01T07:00:00")
		if b.warned("") {
			t.Errorf("making up is no reason to warn: %q", b.events)
		}
		time.Sleep(29 * time.Minute) // stopped, but nothing was missed
		b.run(t, time.Minute)
		b.expect(t)
	})
}

// A daemon that was stopped before its first run must also make up for it.
func TestSchedulerFirstRunMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "0 3 * * *")
		b.run(t, time.Hour)
		b.expect(t)
		time.Sleep(4 * time.Hour)
		b.run(t, time.Hour)
		b.expect(t, "01T05:00:00")
	})
}

func TestSchedulerSuspendAndClockForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "0 * * * *")
		time.AfterFunc(10*time.Minute+30*time.Second, func() { b.jump(5 * time.Hour) })
		b.run(t, 61*time.Minute)
		// The wall clock jumps at 00:10:30 to 05:10:30; noticed within a minute.
		b.expect(t, "01T05:11:00", "01T06:00:00")
	})
}

func TestSchedulerClockBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "0 * * * *")
		time.AfterFunc(60*time.Minute+10*time.Second, func() { b.jump(-90 * time.Second) })
		time.AfterFunc(90*time.Minute, func() { b.jump(-24 * time.Hour) })
		b.run(t, 125*time.Minute)
		// The small step repeats nothing; after the large one times are served again.
		b.expect(t, "01T01:00:00", "31T02:00:00")
		if !b.warned("set back") {
			t.Errorf("not reported: %q", b.events)
		}
	})
}

func TestSchedulerSlowJobSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "*/15 * * * *")
		b.job = func(_ context.Context, n int) error {
			if n == 1 {
				time.Sleep(40 * time.Minute) // to 00:55
			}
			return nil
		}
		b.run(t, 76*time.Minute)
		b.expect(t, "01T00:15:00", "01T01:00:00", "01T01:15:00")
		if !b.warned("longer than the schedule") {
			t.Errorf("not reported: %q", b.events)
		}
	})
}

func TestSchedulerTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "0 * * * *")
		b.Timeout = 5 * time.Minute
		var cause error
		b.job = func(ctx context.Context, _ int) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return cause
		}
		b.run(t, 66*time.Minute)
		b.expect(t, "01T01:00:00")
		if !errors.Is(cause, ErrRunTimeout) || !b.warned("time limit of 5m") {
			t.Errorf("cause %v, events %q", cause, b.events)
		}
	})
}

func TestSchedulerStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "* * * * *")
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("asked to stop")
		b.job = func(ctx context.Context, _ int) error {
			cancel(stop)
			<-ctx.Done()
			return context.Cause(ctx)
		}
		if err := b.Run(ctx); !errors.Is(err, stop) {
			t.Errorf("Run returned %v", err)
		}
		b.expect(t, "01T00:01:00")
		if err := b.Run(ctx); !errors.Is(err, stop) {
			t.Errorf("Run with an ended context returned %v", err)
		}
		b.expect(t)
	})
}

func TestSchedulerJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "*/5 * * * *")
		b.Jitter, b.JitterKey = 7*time.Minute, "standby-g"
		d := b.delay()
		if d <= 5*time.Minute || d >= 7*time.Minute || d != b.delay() {
			t.Fatalf("delay %v; this test wants one longer than the distance", d)
		}
		b.run(t, 21*time.Minute)
		// Slots 00:05, 00:10 and 00:15, each d late; none is lost although the next is near.
		at := func(m int) string {
			return time.Date(2000, 1, 1, 0, m, 0, 0, time.UTC).Add(d).Format("02T15:04:05")
		}
		b.expect(t, at(5), at(10))
		other := Scheduler{Jitter: b.Jitter, JitterKey: "standby-b"}
		if other.delay() == d {
			t.Error("two hosts, one delay")
		}
		if next := b.Next(b.Now()); next.Format("02T15:04:05") != at(15) {
			t.Errorf("Next %v, want %s", next, at(15))
		}
	})
}

func TestSchedulerLostState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "0 3 * * *")
		if err := os.WriteFile(filepath.Join(b.StateDir, scheduleFile), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
		b.run(t, time.Hour)
		b.expect(t, "01T00:00:00")
		if !b.warned("lost") {
			t.Errorf("not reported: %q", b.events)
		}
		b.run(t, time.Hour)
		b.expect(t)
	})
}

func TestSchedulerStateCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "0 * * * *")
		b.StateDir = filepath.Join(b.StateDir, "none")
		b.run(t, 121*time.Minute)
		b.expect(t, "01T01:00:00", "01T02:00:00")
		if !b.warned("cannot be kept") {
			t.Errorf("not reported: %q", b.events)
		}
	})
}

func TestSchedulerNever(t *testing.T) {
	b := newBench(t, "0 0 31 2 *")
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "never") {
		t.Errorf("Run returned %v", err)
	}
	if got := b.Next(time.Now()); !got.IsZero() {
		t.Errorf("Next %v", got)
	}
}

func TestNextSlot(t *testing.T) {
	for _, c := range []struct {
		name, zone, schedule, from string
		want                       []string
	}{
		{"every day", "Europe/Berlin", "30 2 * * *", "2026-11-21T00:00:00Z", []string{"2026-11-21T01:30:00Z", "2026-11-22T01:30:00Z"}},
		{"hour left out", "Europe/Berlin", "30 2 * * *", "2026-03-27T12:00:00Z",
			[]string{"2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"}},
		{"hour left out, asked inside", "Europe/Berlin", "30 2 * * *", "2026-03-29T01:10:00Z", []string{"2026-03-29T01:30:00Z"}},
		{"midnight left out", "America/Sao_Paulo", "0 0 * * *", "2018-11-03T12:00:00Z", []string{"2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}},
		{"hour repeated", "Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"hour repeated, several", "Europe/Berlin", "*/30 2 * * *", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:00:00Z"}},
		{"hour repeated, asked in the second", "Europe/Berlin", "30 2 * * *", "2026-10-25T01:10:00Z", []string{"2026-10-26T01:30:00Z"}},
		{"every hour keeps its distance", "Europe/Berlin", "0 * * * *", "2026-10-24T23:30:00Z",
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		{"half an hour repeated", "Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00:00Z", []string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		{"zone of its own", "UTC", "CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"distance", "Europe/Berlin", "@every 90m", "2026-10-25T00:00:00Z", []string{"2026-10-25T01:30:00Z", "2026-10-25T03:00:00Z"}},
	} {
		at, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			at = nextSlot(spec(t, c.schedule), zone(t, c.zone), at)
			if got := at.UTC().Format(time.RFC3339); got != want {
				t.Errorf("%s: %s, want %s", c.name, got, want)
			}
		}
	}
}

// Through two years of clock changes a daily time comes once on each day.
func TestDailyComesOnceADay(t *testing.T) {
	for _, name := range []string{"Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", "UTC"} {
		z := zone(t, name)
		for _, schedule := range []string{"0 0 * * *", "30 1 * * *", "30 2 * * *", "59 23 * * *"} {
			at := time.Date(2018, 1, 1, 12, 0, 0, 0, z)
			end := at.AddDate(2, 0, 0)
			days := map[string]int{}
			for at = nextSlot(spec(t, schedule), z, at); at.Before(end); at = nextSlot(spec(t, schedule), z, at) {
				days[at.Format(time.DateOnly)]++
			}
			for day := time.Date(2018, 1, 2, 12, 0, 0, 0, z); day.Before(end.AddDate(0, 0, -1)); day = day.AddDate(0, 0, 1) {
				if n := days[day.Format(time.DateOnly)]; n != 1 {
					t.Errorf("%s %s: %d times on %s", name, schedule, n, day.Format(time.DateOnly))
				}
			}
		}
	}
}
