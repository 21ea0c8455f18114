package sync

import (
	"time"

	"github.com/robfig/cron/v3"
)

// everyHour is the bit by which the library marks a field written as a star.
const everyHour = 1 << 63

// nextSlot returns the first time of the schedule after t, in zone; zero if
// there is none.
//
// A schedule for every hour follows real time: also in an hour that the clocks
// repeat it keeps its distance. One for certain hours follows the clock on the
// wall: what that shows twice comes once, and what it leaves out comes as long
// after midnight as on any other day.
func nextSlot(schedule cron.Schedule, zone *time.Location, t time.Time) time.Time {
	t = t.In(zone)
	spec, ok := schedule.(*cron.SpecSchedule)
	if !ok || spec.Hour&everyHour != 0 {
		return schedule.Next(t)
	}
	if spec.Location != time.Local {
		zone = spec.Location
	}
	byWall := *spec
	byWall.Location = time.UTC
	// A clock change is at most a few hours: labels before t may stand for instants after it.
	for label := wallClock(t.In(zone)).Add(-3 * time.Hour); ; {
		if label = byWall.Next(label); label.IsZero() {
			return label
		}
		if slot := firstInstant(label, zone); slot.After(t) {
			return slot.In(t.Location())
		}
	}
}

// wallClock is what a clock on the wall shows at t, as if that were UTC.
func wallClock(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.Add(time.Duration(offset) * time.Second).UTC()
}

// firstInstant is when a clock in zone first shows label, or would have had it
// not been put forward.
func firstInstant(label time.Time, zone *time.Location) time.Time {
	// No zone is further than 14 hours from UTC; the offset in force some hours
	// before the label decides in both cases, if it differs from the one after.
	guess := time.Date(label.Year(), label.Month(), label.Day(), label.Hour(), label.Minute(), label.Second(), 0, zone)
	_, before := guess.Add(-3 * time.Hour).Zone()
	early := label.Add(-time.Duration(before) * time.Second).In(zone)
	if wallClock(early).Equal(label) {
		return early
	}
	if wallClock(guess).Equal(label) {
		return guess
	}
	return early
}
