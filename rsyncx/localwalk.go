package rsyncx

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"

	"github.com/drsync/drsync/rsyncx/filter"
	"golang.org/x/sys/unix"
)

// A walk lists directories ahead of its consumer, several at once: always the
// first, in the order in which they are yielded, that nobody has begun. How far
// ahead is bounded by what waits to be yielded:
const (
	aheadBytes = 8 << 20
	aheadDirs  = 128 // which may all hold a descriptor
)

// entryBytes is about what an entry takes in memory, beside its texts.
const entryBytes = 160

// Walk lists with as many goroutines as there are processors, which end before it does.
func (l *local) Walk(ctx context.Context, o WalkOptions) iter.Seq2[Dir, error] {
	return func(yield func(Dir, error) bool) {
		w := l.newWalk(ctx, o)
		defer w.end()
		if err := w.run(yield); err != nil && !errors.Is(err, errStopped) {
			yield(Dir{}, err)
		}
	}
}

func (l *local) newWalk(ctx context.Context, o WalkOptions) *localWalk {
	if o.MaxEntries <= 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	w := &localWalk{local: l, ctx: ctx, o: o}
	w.work.L, w.ready.L = &w.mu, &w.mu
	return w
}

// errStopped unwinds a walk whose consumer wants no more.
var errStopped = errors.New("stopped")

// localWalk is one walk. The directories that are begun and not yet yielded hang
// on a list in the order in which they will be; between them stand, as rests,
// listed ones of whose subdirectories not all are begun.
type localWalk struct {
	*local
	ctx     context.Context
	o       WalkOptions
	listed  int64  // names yielded
	lister  lister // of the consumer
	workers sync.WaitGroup

	mu    sync.Mutex
	work  sync.Cond // a worker can go on
	ready sync.Cond // the consumer can
	head  *step
	idle  int // workers that wait
	bytes int // of what is listed and not yielded
	dirs  int
	over  bool
}

// step is a place in the order of a walk.
type step struct {
	next *step
	dir  *walkDir
	rest bool // the place of the pieces, and then subdirectories, of dir that are not begun
}

// spent reports whether nothing is to come of a rest any more: a long directory has
// no subdirectories.
func (s *step) spent() bool { return s.rest && s.dir.pieces == 0 && len(s.dir.kids) == 0 }

// walkDir is one directory of a walk. Whoever begins it owns it until it is done.
type walkDir struct {
	parent *walkDir
	kid    kid
	path   string
	scope  *filter.Scope
	only   Selection
	dev    uint64
	device uint64 // whose names OneFileSystem stays on
	ino    uint64
	fd     int // -1 when none of the subdirectories is left to be opened

	self, rest step
	done       bool
	kids       []kid
	begun      int // of kids
	unopened   int // of kids and pieces

	// A long directory is yielded in pieces, which stand in the order in its place and are
	// directories of their own until they are.
	long   *longNames
	pieces int      // that are not listed
	cut    int      // pieces that are begun
	found  [][]kid  // by the pieces
	of     *walkDir // of a piece: the long one
	number int      // of a piece

	errs  []error // about single names
	dir   Dir
	whole bool // dir is to be yielded
	err   error
	names int64 // that were listed
	bytes int
}

// kid is a subdirectory that is to be walked.
type kid struct {
	name   string
	linked bool // through a link
}

// run yields the walk. The root is listed before there are any workers.
func (w *localWalk) run(yield func(Dir, error) bool) error {
	only, err := w.o.Select()
	if err != nil {
		return err
	}
	root := &walkDir{only: only, fd: -1, scope: w.o.Filter.Root().For(filter.Sender)}
	root.self.dir = root
	w.head = &root.self
	w.lister.list(w, root)
	w.finish(root)
	if len(root.kids)+root.pieces > 0 {
		stop := context.AfterFunc(w.ctx, w.wake)
		defer stop()
		for range runtime.GOMAXPROCS(0) {
			w.workers.Go(w.worker)
		}
	}
	for {
		d, err := w.take()
		if d == nil || err != nil {
			return err
		}
		if err := w.deliver(d, yield); err != nil {
			return err
		}
	}
}

// deliver yields what came of one directory.
func (w *localWalk) deliver(d *walkDir, yield func(Dir, error) bool) error {
	for _, err := range d.errs {
		if !yield(Dir{}, err) {
			return errStopped
		}
	}
	if w.listed += d.names; w.listed > w.o.MaxEntries {
		return fmt.Errorf("%w: %d names and more", ErrTooMany, w.o.MaxEntries)
	}
	if d.err != nil {
		return d.err
	}
	if !d.whole {
		return nil
	}
	dir := d.dir
	d.dir = Dir{} // its consumer alone decides how long it stays in memory
	if !yield(dir, nil) {
		return errStopped
	}
	return nil
}

