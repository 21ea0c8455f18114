package program

import (
	"context"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/rsyncx"
)

// maxAwaited is how many lines wait for sums at a time.
const maxAwaited = 512

// sumTeller asks the source for the sums of the escape %C, and shows everything
// in the order in which it happened. It has a goroutine of its own, so that the
// engine goes on meanwhile; its questions need one connection beside the engine's.
type sumTeller struct {
	*run
	source rsyncx.Source
	events chan event.Event
}

// tellSums starts a sumTeller if a line has sums. What it returns ends it.
func (r *run) tellSums(ctx context.Context, source rsyncx.Source) (end func()) {
	if !r.c.ShowsSums() {
		return func() {}
	}
	s := &sumTeller{run: r, source: source, events: make(chan event.Event, maxAwaited)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range s.events {
			s.show(ctx, s.more(e))
		}
	}()
	r.sums = s
	return func() {
		close(s.events)
		<-ended
		r.sums = nil
	}
}

// more returns what has happened since first.
func (s *sumTeller) more(first event.Event) []event.Event {
	all := []event.Event{first}
	for len(all) < maxAwaited {
		select {
		case e, ok := <-s.events:
			if !ok {
				return all
			}
			all = append(all, e)
		default:
			return all
		}
	}
	return all
}

// show completes events by their sums. One that is not known stays empty.
func (s *sumTeller) show(ctx context.Context, all []event.Event) {
	var asked []int
	for i := range all {
		if _, told := s.c.SumOf(&all[i]); told {
			asked = append(asked, i)
		}
	}
	want := func(yield func(rsyncx.SumWant) bool) {
		for _, i := range asked {
			kind, _ := s.c.SumOf(&all[i])
			if !yield(rsyncx.SumWant{Path: all[i].Name, Size: all[i].Entry.Size, Kind: kind}) {
				return
			}
		}
	}
	if len(asked) > 0 {
		n := 0
		for f, err := range s.source.Sums(ctx, want) {
			if err != nil || n == len(asked) {
				break
			}
			e := &all[asked[n]]
			n++
			// One that has changed since is another file than the line is about.
			if kind, _ := s.c.SumOf(e); f.Err == nil && f.Entry.Size == e.Entry.Size && modified(&f.Entry).Equal(e.Entry.Mtime) {
				e.Entry.Sum = string(f.Of(kind))
			}
		}
	}
	for _, e := range all {
		s.run.show(e)
	}
}

func modified(e *rsyncx.Entry) time.Time { return time.Unix(e.Mtime.Sec, int64(e.Mtime.Nsec)) }
