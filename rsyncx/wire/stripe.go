package wire

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

const (
	// maxLanes is over how many connections one request is spread. A channel of SSH
	// carries what its window of 2 MiB lets through in a round trip: eight of them
	// are 160 MB/s at 100 ms.
	maxLanes = 8
	// laneTrip is the round trip at which one more lane is worth its process on
	// the active: with less, the window does not hold a lane back.
	laneTrip = 2 * time.Millisecond

	partBytes  = 1 << 20 // of a large file, that travel over one lane
	partRanges = 1024    // that travel over one lane
	groupBytes = 512 << 10
	groupFiles = 256
	unitCost   = 512      // bytes, of a question without its content
	unknown    = 16 << 10 // bytes, of a file of unknown length
	// laneOpen is how much may be asked of a lane, in bytes: what is on its way, and
	// as much again to keep it busy for a round trip. Above laneBusy another lane is worth opening.
	laneOpen = 6 << 20
	laneBusy = 1 << 20
)

// lanesFor returns how many lanes are of use at such a distance.
func lanesFor(trip time.Duration) int {
	return int(min(max((trip+laneTrip-1)/laneTrip, 1), maxLanes))
}

// stripes spreads the questions of one request over lanes and gives the answers
// in order. One goroutine draws the questions; each lane has one that sends
// and one that receives; the consumer's own takes the answers. Each lane answers in order and
// holds a bounded part, and the oldest answer is always at the front of its lane, so nobody waits in a circle.
type stripes struct {
	tree  Tree
	sums  bool
	most  int                           // lanes
	claim func() *Conn                  // another connection, or nil for now; nil with one lane
	grow  func(n int, ready func())     // asks for n more connections in a while
	give  func(*Conn)                   // takes connections back; may be nil
	begin func(*Conn) func(error) error // starts a request on a connection

	order chan *unit
	quit  chan struct{} // closed by fail
	all   sync.WaitGroup

	mu    sync.Mutex
	freed sync.Cond // a lane came, or has less to do
	lanes []*lane
	err   error // why the request failed, set before quit is closed
}

// dropped says that nobody wants the rest of a file.
type dropped struct{ atomic.Bool }

func newStripes(tree Tree, sums bool) *stripes {
	s := &stripes{tree: tree, sums: sums, most: 1, order: make(chan *unit, window), quit: make(chan struct{}),
		begin: func(*Conn) func(error) error { return func(err error) error { return err } }}
	s.freed.L = &s.mu
	return s
}

// fail ends the request for everyone who has a part in it. The first error counts.
func (s *stripes) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	close(s.quit)
	for _, l := range s.lanes {
		l.queue.fail(err)
		l.conn.link.kill(err)
	}
	s.freed.Broadcast()
}

func (s *stripes) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// add begins the request on another connection.
func (s *stripes) add(c *Conn) {
	l := newLane(c, s.sums, s.quit, nil)
	l.done = func(u *unit) { s.less(l, u.cost) }
	end := s.begin(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		l.queue.fail(s.err)
		c.link.kill(s.err)
	}
	s.lanes = append(s.lanes, l)
	s.freed.Broadcast()
	s.all.Go(func() {
		kind := byte(frameRead)
		if s.sums {
			kind = frameSums
		}
		err := c.ask(kind, appendTree(nil, s.tree))
		var sender sync.WaitGroup
		if err == nil {
			sender.Go(l.send)
			err = l.receive()
		}
		if err != nil {
			c.link.kill(err) // also after an error of the agent: questions may be on their way to it
			s.fail(err)
		}
		sender.Wait()
		_ = end(err)
		if s.give != nil {
			s.give(c)
		}
	})
}

func (s *stripes) less(l *lane, cost int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.load -= cost
	s.freed.Broadcast()
}

// finish says that there are no more questions.
func (s *stripes) finish() {
	s.mu.Lock()
	lanes := s.lanes
	s.mu.Unlock()
	for _, l := range lanes {
		l.end()
	}
	close(s.order)
}

// group keeps neighbours on one lane, where they are found in one directory.
type group struct {
	lane  *lane
	bytes int64
	files int
}

