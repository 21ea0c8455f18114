package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/delta"
)

const (
	// gatherTime is how long a question waits for company, since a frame of its own
	// costs both sides more than the question is worth.
	gatherTime = time.Millisecond
	// laneQueue is how much of its answers a lane receives ahead, in bytes; as much
	// again may be in the hands of the consumer.
	laneQueue = 2 << 20
	pieceCost = 128 // bytes that a piece takes itself
)

// unit is a question that travels over one lane, and what is due for it.
type unit struct {
	question
	err   error // why it is not asked
	first bool  // of its file
	last  bool
	lane  *lane // nil when nothing comes
	cost  int64 // bytes, about
	drop  *dropped
}

// A piece is a step of an answer.
type piece struct {
	kind    pieceKind
	data    []byte // of pieceData
	from    *chunk // holds data
	zeros   int64
	version uint64 // of pieceFile
	entry   *rsyncx.Entry
	err     error
	sums    *rsyncx.FileSums
}

type pieceKind uint8

const (
	pieceFile   pieceKind = iota // begins the answer to a question about content
	pieceData                    // some of it
	pieceZeros                   // zeros
	pieceEnd                     // ends it
	pieceCut                     // ends it too early
	pieceFailed                  // instead of an answer
	pieceSums                    // the whole answer
)

// lane is one connection that answers a part of the questions of a request, in
// their order.
type lane struct {
	conn *Conn
	sums bool
	due  chan *unit // asked; closed after the last one
	quit <-chan struct{}
	done func(*unit) // is told of every answer that has arrived

	asking sync.Mutex
	batch  []byte
	ended  bool
	load   int64         // bytes asked for and not arrived; of the stripes
	wake   chan struct{} // has room for one: batch or ended changed

	queue queue
	hand  []piece // taken by the consumer, from the queue
	at    int

	hash xxh3.Hasher
}

func newLane(c *Conn, sums bool, quit <-chan struct{}, done func(*unit)) *lane {
	l := &lane{conn: c, sums: sums, due: make(chan *unit, window+1), quit: quit, done: done, wake: make(chan struct{}, 1)}
	l.queue.cond.L = &l.queue.mu
	return l
}

// ask adds a question. Its answer comes after those of the ones before.
func (l *lane) ask(u *unit) {
	l.due <- u // there is room for all that may be open
	l.asking.Lock()
	l.batch = u.append(l.batch, l.sums)
	l.asking.Unlock()
	l.rouse()
}

// end says that there are no more questions.
func (l *lane) end() {
	close(l.due)
	l.asking.Lock()
	l.ended = true
	l.asking.Unlock()
	l.rouse()
}

func (l *lane) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// send sends questions until the last one. It ends early when the link is dead,
// which the receiver sees.
func (l *lane) send() {
	wait := time.NewTimer(gatherTime)
	defer wait.Stop()
	for {
		select {
		case <-l.wake:
		case <-l.quit:
			return
		}
		wait.Reset(gatherTime)
		for waiting := true; waiting; {
			select {
			case <-l.wake:
				l.asking.Lock()
				waiting = len(l.batch) < batchBytes && !l.ended
				l.asking.Unlock()
			case <-wait.C:
				waiting = false
			case <-l.quit:
				return
			}
		}
		l.asking.Lock()
		batch, ended := l.batch, l.ended
		l.batch = nil
		l.asking.Unlock()
		if l.sendBatch(batch) != nil {
			return
		}
		if ended {
			_ = l.conn.ask(frameNamesEnd, nil)
			return
		}
	}
}

