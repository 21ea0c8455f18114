package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// errStopped ends a request whose consumer wants no more.
var errStopped = errors.New("stopped by its reader")

// errLeft is errStopped when the agent knows it already.
var errLeft = errors.New("left by its reader")

// Walk lists a tree; see rsyncx.Source.
func (c *Conn) Walk(ctx context.Context, t Tree, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		if _, err := c.Open(ctx, t); err != nil {
			yield(rsyncx.Dir{}, err)
			return
		}
		end := c.begin(ctx)
		err := c.walk(ctx, t, o, yield)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		stopped := errors.Is(err, errStopped) || errors.Is(err, errLeft)
		switch {
		case errors.Is(err, errLeft):
			err = nil
		case stopped:
			err = c.callOff()
		}
		if err := end(err); err != nil && !stopped {
			yield(rsyncx.Dir{}, fmt.Errorf("list %s: %w", rsyncx.Printable(t.Root), err))
		}
	}
}

func (c *Conn) walk(ctx context.Context, t Tree, o rsyncx.WalkOptions, yield func(rsyncx.Dir, error) bool) error {
	if o.MaxEntries <= 0 {
		o.MaxEntries = rsyncx.DefaultMaxEntries
	}
	if o.Xattrs || o.ACLs {
		o.Same = nil // digests do not cover them
	}
	payload := appendWalk(appendTree(nil, t), &o)
	payload = binary.AppendUvarint(payload, uint64(o.MaxEntries))
	if err := c.ask(frameWalk, appendString(payload, string(encodeFilter(o.Filter)))); err != nil {
		return err
	}
	if o.Only != nil {
		if err := c.askOnly(o.Only); err != nil {
			return err
		}
	}
	if o.Same != nil {
		return c.walkSame(ctx, o, yield)
	}
	w := newWalker(c, o.MaxEntries)
	for {
		if ctx.Err() != nil { // what is left may all have arrived already
			return context.Cause(ctx)
		}
		dir, err := w.dir()
		var single *rsyncx.PathError
		switch {
		case errors.As(err, &single):
			if !yield(rsyncx.Dir{}, single) {
				return errStopped
			}
		case errors.Is(err, errEnd):
			return nil
		case err != nil:
			return err
		case !yield(dir, nil):
			return errStopped
		}
	}
}