// assign puts a question on the lane that has least to do. False says that the request has failed.
func (s *stripes) assign(u *unit, g *group) bool {
	if u.err == nil {
		s.mu.Lock()
		for s.err == nil && !s.place(u, g) {
			s.freed.Wait()
		}
		failed := s.err != nil
		s.mu.Unlock()
		if failed {
			return false
		}
	}
	select {
	case s.order <- u:
	case <-s.quit:
		return false
	}
	if u.lane != nil {
		u.lane.ask(u)
	}
	return true
}

// place chooses a lane for u. False says that all have enough to do.
func (s *stripes) place(u *unit, g *group) bool {
	if g.lane != nil && g.bytes < groupBytes && g.files < groupFiles && g.lane.load < laneOpen {
		u.lane = g.lane
	} else {
		if s.claim != nil && s.least().load >= laneBusy && len(s.lanes) < s.most {
			s.more()
		}
		least := s.least()
		if least.load >= laneOpen {
			return false
		}
		u.lane = least
		*g = group{lane: least}
	}
	u.lane.load += u.cost
	g.bytes += u.cost
	g.files++
	return true
}

func (s *stripes) least() *lane {
	best := s.lanes[0]
	for _, l := range s.lanes[1:] {
		if l.load < best.load {
			best = l
		}
	}
	return best
}

// more takes another connection if there is one, and asks for as many as are missing.
func (s *stripes) more() {
	for len(s.lanes) < s.most {
		c := s.claim()
		if c == nil {
			s.grow(s.most-len(s.lanes), func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.freed.Broadcast()
			})
			return
		}
		s.mu.Unlock()
		s.add(c)
		s.mu.Lock()
		if s.least().load < laneBusy {
			return
		}
	}
}

// run draws the questions that ask gives in a goroutine of its own, and hands
// the answers to take. It returns when everything has ended.
func (s *stripes) run(ctx context.Context, ask func(), take func() error) error {
	stop := context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })
	s.all.Go(func() {
		defer s.finish()
		ask()
	})
	err := take()
	if err != nil {
		s.fail(err)
	}
	s.all.Wait()
	cancelled := !stop()
	switch {
	case errors.Is(err, errStopped): // nothing may be yielded any more
		return err
	case cancelled:
		return context.Cause(ctx)
	}
	return s.failed()
}

// next returns the next question in order. False says that there are no more.
func (s *stripes) next() (*unit, bool, error) {
	select {
	case u, ok := <-s.order:
		if !ok {
			return nil, false, s.failed()
		}
		return u, true, nil
	case <-s.quit:
		return nil, false, s.failed()
	}
}

// cut turns a want into units. False says that the request has failed.
func (s *stripes) cut(w rsyncx.Want, g *group) bool {
	u := unit{question: question{path: w.Path}, err: checkPath(w.Path), first: true, last: true, cost: unitCost}
	if u.err == nil && !validRanges(w.Ranges) {
		u.err = &rsyncx.PathError{Path: w.Path, Err: fmt.Errorf("internal error: ranges that do not ascend")}
	}
	switch {
	case u.err != nil:
		return s.assign(&u, g)
	case w.Ranges != nil:
		return s.cutRanges(u, w.Ranges, g)
	case w.Size < 2*partBytes || s.most < 2:
		if u.cost += w.Size; w.Size < 0 {
			u.cost = unitCost + unknown
		}
		return s.assign(&u, g)
	}
	u.drop = &dropped{}
	for off := int64(0); ; off += partBytes {
		part := u
		part.kind, part.part = kindPart, rsyncx.Range{Off: off, Len: partBytes}
		part.cost += partBytes
		part.first = off == 0
		if part.last = off+2*partBytes > w.Size || u.drop.Load(); part.last {
			part.part.Len = 0 // it may have grown
			part.cost = unitCost + max(0, w.Size-off)
		}
		if u.drop.Load() {
			part.err = errStopped // nobody asks for it
		}
		if !s.assign(&part, &group{}) {
			return false
		}
		if part.last {
			return true
		}
	}
}

