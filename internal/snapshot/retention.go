package snapshot

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy says which snapshots to keep. Each number counts; 0 asks for nothing.
// A snapshot stays when any of the rules keeps it. The zero Policy keeps everything.
type Policy struct {
	KeepLast    int // the snapshots published last
	KeepDaily   int // one for each of the latest days that have any, in UTC
	KeepWeekly  int // the same for ISO weeks
	KeepMonthly int // the same for months
}

func (p Policy) empty() bool {
	return p.KeepLast <= 0 && p.KeepDaily <= 0 && p.KeepWeekly <= 0 && p.KeepMonthly <= 0
}

// Decision is whether one snapshot stays, and why.
type Decision struct {
	ID      string   `json:"id"`
	Keep    bool     `json:"keep"`
	Reasons []string `json:"reasons"` // never empty
}

// Decide applies p to all snapshots and returns one decision for each, in the
// order of List. The visible snapshot, which is the one published last, and the
// complete one published last always stay. Of a day, week or month, which go by
// T, the complete snapshot with the latest T stays, or the latest if none is
// complete. A snapshot from after now (a clock was wrong) stays too, and takes no
// other's place.
func Decide(p Policy, records []Record, now time.Time) []Decision {
	sorted := slices.Clone(records)
	slices.SortFunc(sorted, NewestFirst)
	reasons := make([][]string, len(sorted))
	because := func(i int, format string, args ...any) { reasons[i] = append(reasons[i], fmt.Sprintf(format, args...)) }

	if p.empty() {
		for i := range sorted {
			because(i, "no policy")
		}
	}
	if len(sorted) > 0 {
		because(0, "the visible snapshot")
	}
	if i := slices.IndexFunc(sorted, func(r Record) bool { return r.Complete }); i >= 0 {
		because(i, "newest complete")
	}
	var past []int
	for i, r := range sorted {
		if r.Time.After(now) {
			because(i, "from the future")
		} else {
			past = append(past, i)
		}
	}
	for n, i := range past[:min(max(p.KeepLast, 0), len(past))] {
		because(i, "last %d of %d", n+1, p.KeepLast)
	}
	slices.SortStableFunc(past, func(a, b int) int { return sorted[b].Time.Compare(sorted[a].Time) })
	for _, rule := range []struct {
		name   string
		count  int
		period func(time.Time) string
	}{
		{"daily", p.KeepDaily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{"weekly", p.KeepWeekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprintf("%d-W%02d", y, w) }},
		{"monthly", p.KeepMonthly, func(t time.Time) string { return t.Format("2006-01") }},
	} {
		for n, choice := range bestOfPeriods(sorted, past, rule.count, rule.period) {
			because(choice.index, "%s %d of %d (%s)", rule.name, n+1, rule.count, choice.period)
		}
	}

	decisions := make([]Decision, len(sorted))
	for i, r := range sorted {
		decisions[i] = Decision{ID: r.ID, Keep: len(reasons[i]) > 0, Reasons: reasons[i]}
		if !decisions[i].Keep {
			decisions[i].Reasons = []string{"no rule keeps it"}
		}
	}
	return decisions
}

type choice struct {
	period string
	index  int
}

// bestOfPeriods chooses one snapshot of each of the latest count periods. past
// holds indices of sorted, the latest T first.
func bestOfPeriods(sorted []Record, past []int, count int, period func(time.Time) string) []choice {
	var chosen []choice
	for _, i := range past {
		name := period(sorted[i].Time.UTC())
		if last := len(chosen) - 1; last >= 0 && chosen[last].period == name {
			if sorted[i].Complete && !sorted[chosen[last].index].Complete {
				chosen[last].index = i
			}
			continue
		}
		if len(chosen) >= count {
			break
		}
		chosen = append(chosen, choice{name, i})
	}
	return chosen
}

// NewestFirst compares by when the snapshots were published, then by the
// database's time, then by id; the later one comes first. T alone says nothing
// about what is visible: the active's clock may be set back.
func NewestFirst(a, b Record) int {
	return cmp.Or(b.Published.Compare(a.Published), b.Time.Compare(a.Time), strings.Compare(b.ID, a.ID))
}
