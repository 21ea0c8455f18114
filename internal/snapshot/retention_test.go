package snapshot

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC) // a Wednesday

// rec makes a record of the given time, "2006-01-02 15:04"; a leading "!" makes it incomplete.
func rec(t testing.TB, at string) Record {
	at, incomplete := strings.CutPrefix(at, "!")
	when, err := time.Parse("2006-01-02 15:04", at)
	if err != nil {
		t.Fatal(err)
	}
	return Record{ID: IDFor(when), Time: when, Published: when, Complete: !incomplete}
}

func TestRetention(t *testing.T) {
	week := []string{"2026-03-04 10:00", "2026-03-04 08:00", "2026-03-03 10:00", "2026-03-03 08:00", "2026-03-02 10:00", "2026-03-01 10:00", "2026-02-28 10:00", "2026-02-20 10:00", "2026-01-20 10:00"}
	for title, c := range map[string]struct {
		policy Policy
		have   []string
		keep   []int // indices of have
	}{
		"nothing there":                          {Policy{KeepLast: 1}, nil, nil},
		"empty policy":                           {Policy{}, week, []int{0, 1, 2, 3, 4, 5, 6, 7, 8}},
		"negative is empty":                      {Policy{KeepLast: -1, KeepDaily: -3}, week, []int{0, 1, 2, 3, 4, 5, 6, 7, 8}},
		"last":                                   {Policy{KeepLast: 3}, week, []int{0, 1, 2}},
		"last more than there are":               {Policy{KeepLast: 30}, week, []int{0, 1, 2, 3, 4, 5, 6, 7, 8}},
		"daily":                                  {Policy{KeepDaily: 3}, week, []int{0, 2, 4}},
		"weekly (Monday begins one)":             {Policy{KeepWeekly: 2}, week, []int{0, 5}},
		"monthly":                                {Policy{KeepMonthly: 2}, week, []int{0, 6}},
		"monthly, days without one do not count": {Policy{KeepMonthly: 3}, week, []int{0, 6, 8}},
		"union":                                  {Policy{KeepLast: 2, KeepDaily: 2, KeepMonthly: 3}, week, []int{0, 1, 2, 6, 8}},
		"newest complete stays":                  {Policy{KeepLast: 1}, []string{"!2026-03-04 10:00", "!2026-03-04 08:00", "2026-02-01 10:00", "2026-01-01 10:00"}, []int{0, 2}},
		"none complete":                          {Policy{KeepLast: 1}, []string{"!2026-03-04 10:00", "!2026-03-04 08:00"}, []int{0}},
		"complete is preferred in its day":       {Policy{KeepDaily: 2}, []string{"2026-03-04 10:00", "!2026-03-03 10:00", "2026-03-03 08:00", "2026-03-03 07:00"}, []int{0, 2}},
		"incomplete day":                         {Policy{KeepDaily: 2}, []string{"2026-03-04 10:00", "!2026-03-03 10:00", "!2026-03-03 08:00"}, []int{0, 1}},
		"from the future":                        {Policy{KeepLast: 1}, []string{"2026-03-05 10:00", "2026-03-04 10:00", "2026-03-03 10:00"}, []int{0, 1}},
		"the future takes no day":                {Policy{KeepDaily: 1}, []string{"2026-03-06 10:00", "2026-03-05 10:00", "2026-03-03 10:00", "2026-03-02 10:00"}, []int{0, 1, 2}},
		"days are UTC":                           {Policy{KeepDaily: 2}, []string{"2026-03-04 00:01", "2026-03-03 23:59"}, []int{0, 1}},
		"iso week over new year":                 {Policy{KeepWeekly: 2}, []string{"2026-01-01 10:00", "2025-12-30 10:00", "2025-12-28 10:00"}, []int{0, 2}},
	} {
		t.Run(title, func(t *testing.T) {
			var all []Record
			for _, at := range c.have {
				all = append(all, rec(t, at))
			}
			var want []string
			for _, i := range c.keep {
				want = append(want, all[i].ID)
			}
			got := assertDecisions(t, c.policy, all)
			if !slices.Equal(got, want) {
				t.Errorf("kept %q\nwant %q", got, want)
			}
		})
	}
}