// askOnly sends the paths that the walk is restricted to.
func (c *Conn) askOnly(only []string) error {
	room := maxOnly
	var batch []byte
	for _, path := range only {
		if room -= len(path) + entryCost; room < 0 {
			return fmt.Errorf("a list of %d paths is too long: it may take %d bytes", len(only), maxOnly)
		}
		if err := checkPath(path); err != nil {
			return err
		}
		if batch = appendString(batch, path); len(batch) >= batchBytes {
			if err := c.ask(frameNames, batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	if len(batch) > 0 {
		if err := c.ask(frameNames, batch); err != nil {
			return err
		}
	}
	return c.ask(frameNamesEnd, nil)
}

// callOff ends a walk that its reader has left, so that the connection can be
// used again. What is on its way is skipped, unless that is much.
func (c *Conn) callOff() error {
	silence := c.link.silence
	c.link.silence = min(silence, callOffTime)
	defer func() { c.link.silence = silence }()
	c.leastAlive = callOffTime
	if err := c.ask(frameStop, nil); err != nil {
		return err
	}
	until := time.Now().Add(callOffTime)
	for skipped := 0; skipped < maxSkipped && time.Now().Before(until); {
		h, err := c.next()
		if err != nil {
			return err
		}
		if h.kind == frameError {
			return c.reported(h)
		}
		d, err := c.load(h)
		if err != nil {
			return err
		}
		if h.kind == frameDone {
			return d.end("end of the listing")
		}
		skipped += headerSize + h.size
	}
	return errStopped
}

// errEnd says that a listing is complete.
var errEnd = errors.New("end of the listing")

// walker reads the answer to one walk.
type walker struct {
	c    *Conn
	left int64 // entries that may still come
	dirs int64 // directories, and names that could not be read, that may still come
	odd  int64 // of those, names that could not be read
}

func newWalker(c *Conn, maxEntries int64) walker {
	return walker{c: c, left: maxEntries, dirs: maxEntries, odd: min(maxEntries, c.maxNameErrors)}
}

// dir reads one directory. Its error is errEnd, a *PathError about one name, or final.
func (w *walker) dir() (rsyncx.Dir, error) {
	h, err := w.c.next()
	if err != nil {
		return rsyncx.Dir{}, err
	}
	return w.dirOf(h)
}

func (w *walker) dirOf(h header) (rsyncx.Dir, error) {
	if h.kind == frameDone && h.size == 0 {
		return rsyncx.Dir{}, errEnd
	}
	if h.kind == frameError {
		return rsyncx.Dir{}, w.c.reported(h)
	}
	if h.kind != frameDir && h.kind != frameDirError {
		return rsyncx.Dir{}, hostile("a frame of type %q in a listing", h.kind)
	}
	// The root is a directory that is nobody's entry.
	if w.dirs--; w.dirs < -1 {
		return rsyncx.Dir{}, rsyncx.ErrTooMany
	}
	if h.kind == frameDirError {
		if w.odd--; w.odd < -1 {
			return rsyncx.Dir{}, fmt.Errorf("%w: too many names in it cannot be read", rsyncx.ErrTooMany)
		}
	}
	d, err := w.c.load(h)
	if err != nil {
		return rsyncx.Dir{}, err
	}
	path := d.string("path", maxPath)
	if d.err == nil {
		d.err = rsyncx.CheckPath(path)
	}
	if h.kind == frameDirError {
		single := &rsyncx.PathError{Path: path, Err: d.remoteError()}
		if err := d.end("listing error"); err != nil {
			return rsyncx.Dir{}, err
		}
		return rsyncx.Dir{}, single
	}
	partial := d.flags("directory", 1) != 0
	dir := rsyncx.Dir{Path: path, Partial: partial}
	dir.After, dir.Upto = d.bounds()
	count := d.uint("number of entries", math.MaxInt64)
	dir.Self = d.entry(&rsyncx.Entry{})
	if err := d.end("directory"); err != nil {
		return rsyncx.Dir{}, err
	}
	if err := checkSelf(path, &dir.Self); err != nil {
		return rsyncx.Dir{}, err
	}
	dir.Entries, err = w.entries(dir.Piece(), int(min(count, trustedCount)))
	return dir, err
}

// trustedCount is for how many entries memory is taken because it was said so.
const trustedCount = 1024

func (w *walker) entries(p rsyncx.Piece, count int) ([]rsyncx.Entry, error) {
	all := make([]rsyncx.Entry, 0, count)
	room := w.c.maxDirBytes
	for {
		h, err := w.c.next()
		if err != nil {
			return nil, err
		}
		if h.kind == frameDirEnd && h.size == 0 {
			return all, nil
		}
		if h.kind != frameEntries || h.size == 0 { // which would be a way to go on for ever
			return nil, hostile("a frame of type %q in a directory", h.kind)
		}
		d, err := w.c.load(h)
		if err != nil {
			return nil, err
		}
		last := &rsyncx.Entry{}
		for len(d.b) > 0 {
			e := d.entry(last)
			if d.err != nil {
				return nil, d.err
			}
			if err := rsyncx.CheckName(e.Name); err != nil {
				return nil, err
			}
			if len(all) > 0 && e.Name <= all[len(all)-1].Name {
				return nil, hostile("%q after %q in one directory", rsyncx.Printable(e.Name), rsyncx.Printable(all[len(all)-1].Name))
			}
			if e.Name <= p.After || p.Upto != "" && e.Name > p.Upto {
				return nil, hostile("%q in a piece of a directory that it does not belong to", rsyncx.Printable(e.Name))
			}
			if room -= weight(&e); room < 0 {
				return nil, hostile("the directory %s is larger than %d bytes", rsyncx.Printable(orDot(p.Path)), w.c.maxDirBytes)
			}
			if w.left--; w.left < 0 {
				return nil, rsyncx.ErrTooMany
			}
			all = append(all, e)
			last = &all[len(all)-1]
		}
	}
}
