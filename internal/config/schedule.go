package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule says when the scheduler runs. The zero Schedule never does.
type Schedule struct {
	Spec string        // as written
	Cron cron.Schedule // nil in the zero Schedule
}

// IsZero reports whether there is no schedule.
func (s Schedule) IsZero() bool { return s.Cron == nil }

// String is the schedule as written.
func (s Schedule) String() string { return s.Spec }

// MarshalJSON writes the schedule as written.
func (s Schedule) MarshalJSON() ([]byte, error) { return json.Marshal(s.Spec) }

// gapSlots bounds how many times of a schedule are looked at; those of every
// minute of the office hours span a month.
const gapSlots = 20_000

// LongestGap is the longest time between two runs within the 400 days after t,
// or within the first 20,000 runs; 0 without a schedule.
func (s Schedule) LongestGap(t time.Time) (longest time.Duration) {
	if s.IsZero() {
		return 0
	}
	last := s.Cron.Next(t)
	end := t.AddDate(0, 0, 400)
	for n := 0; n < gapSlots && last.Before(end); n++ {
		next := s.Cron.Next(last)
		if next.IsZero() {
			break
		}
		longest, last = max(longest, next.Sub(last)), next
	}
	return longest
}

// leastEvery is the least distance of an @every schedule.
const leastEvery = time.Minute

// ParseSchedule reads five cron fields (minute, hour, day of month, month, day
// of week, where 0 and 7 are Sunday), or @hourly, @daily, @weekly, @monthly,
// @yearly, @every DURATION. CRON_TZ=Zone before it sets the time zone. A
// schedule that would never run is an error.
func ParseSchedule(spec string) (Schedule, error) {
	zone, fields, err := splitZone(strings.TrimSpace(spec))
	if err != nil {
		return Schedule{}, err
	}
	if every, ok := strings.CutPrefix(fields, "@every "); ok {
		d, err := time.ParseDuration(strings.TrimSpace(every))
		if err != nil || d < leastEvery {
			return Schedule{}, fmt.Errorf("@every needs a length of time of at least %v", leastEvery)
		}
	}
	parsed, err := parseCron(zone + sundays(fields))
	if err != nil {
		return Schedule{}, err
	}
	if parsed.Next(time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, errors.New("never comes: no such day exists")
	}
	return Schedule{Spec: spec, Cron: parsed}, nil
}

func splitZone(spec string) (zone, fields string, err error) {
	if !strings.HasPrefix(spec, "TZ=") && !strings.HasPrefix(spec, "CRON_TZ=") {
		return "", spec, nil
	}
	zone, fields, ok := strings.Cut(spec, " ")
	if !ok || strings.HasSuffix(zone, "=") {
		return "", "", errors.New("write the time zone as CRON_TZ=Europe/Berlin, a space, and the five fields")
	}
	return zone + " ", strings.TrimSpace(fields), nil
}

// parseCron is the library's parser, which panics on some malformed input.
func parseCron(spec string) (s cron.Schedule, err error) {
	defer func() {
		if recover() != nil {
			s, err = nil, errors.New("is not a cron schedule")
		}
	}()
	return cron.ParseStandard(spec)
}

// sundays rewrites 7 in the last of five fields, which every cron takes for
// Sunday and the library refuses.
func sundays(fields string) string {
	f := strings.Fields(fields)
	if len(f) != 5 || !strings.Contains(f[4], "7") {
		return fields
	}
	var days []string
	for _, item := range strings.Split(f[4], ",") {
		days = append(days, sundayItem(item))
	}
	f[4] = strings.Join(days, ",")
	return strings.Join(f, " ")
}

// sundayItem rewrites one item, such as 7, 5-7 or 1-7/2, as a list of days; what
// it does not understand it leaves to the parser.
func sundayItem(item string) string {
	span, stepText, hasStep := strings.Cut(item, "/")
	from, to, isRange := strings.Cut(span, "-")
	if !isRange {
		to = from
	}
	first, err := dayNumber(from)
	if err != nil || to != "7" {
		return item
	}
	step := 1
	if hasStep {
		if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > 7 {
			return item
		}
	}
	var days []string
	for d := first; d <= 7; d += step {
		days = append(days, strconv.Itoa(d%7))
	}
	return strings.Join(days, ",")
}

func dayNumber(text string) (int, error) {
	for i, name := range []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} {
		if strings.EqualFold(text, name) {
			return i, nil
		}
	}
	d, err := strconv.Atoi(text)
	if err != nil || d < 0 || d > 7 {
		return 0, errors.New("no day of the week")
	}
	return d, nil
}