// assertDecisions asserts what holds for every policy and returns the ids that stay.
func assertDecisions(t *testing.T, p Policy, all []Record) (kept []string) {
	t.Helper()
	shuffled := slices.Clone(all)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	before := slices.Clone(shuffled)
	decisions := Decide(p, shuffled, now)
	for i := range before {
		if before[i].ID != shuffled[i].ID {
			t.Error("the caller's slice was changed")
		}
	}
	ids := map[string]bool{}
	var removed string
	for _, d := range decisions {
		if ids[d.ID] {
			t.Errorf("%s is decided twice", d.ID)
		}
		ids[d.ID] = true
		if len(d.Reasons) == 0 {
			t.Errorf("%s has no reason", d.ID)
		}
		if d.Keep {
			kept = append(kept, d.ID)
		} else {
			removed += d.ID
		}
	}
	for _, r := range all {
		if !ids[r.ID] {
			t.Errorf("%s is not decided", r.ID)
		}
	}
	if len(decisions) != len(all) {
		t.Errorf("%d decisions about %d snapshots", len(decisions), len(all))
	}
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b Record) int {
		return cmp.Or(b.Published.Compare(a.Published), b.Time.Compare(a.Time), strings.Compare(b.ID, a.ID))
	})
	for i := range decisions {
		if i < len(sorted) && decisions[i].ID != sorted[i].ID {
			t.Errorf("decision %d is about %s, want %s: the order is that of publishing", i, decisions[i].ID, sorted[i].ID)
		}
	}
	if len(sorted) > 0 && strings.Contains(removed, sorted[0].ID) {
		t.Error("the visible snapshot goes")
	}
	for _, r := range sorted {
		if r.Complete {
			if strings.Contains(removed, r.ID) {
				t.Error("the newest complete one goes")
			}
			break
		}
	}
	if p.empty() && removed != "" {
		t.Error("an empty policy removes")
	}
	return kept
}

func TestRetentionInvariants(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		var all []Record
		for range r.IntN(60) {
			at := now.Add(-time.Duration(r.IntN(90*24*60)-60) * time.Minute)
			if id := IDFor(at); !slices.ContainsFunc(all, func(r Record) bool { return r.ID == id }) {
				published := at
				if seed%2 == 1 { // the active's clock went to and fro
					published = now.Add(-time.Duration(r.IntN(90*24*60)) * time.Minute)
				}
				all = append(all, Record{ID: id, Time: at, Published: published, Complete: r.IntN(3) > 0})
			}
		}
		p := Policy{r.IntN(5) - 1, r.IntN(9) - 1, r.IntN(5) - 1, r.IntN(4) - 1}
		kept := assertDecisions(t, p, all)
		// What stays stays when asked again about what stayed.
		var left []Record
		for _, r := range all {
			if slices.Contains(kept, r.ID) {
				left = append(left, r)
			}
		}
		if again := assertDecisions(t, p, left); !slices.Equal(kept, again) {
			t.Fatalf("seed %d, %+v: kept %q, then %q", seed, p, kept, again)
		}
	}
}

func TestRetentionReasons(t *testing.T) {
	d := Decide(Policy{KeepLast: 1, KeepDaily: 2}, []Record{rec(t, "2026-03-04 10:00"), rec(t, "2026-03-04 09:00"), rec(t, "2026-03-03 09:00")}, now)
	if got, want := fmt.Sprint(d), "[{20260304T100000Z true [the visible snapshot newest complete last 1 of 1 daily 1 of 2 (2026-03-04)]}"+
		" {20260304T090000Z false [no rule keeps it]} {20260303T090000Z true [daily 2 of 2 (2026-03-03)]}]"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestRetentionAfterTheClockWentBack: what was published last is what the host
// shows, wherever the active's clock put it.
func TestRetentionAfterTheClockWentBack(t *testing.T) {
	at := func(id, published string) Record {
		r := rec(t, id)
		r.Published = rec(t, published).Time
		return r
	}
	incomplete := func(r Record) Record { r.Complete = false; return r }
	// The active's clock was an hour ahead, then was set right.
	back := []Record{at("2026-03-04 11:00", "2026-03-04 11:50"), at("2026-03-04 11:55", "2026-03-04 11:40"), at("2026-03-04 11:40", "2026-03-04 11:25"), at("2026-03-04 11:20", "2026-03-04 11:10")}
	// It was years ahead.
	future := []Record{at("2026-03-04 11:00", "2026-03-04 11:50"), at("2036-03-04 11:55", "2026-03-04 11:40"), at("2036-03-04 11:40", "2026-03-04 11:25")}
	for title, c := range map[string]struct {
		policy Policy
		have   []Record // the last published one first
		keep   []int
	}{
		"last":                   {Policy{KeepLast: 1}, back, []int{0}},
		"last of several":        {Policy{KeepLast: 3}, back, []int{0, 1, 2}},
		"daily goes by T":        {Policy{KeepDaily: 1}, back, []int{0, 1}},
		"the future":             {Policy{KeepLast: 1}, future, []int{0, 1, 2}},
		"the future, daily":      {Policy{KeepDaily: 1}, future, []int{0, 1, 2}},
		"the visible incomplete": {Policy{KeepLast: 1}, append([]Record{incomplete(back[0])}, back[1:]...), []int{0, 1}},
	} {
		t.Run(title, func(t *testing.T) {
			var want []string
			for _, i := range c.keep {
				want = append(want, c.have[i].ID)
			}
			if got := assertDecisions(t, c.policy, c.have); !slices.Equal(got, want) {
				t.Errorf("kept %q\nwant %q", got, want)
			}
			d := Decide(c.policy, c.have, now)
			if d[0].ID != c.have[0].ID || d[0].Reasons[0] != "the visible snapshot" {
				t.Errorf("first decision %+v", d[0])
			}
		})
	}
}