// take returns the next directory, done, or nil at the end. While there is none
// it lends a hand.
func (w *localWalk) take() (*walkDir, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if w.ctx.Err() != nil {
			return nil, context.Cause(w.ctx)
		}
		if w.head == nil {
			return nil, nil
		}
		if d := w.head.dir; !w.head.rest && d.done {
			w.head = w.head.next
			w.bytes -= d.bytes
			w.dirs--
			if w.idle > 0 && w.room() {
				w.work.Signal()
			}
			return d, nil
		}
		if w.head.spent() {
			w.head = w.head.next
			continue
		}
		d := w.begin(w.head.rest)
		if d == nil {
			w.ready.Wait()
			continue
		}
		w.mu.Unlock()
		w.lister.list(w, d)
		w.mu.Lock()
		w.finished(d)
	}
}

// worker lists directories until the walk is over.
func (w *localWalk) worker() {
	var l lister
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.over && w.ctx.Err() == nil {
		d := w.begin(false)
		if d == nil {
			w.idle++
			w.work.Wait()
			w.idle--
			continue
		}
		w.mu.Unlock()
		l.list(w, d)
		w.mu.Lock()
		w.finished(d)
		w.ready.Signal()
	}
}

func (w *localWalk) room() bool { return w.bytes < aheadBytes && w.dirs < aheadDirs }

// begin returns the first directory that nobody has begun, or nil when there is
// none, or no room for it and it is not urgent.
func (w *localWalk) begin(urgent bool) *walkDir {
	if !urgent && !w.room() {
		return nil
	}
	for at := &w.head; *at != nil; {
		rest, parent := *at, (*at).dir
		switch {
		case rest.spent():
			*at = rest.next
			continue
		case rest.rest && parent.cut < len(parent.found):
			d := parent.piece()
			d.self = step{dir: d, next: rest}
			*at = &d.self
			return d
		case !rest.rest || parent.pieces > 0: // what subdirectories it has is not known
			at = &rest.next
			continue
		}
		d := &walkDir{parent: parent, kid: parent.kids[parent.begun], fd: -1, scope: parent.scope}
		d.path = joinPath(parent.path, d.kid.name)
		d.only, _ = parent.only.entered(d.kid.name, d.path, parent.scope)
		d.self = step{dir: d, next: rest}
		if parent.begun++; parent.begun == len(parent.kids) {
			d.self.next = rest.next
			parent.kids = nil
		}
		*at = &d.self
		return d
	}
	return nil
}

// piece begins the next piece of a long directory.
func (d *walkDir) piece() *walkDir {
	p := &walkDir{parent: d.parent, kid: d.kid, path: d.path, scope: d.scope, only: d.only, dev: d.dev, ino: d.ino, fd: -1, of: d, number: d.cut}
	d.cut++
	return p
}

func (w *localWalk) finish(d *walkDir) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished(d)
}

// finished makes d, which was listed, ready to be yielded, and its
// subdirectories to be begun.
func (w *localWalk) finished(d *walkDir) {
	d.done = true
	w.bytes += d.bytes
	w.dirs++
	if d.err != nil {
		d.kids, d.pieces = nil, 0
	}
	if d.of != nil {
		w.pieceDone(d)
		return
	}
	if len(d.kids)+d.pieces == 0 {
		return
	}
	d.found = make([][]kid, d.pieces)
	d.rest = step{dir: d, rest: true, next: d.self.next}
	d.self.next = &d.rest
	w.rouse(len(d.kids) + d.pieces - 1)
}

// rouse wakes workers for what has become known, at most n of them.
func (w *localWalk) rouse(n int) {
	for n = min(w.idle, n); n > 0 && w.room(); n-- {
		w.work.Signal()
	}
}

// pieceDone takes the subdirectories that a piece has found. After the last piece
// they can be begun.
func (w *localWalk) pieceDone(p *walkDir) {
	d := p.of
	d.found[p.number] = p.kids
	d.unopened += len(p.kids)
	p.kids = nil
	if d.pieces--; d.pieces == 0 {
		d.kids = slices.Concat(d.found...)
		d.long, d.found = nil, nil
		w.rouse(len(d.kids))
	}
	w.release(d)
}

// opened says that one subdirectory of d needs its descriptor no more.
func (w *localWalk) opened(d *walkDir) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.release(d)
}

// release is opened for a piece too.
func (w *localWalk) release(d *walkDir) {
	if d.unopened--; d.unopened == 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}

// wake lets everybody see that the walk was cancelled.
func (w *localWalk) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.work.Broadcast()
	w.ready.Broadcast()
}

// end waits for the workers and closes what they left open.
func (w *localWalk) end() {
	w.mu.Lock()
	w.over = true
	w.work.Broadcast()
	w.mu.Unlock()
	w.workers.Wait()
	for at := w.head; at != nil; at = at.next {
		if at.rest && at.dir.fd >= 0 {
			unix.Close(at.dir.fd)
		}
	}
}
