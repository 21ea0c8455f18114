package prune

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/hint"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// name returns the n-th blob name; names ascend with n.
func name(n int) blob.Sum { return blob.Sum(fmt.Sprintf("%040x", n)) }

func refs(numbers ...int) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) {
		for _, n := range numbers {
			if !yield(blob.Ref{Sum: name(n), Size: int64(n)}, nil) {
				return
			}
		}
	}
}

func upTo(n int) (all []int) {
	for i := 1; i <= n; i++ {
		all = append(all, i)
	}
	return all
}

// infos lists blobs that are age old.
func infos(age time.Duration, numbers ...int) iter.Seq2[filestore.Info, error] {
	return func(yield func(filestore.Info, error) bool) {
		for _, n := range numbers {
			if !yield(filestore.Info{Ref: blob.Ref{Sum: name(n), Size: int64(n)}, ModTime: now.Add(-age).Unix()}, nil) {
				return
			}
		}
	}
}

func then[T any](seq iter.Seq2[T, error], v T, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v, err := range seq {
			if !yield(v, err) {
				return
			}
		}
		yield(v, err)
	}
}

var lenient = Policy{MinAge: 24 * time.Hour, MaxFraction: 1, Quarantine: 7 * 24 * time.Hour}

const day = 24 * time.Hour

// decide runs Decide and asserts what holds for every plan: each blob of each
// place is decided about once, nothing named goes, the counts are those of the
// items, and items ascend.
func decide(t *testing.T, in Input) (*Plan, map[string]string, error) {
	t.Helper()
	in.Now, in.Spool = now, t.TempDir()
	all := map[string]string{}
	kept := map[string]Count{}
	named := map[blob.Sum]bool{}
	for _, k := range in.Kept {
		for r, err := range k.Refs {
			if err == nil {
				named[r.Sum] = true
			}
		}
	}
	places := map[string]bool{}
	for what, seq := range map[string]iter.Seq2[filestore.Info, error]{"s": in.Stored, "a": in.Quarantined} {
		if seq == nil {
			continue
		}
		for i, err := range seq {
			if err == nil {
				places[what+string(i.Sum)] = true
			}
		}
	}
	in.Explain = func(it Item) {
		where := "s"
		if it.InQuarantine {
			where = "a"
		}
		key := where + string(it.Ref.Sum)
		if all[key] != "" {
			t.Errorf("%s is decided twice", key)
		}
		if it.Reason == "" {
			t.Errorf("%s has no reason", key)
		}
		all[key] = fmt.Sprintf("%c %s", it.Action, it.Reason)
		if named[it.Ref.Sum] && it.Action != Keep && it.Action != Restore {
			t.Errorf("%s is named, and %v", it.Ref.Sum, it.Action)
		}
		if it.Action == Keep {
			c := kept[it.Reason]
			c.add(it.Ref.Size)
			kept[it.Reason] = c
		}
	}
	p, err := Decide(in)
	if left, _ := os.ReadDir(in.Spool); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
	if err != nil {
		if p != nil {
			t.Errorf("both a plan and %v", err)
		}
		return nil, all, err
	}
	t.Cleanup(func() { p.Close() })
	for key := range places {
		if all[key] == "" {
			t.Errorf("%s is not decided about", key)
		}
	}
	if len(all) != len(places) {
		t.Errorf("%d decisions about %d blobs", len(all), len(places))
	}
	if !maps.Equal(kept, p.Kept) {
		t.Errorf("kept %v, the plan says %v", kept, p.Kept)
	}
	for range 2 {
		var last blob.Sum
		counts := map[Action]Count{}
		for it, err := range p.Items() {
			if err != nil {
				t.Fatal(err)
			}
			if it.Ref.Sum < last || it.Reason == "" || it.Action == Keep {
				t.Errorf("item %+v after %s", it, last)
			}
			last = it.Ref.Sum
			c := counts[it.Action]
			c.add(it.Ref.Size)
			counts[it.Action] = c
		}
		if counts[Quarantine] != p.Quarantine || counts[Delete] != p.Delete || counts[Restore] != p.Restore || counts[Purge] != p.Purge {
			t.Errorf("items %v, the plan says %+v", counts, p)
		}
	}
	return p, all, nil
}