// cutRanges cuts the parts of a file that are wanted.
func (s *stripes) cutRanges(u unit, ranges []rsyncx.Range, g *group) bool {
	u.kind, u.drop = kindRanges, &dropped{}
	ranges = slices.Clone(ranges)
	for {
		part := u
		part.ranges = make([]rsyncx.Range, 0, min(len(ranges), partRanges))
		room := int64(partBytes)
		if s.most < 2 {
			room = 1 << 62
		}
		for len(ranges) > 0 && room > 0 && len(part.ranges) < partRanges {
			r := ranges[0]
			if r.Len > room+partBytes/2 {
				ranges[0] = rsyncx.Range{Off: r.Off + room, Len: r.Len - room}
				r.Len = room
			} else {
				ranges = ranges[1:]
			}
			room -= r.Len
			part.cost += r.Len
			part.ranges = append(part.ranges, r)
		}
		part.last = len(ranges) == 0 || u.drop.Load()
		if u.drop.Load() {
			part.err = errStopped
		}
		if !s.assign(&part, g) {
			return false
		}
		if part.last {
			return true
		}
		u.first = false
	}
}

// read is Source.Read over the lanes.
func (s *stripes) read(ctx context.Context, want iter.Seq[rsyncx.Want], yield func(rsyncx.File, error) bool) error {
	ask := func() {
		g := &group{}
		for w := range want {
			if !s.cut(w, g) {
				return
			}
		}
	}
	return s.run(ctx, ask, func() error {
		for {
			u, more, err := s.next()
			if err != nil || !more {
				return err
			}
			if ctx.Err() != nil { // what is left may all have arrived already
				return context.Cause(ctx)
			}
			if err := s.file(u, yield); err != nil {
				return err
			}
		}
	})
}

// readSums is Source.Sums over the lanes.
func (s *stripes) readSums(ctx context.Context, want iter.Seq[rsyncx.SumWant], yield func(rsyncx.FileSums, error) bool) error {
	ask := func() {
		g := &group{}
		for w := range want {
			if !s.assign(sumUnit(&w), g) {
				return
			}
		}
	}
	return s.run(ctx, ask, func() error {
		for {
			u, more, err := s.next()
			if err != nil || !more {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			f := &rsyncx.FileSums{Path: u.path, Err: u.err}
			if u.err == nil {
				p, err := u.lane.pop()
				if err != nil {
					return err
				}
				if f.Err = p.err; p.kind == pieceSums {
					f = p.sums
				}
			}
			if !yield(*f, nil) {
				return errStopped
			}
		}
	})
}

// sumUnit makes the question for w. Reading costs little next to sending.
func sumUnit(w *rsyncx.SumWant) *unit {
	u := &unit{question: question{path: w.Path, block: w.Block, weak: w.Weak, sum: w.Kind}, err: checkPath(w.Path), first: true, last: true}
	if w.Kind != rsyncx.SumXXH128 && (w.Ranges != nil || !w.Kind.Known()) {
		u.err = &rsyncx.PathError{Path: w.Path, Err: fmt.Errorf("internal error: a question for sums that has no answer")}
	}
	if w.Ranges != nil {
		u.kind, u.ranges = kindRanges, w.Ranges
	}
	switch {
	case u.err != nil:
	case w.Block < 0 || w.Block == 0 && (w.Weak || w.Ranges != nil) || !validRanges(w.Ranges):
		u.err = &rsyncx.PathError{Path: w.Path, Err: fmt.Errorf("internal error: a question for sums that has no answer")}
	case len(w.Ranges) > maxRanges:
		u.err = &rsyncx.PathError{Path: w.Path, Err: fmt.Errorf("sums of %d ranges: %w", len(w.Ranges), rsyncx.ErrTooMany)}
	}
	size := w.Size
	if w.Ranges != nil {
		size = total(w.Ranges)
	}
	if size < 0 {
		size = unknown
	}
	u.cost = unitCost + size/32
	if w.Block > 0 {
		u.cost += 12 * (size/w.Block + int64(len(w.Ranges)))
	}
	return u
}