// sendBatch sends whole questions in frames that are not too long.
func (l *lane) sendBatch(batch []byte) error {
	for len(batch) > 0 {
		n := len(batch)
		if n > maxFrame {
			// A question is always shorter than what is left of a frame then.
			d := decoder{b: batch}
			for d.err == nil && len(batch)-len(d.b) < maxFrame/4 {
				d.question(l.sums)
			}
			if n = len(batch) - len(d.b); d.err != nil {
				return fmt.Errorf("internal error: %w", d.err)
			}
		}
		if err := l.conn.ask(frameNames, batch[:n]); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// receive takes the answers until the last one.
func (l *lane) receive() error {
	for {
		var u *unit
		var more bool
		select {
		case u, more = <-l.due:
		case <-l.conn.link.dead:
			return l.conn.link.err
		}
		if !more {
			d, err := l.conn.expect(frameDone)
			if err != nil {
				return err
			}
			return d.end("end of the files")
		}
		var err error
		if l.sums {
			err = l.receiveSums(u)
		} else {
			err = l.receiveFile(u)
		}
		if err != nil {
			return err
		}
		l.done(u)
	}
}

// begin reads what begins an answer. When it is an error about the file, that is
// passed on, and false returned.
func (l *lane) begin(u *unit, kind byte) (decoder, bool, error) {
	h, err := l.conn.next()
	if err != nil {
		return decoder{}, false, err
	}
	switch h.kind {
	case kind:
		d, err := l.conn.load(h)
		return d, true, err
	case frameFileError:
		err := l.conn.reported(h)
		if !isReported(err) {
			return decoder{}, false, err
		}
		return decoder{}, false, l.queue.put(piece{kind: pieceFailed, err: &rsyncx.PathError{Path: u.path, Err: err}}, 0)
	case frameError:
		return decoder{}, false, l.conn.reported(h)
	}
	return decoder{}, false, hostile("a frame of type %q among files", h.kind)
}

func (l *lane) receiveFile(u *unit) error {
	d, ok, err := l.begin(u, frameFile)
	if err != nil || !ok {
		return err
	}
	version := d.uint("version", math.MaxUint64)
	e := d.entry(&rsyncx.Entry{})
	if err := d.end("file"); err != nil {
		return err
	}
	if err := checkSelf(u.path, &e); err != nil {
		return err
	}
	if err := l.queue.put(piece{kind: pieceFile, entry: &e, version: version}, 0); err != nil {
		return err
	}
	return l.receiveContent(u, u.length(e.Size))
}

// length returns how much is due for u when the file has size bytes.
func (u *unit) length(size int64) int64 {
	switch u.kind {
	case kindPart:
		end := size
		if u.part.Len > 0 {
			end = min(end, u.part.Off+u.part.Len)
		}
		return max(0, end-u.part.Off)
	case kindRanges:
		return total(u.ranges)
	}
	return size
}

// receiveContent passes on content of at most room bytes and checks its sum.
func (l *lane) receiveContent(u *unit, room int64) error {
	l.hash.Reset()
	got := int64(0)
	for {
		h, err := l.conn.next()
		if err != nil {
			return err
		}
		switch h.kind {
		case frameData:
			if h.size == 0 { // which would be a way to go on for ever
				return hostile("an empty frame of type %q", h.kind)
			}
			if int64(h.size) > room-got {
				return hostile("more content than it announced")
			}
			if err := l.receiveData(h.size); err != nil {
				return err
			}
			got += int64(h.size)
			continue
		case frameZeros:
			d, err := l.conn.load(h)
			if err != nil {
				return err
			}
			n := int64(d.uint("run of zeros", math.MaxInt64))
			if err := d.end("run of zeros"); err != nil {
				return err
			}
			if n == 0 || n > room-got {
				return hostile("more zeros than it announced")
			}
			hashZeros(&l.hash, got, n)
			got += n
			if err := l.queue.put(piece{kind: pieceZeros, zeros: n}, 0); err != nil {
				return err
			}
			continue
		case frameCut:
			err := l.conn.reported(h)
			if !isReported(err) {
				return err
			}
			return l.queue.put(piece{kind: pieceCut, err: err}, 0)
		case frameSum:
			d, err := l.conn.load(h)
			if err != nil {
				return err
			}
			if err := d.sum(got, &l.hash); err != nil {
				return err
			}
			switch {
			case got == room:
				return l.queue.put(piece{kind: pieceEnd}, 0)
			case u.kind == kindPart: // it was cut to a length that was not right any more when it was opened
				return l.queue.put(piece{kind: pieceCut, err: rsyncx.ErrTorn}, 0)
			}
			return hostile("less content than it announced, without a reason")
		default:
			return hostile("a frame of type %q in a file", h.kind)
		}
	}
}

func (l *lane) receiveData(n int) error {
	for n > 0 {
		part, from, err := l.conn.take(n)
		if err != nil {
			return unexpected(err)
		}
		n -= len(part)
		_, _ = l.hash.Write(part)
		from.retain()
		if err := l.queue.put(piece{kind: pieceData, data: part, from: from}, len(part)); err != nil {
			return err
		}
	}
	return nil
}

// receiveSums receives the sums of one file. Memory is taken as they arrive.
func (l *lane) receiveSums(u *unit) error {
	d, ok, err := l.begin(u, frameSumsOf)
	if err != nil || !ok {
		return err
	}
	f := &rsyncx.FileSums{Path: u.path, Entry: d.entry(&rsyncx.Entry{})}
	copy(f.Whole[:], d.fixed("sum", len(f.Whole)))
	if u.sum != rsyncx.SumXXH128 {
		f.Other = slices.Clone(d.fixed("sum", u.sum.Len()))
	}
	f.Sums = delta.Sums{Block: u.block, Size: int64(d.uint("length", math.MaxInt64))}
	count := int64(d.uint("number of blocks", maxBlocks))
	if err := d.end("sums"); err != nil {
		return err
	}
	if err := checkSelf(u.path, &f.Entry); err != nil {
		return err
	}
	size := f.Entry.Size
	if u.kind == kindRanges {
		size = total(u.ranges)
	}
	if f.Sums.Size != size || count != blocksOf(u, size) {
		return hostile("%d sums of %d bytes where those of %d were due", count, f.Sums.Size, size)
	}
	for left := int(count); left > 0; {
		d, err := l.conn.expect(frameBlocks)
		if err != nil {
			return err
		}
		n, err := d.blocks(&f.Sums, u.weak, left)
		if err != nil {
			return err
		}
		left -= n
	}
	return l.queue.put(piece{kind: pieceSums, sums: f}, 12*int(count))
}

// blocksOf returns how many blocks are due of size bytes: each range has its own last one.
func blocksOf(u *unit, size int64) (n int64) {
	if u.block <= 0 {
		return 0
	}
	if u.kind != kindRanges {
		return size/u.block + min(size%u.block, 1)
	}
	for _, r := range u.ranges {
		n += r.Len/u.block + min(r.Len%u.block, 1)
	}
	return n
}

// blocks decodes some sums, at most limit, and returns how many they were.
func (d *decoder) blocks(s *delta.Sums, weak bool, limit int) (int, error) {
	each := 8
	if weak {
		each = 12
	}
	n := len(d.b) / each
	if n == 0 || n > limit || len(d.b)%each != 0 {
		return 0, hostile("%d bytes of sums where %d sums were due", len(d.b), limit)
	}
	for i := range n {
		s.Strong = append(s.Strong, binary.LittleEndian.Uint64(d.b[8*i:]))
	}
	if weak {
		for i := range n {
			s.Weak = append(s.Weak, binary.LittleEndian.Uint32(d.b[8*n+4*i:]))
		}
	}
	return n, nil
}

func isReported(err error) bool {
	var r *Error
	return errors.As(err, &r)
}

// queue holds the pieces that a lane received and the consumer did not take.
type queue struct {
	mu      sync.Mutex
	cond    sync.Cond
	pieces  []piece
	bytes   int
	waiting bool // somebody waits
	err     error
}

// put adds a piece, when there is room.
func (q *queue) put(p piece, size int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes > laneQueue && q.err == nil {
		q.waiting = true
		q.cond.Wait()
	}
	if q.err != nil {
		return q.err
	}
	q.pieces = append(q.pieces, p)
	q.bytes += size + pieceCost
	q.signal()
	return nil
}

// takeAll waits for pieces and takes them in exchange for a slice to fill.
func (q *queue) takeAll(empty []piece) ([]piece, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pieces) == 0 && q.err == nil {
		q.waiting = true
		q.cond.Wait()
	}
	if q.err != nil {
		return nil, q.err
	}
	all := q.pieces
	q.pieces, q.bytes = empty[:0], 0
	q.signal()
	return all, nil
}

// fail ends the queue for both sides.
func (q *queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
	q.signal()
}

// signal wakes who waits: it is either the lane or the consumer.
func (q *queue) signal() {
	if q.waiting {
		q.waiting = false
		q.cond.Broadcast()
	}
}

// pop returns the next piece. The consumer calls it.
func (l *lane) pop() (piece, error) {
	if l.at == len(l.hand) {
		clear(l.hand)
		var err error
		if l.hand, err = l.queue.takeAll(l.hand); err != nil {
			l.hand, l.at = nil, 0
			return piece{}, err
		}
		l.at = 0
	}
	p := l.hand[l.at]
	l.at++
	return p, nil
}
