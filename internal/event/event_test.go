package event

import (
	"sync"
	"testing"
	"time"
)

func TestNilSinkDropsEverything(t *testing.T) {
	Sink(nil).Emit(Event{Kind: Info})
	Tee().Emit(Event{Kind: Info})
	Tee(nil, nil).Emit(Event{Kind: Info})
}

func TestEmitStampsOnce(t *testing.T) {
	var got []Event
	sink := Sink(func(e Event) { got = append(got, e) })
	before := time.Now()
	sink.Emit(Event{Kind: Info, Text: "a"})
	at := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	sink.Emit(Event{Kind: Info, Text: "b", Time: at})
	if len(got) != 2 || got[0].Time.Before(before) || got[0].Time.After(time.Now()) || !got[1].Time.Equal(at) {
		t.Fatalf("%+v", got)
	}
}

func TestTeeKeepsOrderAndTime(t *testing.T) {
	var order []string
	var times []time.Time
	note := func(name string) Sink {
		return func(e Event) { order = append(order, name+e.Text); times = append(times, e.Time) }
	}
	tee := Tee(note("a"), nil, note("b"))
	tee.Emit(Event{Kind: Info, Text: "1"})
	tee.Emit(Event{Kind: Info, Text: "2"})
	if len(order) != 4 || order[0] != "a1" || order[1] != "b1" || order[2] != "a2" || order[3] != "b2" {
		t.Fatal(order)
	}
	if !times[0].Equal(times[1]) {
		t.Error("the sinks of one tee see one time")
	}
}

func TestSinksAreCalledConcurrently(t *testing.T) {
	var mu sync.Mutex
	n := 0
	tee := Tee(func(Event) { mu.Lock(); n++; mu.Unlock() })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				tee.Emit(Event{Kind: Progress})
			}
		})
	}
	wg.Wait()
	if n != 800 {
		t.Fatal(n)
	}
}
