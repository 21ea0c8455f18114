package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

const (
	// maxArrived bounds the directories that were received and not taken, in bytes of memory.
	maxArrived = 8 << 20
	// verdictBatch is how many verdicts are sent without waiting for company.
	verdictBatch = 256
)

// sameWalk is a walk in which the agent announces what comes, with digests, and
// sends only what the client says it does not have. One goroutine receives, some
// ask WalkOptions.Same, one sends the verdicts in the order of the announcements; the
// consumer's own yields. Nobody waits for ever: the receiver holds back
// what comes only while the oldest item needs nothing but its consumer.
type sameWalk struct {
	c     *Conn
	w     walker
	same  func(rsyncx.Piece, rsyncx.DirDigest) bool
	ask   chan *aheadItem // has room for all that may be announced
	wake  chan struct{}   // has room for one: there are verdicts to send
	quit  chan struct{}   // closed when the receiver has ended
	ended error           // of the receiver, set before quit is closed

	mu      sync.Mutex
	changed sync.Cond
	items   []*aheadItem // announced and not yielded
	fill    int          // of items, the first that may yet need its content
	unsent  []*aheadItem // asked, and the verdict was not sent
	bytes   int          // of what items hold
	stopped bool         // the consumer wants no more
	over    bool         // the receiver has ended

	sending sync.Mutex // held while a verdict or the end is sent

	last string // the path announced last; of the receiver
}

type aheadItem struct {
	asked  bool
	piece  rsyncx.Piece
	self   rsyncx.Entry // of the root
	digest rsyncx.DirDigest

	judged bool
	same   bool
	have   bool // dir or single has arrived
	dir    rsyncx.Dir
	single *rsyncx.PathError
	bytes  int
}

// ready says that nothing more must arrive before the item can be yielded; needs
// that its content must.
func (i *aheadItem) ready() bool { return i.have || i.asked && i.judged && i.same }
func (i *aheadItem) needs() bool { return !i.have && (!i.asked || i.judged && !i.same) }

func (c *Conn) walkSame(ctx context.Context, o rsyncx.WalkOptions, yield func(rsyncx.Dir, error) bool) error {
	s := &sameWalk{c: c, w: newWalker(c, o.MaxEntries), same: o.Same,
		ask: make(chan *aheadItem, maxAhead), wake: make(chan struct{}, 1), quit: make(chan struct{})}
	s.changed.L = &s.mu
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		s.ended = s.receive()
		s.mu.Lock()
		s.over = true
		s.changed.Broadcast()
		s.mu.Unlock()
		close(s.ask)
		close(s.quit)
	})
	for range runtime.GOMAXPROCS(0) {
		all.Go(s.judge)
	}
	all.Go(s.send)
	for {
		item := s.take()
		if item == nil {
			<-s.quit
			return s.ended
		}
		if ctx.Err() != nil { // what is left may all have arrived already
			c.link.kill(context.Cause(ctx))
			s.stop()
			return context.Cause(ctx)
		}
		if !s.yield(item, yield) {
			return s.callOff()
		}
	}
}

func (s *sameWalk) yield(i *aheadItem, yield func(rsyncx.Dir, error) bool) bool {
	switch {
	case i.single != nil:
		return yield(rsyncx.Dir{}, i.single)
	case i.have:
		return yield(i.dir, nil)
	}
	p := &i.piece
	return yield(rsyncx.Dir{Path: p.Path, After: p.After, Upto: p.Upto, Self: i.self, Same: true}, nil)
}

// take waits for the oldest item. It returns nil after the last one, or when the
// receiver met an error.
func (s *sameWalk) take() *aheadItem {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if len(s.items) > 0 && s.items[0].ready() {
			i := s.items[0]
			s.items[0] = nil
			s.items = s.items[1:]
			s.fill = max(0, s.fill-1)
			s.bytes -= i.bytes
			s.changed.Broadcast()
			return i
		}
		if s.over && (len(s.items) == 0 || s.ended != nil) {
			return nil
		}
		s.changed.Wait()
	}
}

// judge asks for verdicts.
func (s *sameWalk) judge() {
	for i := range s.ask {
		s.mu.Lock()
		idle := s.stopped || s.over && s.ended != nil
		s.mu.Unlock()
		if idle {
			continue
		}
		same := s.same(i.piece, i.digest)
		s.mu.Lock()
		i.judged, i.same = true, same
		s.changed.Broadcast()
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// send sends the verdicts that are there, some at a time.
func (s *sameWalk) send() {
	wait := time.NewTimer(gatherTime)
	defer wait.Stop()
	for {
		select {
		case <-s.wake:
		case <-s.quit:
			return
		}
		wait.Reset(gatherTime)
		for waiting := true; waiting; {
			select {
			case <-s.wake:
				waiting = s.due() < verdictBatch
			case <-wait.C:
				waiting = false
			case <-s.quit:
				return
			}
		}
		if s.sendVerdicts() != nil {
			return // the link is dead, which the receiver sees
		}
	}
}

// due counts the verdicts that can be sent, up to a whole batch.
func (s *sameWalk) due() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, i := range s.unsent {
		if !i.judged || n == verdictBatch {
			return n
		}
	}
	return len(s.unsent)
}

func (s *sameWalk) sendVerdicts() error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	n := 0
	for n < len(s.unsent) && s.unsent[n].judged {
		n++
	}
	set := make([]byte, (n+7)/8)
	for k, i := range s.unsent[:n] {
		if i.same {
			set[k/8] |= 1 << (k % 8)
		}
	}
	clear(s.unsent[:n])
	s.unsent = s.unsent[n:]
	stopped := s.stopped
	s.mu.Unlock()
	if n == 0 || stopped {
		return nil
	}
	return s.c.ask(frameVerdicts, append(binary.AppendUvarint(nil, uint64(n)), set...))
}