func TestDecide(t *testing.T) {
	wrongSize := func(yield func(filestore.Info, error) bool) {
		yield(filestore.Info{Ref: blob.Ref{Sum: name(3), Size: 99}, ModTime: now.Add(-90 * day).Unix()}, nil)
	}
	for title, c := range map[string]struct {
		in   Input
		want map[string]string
	}{
		"everything is named": {Input{Kept: []Names{{"a", refs(1, 2)}}, Stored: infos(90*day, 1, 2), Policy: lenient},
			map[string]string{"s1": "k " + ReasonNamed, "s2": "k " + ReasonNamed}},
		"named by any snapshot": {Input{Kept: []Names{{"a", refs(1, 2)}, {"b", refs(1, 3)}}, Stored: infos(90*day, 1, 2, 3, 4), Policy: lenient},
			map[string]string{"s1": "k " + ReasonNamed, "s2": "k " + ReasonNamed, "s3": "k " + ReasonNamed, "s4": "q " + ReasonUnnamed}},
		"first, middle and last": {Input{Kept: []Names{{"a", refs(2, 4)}}, Stored: infos(90*day, 1, 2, 3, 4, 5), Policy: lenient},
			map[string]string{"s1": "q " + ReasonUnnamed, "s2": "k " + ReasonNamed, "s3": "q " + ReasonUnnamed, "s4": "k " + ReasonNamed, "s5": "q " + ReasonUnnamed}},
		"a second too young": {Input{Kept: []Names{{"a", refs(1)}}, Stored: infos(day-time.Second, 2), Policy: lenient}, map[string]string{"s2": "k " + ReasonYoung}},
		"just old enough":    {Input{Kept: []Names{{"a", refs(1)}}, Stored: infos(day, 2), Policy: lenient}, map[string]string{"s2": "q " + ReasonUnnamed}},
		"from the future": {Input{Kept: []Names{{"a", refs(1)}}, Stored: infos(-time.Hour, 2), Policy: Policy{MaxFraction: 1, Quarantine: day}},
			map[string]string{"s2": "k " + ReasonYoung}},
		"at once": {Input{Kept: []Names{{"a", refs(1)}}, Stored: infos(90*day, 1, 2), Quarantined: infos(0, 3), Policy: Policy{MaxFraction: 1, DeleteAtOnce: true}},
			map[string]string{"s1": "k " + ReasonNamed, "s2": "d " + ReasonUnnamed, "a3": "p " + ReasonQuarantined}},
		"quarantine": {Input{Kept: []Names{{"a", refs(1, 2, 3, 4)}}, Stored: infos(90*day, 1, 2), Quarantined: infos(7*day, 2, 3, 9), Policy: lenient},
			map[string]string{"s1": "k " + ReasonNamed, "s2": "k " + ReasonNamed, "a2": "k " + ReasonDuplicate, "a3": "r " + ReasonNeeded, "a9": "p " + ReasonQuarantined}},
		"quarantine not over": {Input{Kept: []Names{{"a", refs(1)}}, Stored: infos(90*day, 1), Quarantined: infos(7*day-time.Second, 3), Policy: lenient},
			map[string]string{"s1": "k " + ReasonNamed, "a3": "k " + ReasonRecent}},
		"an old copy in quarantine does not drag the new one along": {Input{Kept: []Names{{"a", refs(1)}}, Stored: infos(90*day, 3), Quarantined: infos(90*day, 3), Policy: lenient},
			map[string]string{"s3": "q " + ReasonUnnamed, "a3": "k " + ReasonReplaced}},
		"the store's copy has the wrong length": {Input{Kept: []Names{{"a", refs(3)}}, Stored: wrongSize, Quarantined: infos(90*day, 3), Policy: lenient},
			map[string]string{"s3": "k " + ReasonNamed, "a3": "r " + ReasonNeeded}},
		"malformed names": {Input{Kept: []Names{{"a", refs(1)}}, Policy: lenient,
			Stored: then(infos(90*day, 1), filestore.Info{Ref: blob.Ref{Sum: "~/x"}}, nil), Quarantined: then(infos(90*day), filestore.Info{Ref: blob.Ref{Sum: "ABC"}}, nil)},
			map[string]string{"s1": "k " + ReasonNamed, "s~/x": "k " + ReasonMalformed, "aABC": "k " + ReasonMalformed}},
		"an empty store": {Input{Kept: []Names{{"a", refs(1)}}, Stored: infos(0), Policy: lenient}, map[string]string{}},
	} {
		t.Run(title, func(t *testing.T) {
			_, all, err := decide(t, c.in)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for k, v := range all {
				if n := strings.TrimLeft(k[1:], "0"); blob.Sum(k[1:]).Valid() {
					k = k[:1] + n
				}
				got[k] = v
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
}

func TestGuards(t *testing.T) {
	broken := errors.New("broken")
	full := infos(90*day, upTo(100)...)
	base := func(change func(*Input)) Input {
		in := Input{Kept: []Names{{"new", refs(upTo(90)...)}, {"old", refs(upTo(95)...)}}, Stored: full, Policy: lenient}
		change(&in)
		return in
	}
	if _, _, err := decide(t, base(func(*Input) {})); err != nil {
		t.Fatal(err)
	}
	for title, c := range map[string]struct {
		in    Input
		cause error
		hint  bool
	}{
		"no snapshot":            {base(func(in *Input) { in.Kept = nil }), nil, true},
		"newest list empty":      {base(func(in *Input) { in.Kept[0].Refs = refs() }), nil, true},
		"an older list empty":    {base(func(in *Input) { in.Kept[1].Refs = refs() }), nil, true},
		"empty, one old blob":    {Input{Kept: []Names{{"new", refs()}}, Stored: infos(90*day, 1), Policy: lenient}, nil, true},
		"empty, one to purge":    {Input{Kept: []Names{{"new", refs()}}, Stored: infos(0), Quarantined: infos(90*day, 1), Policy: lenient}, nil, true},
		"empty after a full one": {Input{Kept: []Names{{"new", refs()}}, PreviousNamed: 100, Stored: infos(0, 1), Policy: lenient}, nil, true},
		"list unreadable":        {base(func(in *Input) { in.Kept[1].Refs = then(refs(1, 2), blob.Ref{}, broken) }), broken, true},
		"list ends in an error":  {base(func(in *Input) { in.Kept[0].Refs = then(refs(upTo(90)...), blob.Ref{}, broken) }), broken, true},
		"list unreadable at all": {base(func(in *Input) { in.Kept[0].Refs = then(refs(), blob.Ref{}, broken) }), broken, true},
		"list not ascending":     {base(func(in *Input) { in.Kept[0].Refs = refs(append(upTo(90), 7)...) }), nil, true},
		"list with a duplicate":  {base(func(in *Input) { in.Kept[0].Refs = refs(append(upTo(90), 90)...) }), nil, true},
		"list malformed":         {base(func(in *Input) { in.Kept[0].Refs = then(refs(1), blob.Ref{Sum: "x"}, nil) }), nil, false},
		"newest list halved":     {base(func(in *Input) { in.Kept[0].Refs = refs(upTo(47)...) }), nil, true},
		"shrunk against one not kept": {base(func(in *Input) {
			in.Kept = in.Kept[:1]
			in.PreviousNamed = 181
		}), nil, true},
		"shrunk by policy":          {base(func(in *Input) { in.Policy.MinShare = 0.99 }), nil, true},
		"store unreadable":          {base(func(in *Input) { in.Stored = then(full, filestore.Info{}, broken) }), broken, false},
		"store not ascending":       {base(func(in *Input) { in.Stored = infos(0, 2, 1) }), nil, false},
		"quarantine unreadable":     {base(func(in *Input) { in.Quarantined = then(infos(0), filestore.Info{}, broken) }), broken, false},
		"too many":                  {base(func(in *Input) { in.Policy.MaxFraction = 0.0499 }), nil, true},
		"zero fraction":             {base(func(in *Input) { in.Policy.MaxFraction = 0 }), nil, true},
		"zero policy":               {base(func(in *Input) { in.Policy = Policy{} }), nil, true},
		"no quarantine":             {base(func(in *Input) { in.Policy.Quarantine = 0 }), nil, true},
		"quarantine and at once":    {base(func(in *Input) { in.Policy.DeleteAtOnce = true }), nil, false},
		"fraction above one":        {base(func(in *Input) { in.Policy.MaxFraction = 5 }), nil, false},
		"share above one":           {base(func(in *Input) { in.Policy.MinShare = 50 }), nil, false},
		"fraction is not a number":  {base(func(in *Input) { in.Policy.MaxFraction = nan() }), nil, false},
		"negative age":              {base(func(in *Input) { in.Policy.MinAge = -1 }), nil, false},
		"negative quarantine":       {base(func(in *Input) { in.Policy.Quarantine = -1 }), nil, false},
		"deleting too many at once": {base(func(in *Input) { in.Policy = Policy{MaxFraction: 0.01, DeleteAtOnce: true} }), nil, true},
	} {
		t.Run(title, func(t *testing.T) {
			_, _, err := decide(t, c.in)
			if !errors.Is(err, ErrRefused) || c.cause != nil && !errors.Is(err, c.cause) {
				t.Fatalf("%v", err)
			}
			if got := hint.Of(err) != ""; got != c.hint {
				t.Errorf("hint %q", hint.Of(err))
			}
		})
	}
	for title, in := range map[string]Input{
		"exactly the fraction": base(func(in *Input) { in.Policy.MaxFraction = 0.05 }),
		"exactly half":         base(func(in *Input) { in.Kept[0].Refs = refs(upTo(48)...) }),
		"nothing to go, none allowed": base(func(in *Input) {
			in.Policy.MaxFraction = 0
			in.Kept[1].Refs = refs(upTo(100)...)
		}),
		// A healthy instance that has no blobs yet.
		"no blobs anywhere":                {Kept: []Names{{"new", refs()}, {"old", refs()}}, Stored: infos(0), Quarantined: infos(0), Policy: lenient},
		"no blobs, no quarantine":          {Kept: []Names{{"new", refs()}}, Stored: infos(0), Policy: Policy{DeleteAtOnce: true}},
		"the first blobs":                  {Kept: []Names{{"new", refs(1, 2)}, {"old", refs()}}, Stored: infos(90*day, 1, 2), Policy: lenient},
		"no name, and the blobs are young": {Kept: []Names{{"new", refs()}}, Stored: infos(0, 1, 2), Policy: lenient},
		"no name, and the quarantine is":   {Kept: []Names{{"new", refs()}}, Stored: infos(0), Quarantined: infos(0, 1), Policy: lenient},
		"all gone on both sides":           {Kept: []Names{{"new", refs()}}, PreviousNamed: 100, Stored: infos(0), Quarantined: infos(0), Policy: lenient},
	} {
		if _, _, err := decide(t, in); err != nil {
			t.Errorf("%s: %v", title, err)
		}
	}
}

func nan() float64 { z := 0.0; return z / z }

// Random stores against the rules written down once more, naively.
func TestDecideAgainstAModel(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		pick := func(p float64) (some []int) {
			for i := 1; i <= 60; i++ {
				if r.Float64() < p {
					some = append(some, i)
				}
			}
			return append(some, 61)
		}
		lists := [][]int{pick(0.6), pick(0.6), pick(0.2)}
		stored, aside := pick(0.7), pick(0.3)
		storeAge, asideAge := time.Duration(r.IntN(3))*day, time.Duration(r.IntN(10))*day
		in := Input{Stored: infos(storeAge, stored...), Quarantined: infos(asideAge, aside...), Policy: lenient}
		in.Policy.MinShare = 0.01
		for i, l := range lists {
			in.Kept = append(in.Kept, Names{fmt.Sprint(i), refs(l...)})
		}
		_, all, err := decide(t, in)
		if err != nil {
			t.Fatal(err)
		}
		named := func(n int) bool {
			return slices.ContainsFunc(lists, func(l []int) bool { return slices.Contains(l, n) })
		}
		for _, n := range stored {
			want := "k"
			if !named(n) && storeAge >= lenient.MinAge {
				want = "q"
			}
			if got := all["s"+string(name(n))]; got[:1] != want {
				t.Fatalf("seed %d: stored %d: %s, want %s", seed, n, got, want)
			}
		}
		for _, n := range aside {
			inStore := slices.Contains(stored, n)
			want := "k"
			switch {
			case named(n) && !inStore:
				want = "r"
			case !named(n) && asideAge >= lenient.Quarantine && !(inStore && storeAge >= lenient.MinAge):
				want = "p"
			}
			if got := all["a"+string(name(n))]; got[:1] != want {
				t.Fatalf("seed %d: in quarantine %d: %s, want %s", seed, n, got, want)
			}
		}
	}
}

// Both lengths of names stand in one order.
func TestBothHashes(t *testing.T) {
	long := blob.Sum(strings.Repeat("0", 39) + "2" + strings.Repeat("0", 24))
	seq := func(yield func(filestore.Info, error) bool) {
		for _, s := range []blob.Sum{name(1), name(2), long, name(3)} {
			if !yield(filestore.Info{Ref: blob.Ref{Sum: s}}, nil) {
				return
			}
		}
	}
	_, all, err := decide(t, Input{Kept: []Names{{"a", refs(1, 2, 3)}}, Stored: seq, Policy: lenient})
	if err != nil || all["s"+string(long)] != "q "+ReasonUnnamed {
		t.Fatal(all, err)
	}
}

func BenchmarkDecide(b *testing.B) {
	const n = 100_000
	numbers := upTo(n)
	for b.Loop() {
		in := Input{Now: now, Spool: b.TempDir(), Policy: lenient, Stored: infos(90*day, numbers...)}
		for i := range 7 {
			in.Kept = append(in.Kept, Names{fmt.Sprint(i), refs(numbers[i:]...)})
		}
		p, err := Decide(in)
		if err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
	b.ReportMetric(n*8*float64(b.N)/b.Elapsed().Seconds(), "names/s")
}

// memory is a store that fails at its n-th call.
type memory struct {
	stored, aside map[blob.Sum]int64
	calls, failAt int
	err           error
}

var _ Store = (*memory)(nil)

func (m *memory) fault() error {
	m.calls++
	if m.calls == m.failAt {
		return m.err
	}
	return nil
}

func (m *memory) Stat(_ context.Context, s blob.Sum) (int64, error) {
	if err := m.fault(); err != nil {
		return 0, err
	}
	if n, ok := m.stored[s]; ok {
		return n, nil
	}
	return 0, filestore.ErrNotFound
}

func move(from, to map[blob.Sum]int64, s blob.Sum) error {
	n, ok := from[s]
	if !ok {
		return filestore.ErrNotFound
	}
	delete(from, s)
	if to != nil {
		to[s] = n
	}
	return nil
}

func (m *memory) Delete(_ context.Context, s blob.Sum) error {
	return errors.Join(m.fault(), move(m.stored, nil, s))
}
func (m *memory) Quarantine(_ context.Context, s blob.Sum) error {
	if err := m.fault(); err != nil {
		return err
	}
	return move(m.stored, m.aside, s)
}
func (m *memory) Restore(_ context.Context, r blob.Ref) error {
	if err := m.fault(); err != nil {
		return err
	}
	return move(m.aside, m.stored, r.Sum)
}
func (m *memory) Purge(_ context.Context, s blob.Sum) error {
	if err := m.fault(); err != nil {
		return err
	}
	return move(m.aside, nil, s)
}
func (m *memory) Quarantined(context.Context) iter.Seq2[filestore.Info, error] { return nil }

func newMemory(stored, aside []int) *memory {
	m := &memory{stored: map[blob.Sum]int64{}, aside: map[blob.Sum]int64{}}
	for _, n := range stored {
		m.stored[name(n)] = int64(n)
	}
	for _, n := range aside {
		m.aside[name(n)] = int64(n)
	}
	return m
}

func doPlan(t *testing.T) (*Plan, []int, []int) {
	t.Helper()
	stored, aside := upTo(20), []int{21, 22, 30, 31}
	p, _, err := decide(t, Input{Kept: []Names{{"a", refs(append(upTo(17), 21, 22)...)}}, Policy: lenient,
		Stored: infos(90*day, stored...), Quarantined: infos(90*day, aside...)})
	if err != nil {
		t.Fatal(err)
	}
	return p, stored, aside
}

func TestDo(t *testing.T) {
	p, stored, aside := doPlan(t)
	m := newMemory(stored, aside)
	r, err := Do(t.Context(), p, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Restored != (Count{2, 43}) || r.Quarantined != (Count{3, 57}) || r.Purged != (Count{2, 61}) || r.Skipped.Blobs != 0 {
		t.Fatalf("%+v", r)
	}
	want := newMemory(append(upTo(17), 21, 22), []int{18, 19, 20})
	if !maps.Equal(m.stored, want.stored) || !maps.Equal(m.aside, want.aside) {
		t.Fatalf("%v", m)
	}
	// Once more: everything is done already, and a second purge must not reach what was just quarantined.
	r, err = Do(t.Context(), p, m, nil)
	if err != nil || r.Skipped.Blobs != 7 || !maps.Equal(m.stored, want.stored) || !maps.Equal(m.aside, want.aside) {
		t.Fatalf("%+v %v %v", r, err, m)
	}
}

// Whatever call fails, nothing named is gone, nothing is removed before all is
// restored, and a second run finishes.
func TestDoFailingAtEveryCall(t *testing.T) {
	broken := errors.New("broken")
	want := newMemory(append(upTo(17), 21, 22), []int{18, 19, 20})
	for n := 1; ; n++ {
		p, stored, aside := doPlan(t)
		m := newMemory(stored, aside)
		m.failAt, m.err = n, broken
		r, err := Do(t.Context(), p, m, nil)
		for _, i := range append(upTo(17), 21, 22) {
			_, a := m.stored[name(i)]
			_, b := m.aside[name(i)]
			if !a && !b {
				t.Fatalf("call %d: %d is lost", n, i)
			}
		}
		if r.Restored.Blobs < 2 && (r.Quarantined.Blobs != 0 || r.Purged.Blobs != 0) {
			t.Fatalf("call %d: removed before all was restored: %+v", n, r)
		}
		if m.calls < n {
			if err != nil {
				t.Fatal(err)
			}
			if n < 10 {
				t.Fatalf("only %d calls", n)
			}
			return
		}
		if !errors.Is(err, broken) {
			t.Fatalf("call %d: %v", n, err)
		}
		if _, err := Do(t.Context(), p, m, nil); err != nil {
			t.Fatalf("call %d, again: %v", n, err)
		}
		if !maps.Equal(m.stored, want.stored) || !maps.Equal(m.aside, want.aside) {
			t.Fatalf("call %d: %v", n, m)
		}
	}
}

func TestDoLooksAgain(t *testing.T) {
	p, stored, aside := doPlan(t)
	m := newMemory(stored, aside)
	delete(m.stored, name(18))
	m.stored[name(19)] = 4711
	r, err := Do(t.Context(), p, m, nil)
	if err != nil || r.Quarantined.Blobs != 1 || r.Skipped.Blobs != 2 || m.stored[name(19)] != 4711 {
		t.Fatalf("%+v %v", r, err)
	}
}

func TestDoDeletesAtOnce(t *testing.T) {
	p, _, err := decide(t, Input{Kept: []Names{{"a", refs(1)}}, Stored: infos(90*day, 1, 2), Policy: Policy{MaxFraction: 0.5, DeleteAtOnce: true}})
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory([]int{1, 2}, nil)
	r, err := Do(t.Context(), p, m, nil)
	if err != nil || r.Deleted != (Count{1, 2}) || len(m.stored) != 1 || len(m.aside) != 0 {
		t.Fatalf("%+v %v", r, err)
	}
}

func TestDoObeysCancel(t *testing.T) {
	p, stored, aside := doPlan(t)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	m := newMemory(stored, aside)
	if _, err := Do(ctx, p, m, nil); !errors.Is(err, why) || m.calls != 0 {
		t.Fatal(err)
	}
}

// A plan that was closed, or whose file was damaged, is an error and not a shorter plan.
func TestDamagedPlan(t *testing.T) {
	p, stored, aside := doPlan(t)
	if _, err := p.file.WriteAt([]byte("z"), 0); err != nil {
		t.Fatal(err)
	}
	m := newMemory(stored, aside)
	if _, err := Do(t.Context(), p, m, nil); err == nil || m.calls != 0 {
		t.Fatal(err)
	}
	p, _, _ = doPlan(t)
	p.Close()
	if _, err := Do(t.Context(), p, m, nil); err == nil {
		t.Fatal("no error")
	}
}

func TestSumsAscendWithNumbers(t *testing.T) {
	s := sha1.Sum(nil)
	if !name(1).Valid() || name(9) >= name(10) || !blob.Of(s[:]).Valid() {
		t.Fatal()
	}
}