// receive takes what the agent sends until its end.
func (s *sameWalk) receive() error {
	for {
		h, err := s.c.next()
		if err != nil {
			return err
		}
		if s.isStopped() {
			return s.drain(h)
		}
		switch h.kind {
		case frameAhead:
			err = s.announced(h)
		case frameDone:
			if h.size > 0 || !s.complete() {
				return hostile("the end of a listing of which something is missing")
			}
			return nil
		default:
			err = s.arrived(h)
		}
		if err != nil {
			return err
		}
	}
}

func (s *sameWalk) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// complete says that nothing is missing: the agent waits for every verdict.
func (s *sameWalk) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.items {
		if !i.ready() {
			return false
		}
	}
	return true
}

// announced takes announcements.
func (s *sameWalk) announced(h header) error {
	if h.size == 0 { // which would be a way to go on for ever
		return hostile("an empty announcement")
	}
	d, err := s.c.load(h)
	if err != nil {
		return err
	}
	for len(d.b) > 0 {
		i := &aheadItem{}
		if err := s.decode(&d, i); err != nil {
			return err
		}
		if err := s.add(i); err != nil {
			return err
		}
	}
	return d.end("announcement")
}

func (s *sameWalk) decode(d *decoder, i *aheadItem) error {
	kind := d.flags("announcement", 3)
	switch kind {
	case aheadGiven:
		return d.err
	case aheadRoot:
		i.self = d.entry(&rsyncx.Entry{})
		if d.err == nil {
			d.err = checkSelf("", &i.self)
		}
	case aheadAsked:
		shared := d.uint("path", uint64(len(s.last)))
		i.piece.Path = s.last[:shared] + d.string("path", maxPath)
		if d.err == nil {
			d.err = rsyncx.CheckPath(i.piece.Path)
		}
	default:
		d.fail("announcement")
	}
	i.asked = true
	i.piece.After, i.piece.Upto = d.bounds()
	copy(i.digest[:], d.fixed("digest", len(i.digest)))
	s.last = i.piece.Path
	if s.w.dirs--; s.w.dirs < -1 && d.err == nil {
		return rsyncx.ErrTooMany
	}
	return d.err
}

// add queues an item when there is room.
func (s *sameWalk) add(i *aheadItem) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.items) >= maxAhead && !s.stopped {
		if s.items[0].needs() {
			return hostile("more directories than it may announce ahead")
		}
		if err := s.wait(); err != nil {
			return err
		}
	}
	if s.stopped {
		return nil
	}
	s.items = append(s.items, i)
	if i.asked {
		s.unsent = append(s.unsent, i)
		s.ask <- i // there is room for all
	}
	s.changed.Broadcast()
	return nil
}

// wait waits for the consumer, unless the link is dead.
func (s *sameWalk) wait() error {
	if err := s.c.link.killed(); err != nil {
		return err
	}
	s.changed.Wait()
	return nil
}

// arrived takes one directory or error: that of the oldest item that needs it.
func (s *sameWalk) arrived(h header) error {
	i, err := s.wanting()
	if err != nil {
		return err
	}
	if i == nil && h.kind != frameError {
		return hostile("a frame of type %q in a listing, that was not announced", h.kind)
	}
	if i != nil && i.asked {
		s.w.dirs++ // it was counted
	}
	dir, err := s.w.dirOf(h)
	var single *rsyncx.PathError
	if err != nil && !errors.As(err, &single) {
		return err
	}
	if i.asked && (single != nil || dir.Piece() != i.piece) {
		return hostile("a listing of %q where that of %q was due", rsyncx.Printable(orDot(dir.Path)), rsyncx.Printable(orDot(i.piece.Path)))
	}
	size := entryMemory
	for k := range dir.Entries {
		size += entryMemory + weight(&dir.Entries[k])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i.dir, i.single, i.have, i.bytes = dir, single, true, size
	s.bytes += size
	s.changed.Broadcast()
	for s.bytes > maxArrived && !s.stopped && len(s.items) > 0 && s.items[0].ready() {
		if err := s.wait(); err != nil {
			return err
		}
	}
	return nil
}

// wanting returns the item that the next directory belongs to, or nil.
func (s *sameWalk) wanting() (*aheadItem, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; s.fill < len(s.items); s.fill++ {
		i := s.items[s.fill]
		if i.asked && !i.judged {
			return nil, hostile("a listing of a directory on which it had no verdict")
		}
		if i.needs() {
			return i, nil
		}
	}
	return nil, nil
}

// callOff ends the walk early, so that the connection can be used again.
func (s *sameWalk) callOff() error {
	s.sending.Lock()
	s.stop()
	_ = s.c.ask(frameStop, nil) // when the link is dead, the receiver sees it
	s.sending.Unlock()
	late := time.AfterFunc(callOffTime, func() { s.c.link.kill(errStopped) })
	defer late.Stop()
	<-s.quit
	if s.ended != nil && !isReported(s.ended) {
		s.c.link.kill(s.ended)
	}
	return errLeft
}

// stop makes the receiver skip what comes.
func (s *sameWalk) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.items, s.unsent, s.fill = nil, nil, 0
	s.changed.Broadcast()
}

// drain skips what is left of a walk that was called off, unless that is much.
func (s *sameWalk) drain(h header) error {
	for skipped := 0; skipped < maxSkipped; {
		if h.kind == frameError {
			return s.c.reported(h)
		}
		d, err := s.c.load(h)
		if err != nil {
			return err
		}
		if h.kind == frameDone {
			return d.end("end of the listing")
		}
		skipped += headerSize + h.size
		if h, err = s.c.next(); err != nil {
			return err
		}
	}
	return errStopped
}
