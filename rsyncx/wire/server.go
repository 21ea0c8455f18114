package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// StreamFunc writes a stream to w. It obeys ctx, which ends when the client goes away.
type StreamFunc func(ctx context.Context, arg string, w io.Writer) error

// Server says what an agent serves.
type Server struct {
	Roots   []string              // directories whose trees may be asked for
	Streams map[string]StreamFunc // by name
	Version string                // of this program
	// Open opens the source of a directory that was found to be allowed; nil is
	// rsyncx.LocalWithin, with links that lead no further than Roots.
	Open func(root string, v rsyncx.View) (rsyncx.Source, error)
}

// ErrClientGone says that the client went away in the middle of a request.
var ErrClientGone = errors.New("the client went away in the middle of a request")

// Serve answers the client at the other end of in and out until in ends, which
// is nil between requests. When ctx is cancelled Serve returns its cause within
// about a second, even if a Write to out or a Read of in is still blocked then.
func Serve(ctx context.Context, in io.Reader, out io.Writer, s Server) error {
	if s.Open == nil {
		s.Open = func(root string, v rsyncx.View) (rsyncx.Source, error) { return rsyncx.LocalWithin(root, v, s.Roots) }
	}
	if s.Version == "" {
		s.Version = "unknown"
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &agent{Server: s, out: newFrameWriter(out), box: newInbox(), sources: map[Tree]rsyncx.Source{}}
	go func() {
		err := a.receive(in, ctx.Done())
		if err == nil {
			err = ErrClientGone
		}
		// After the box: what still runs is told that nobody listens.
		a.box.end(err)
		cancel(err)
	}()
	done := make(chan error, 1)
	go func() {
		err := a.serve(ctx)
		for _, src := range a.sources {
			src.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(time.Second):
		return context.Cause(ctx)
	}
}

// agent is the server's side of one stream.
type agent struct {
	Server
	out     *frameWriter
	box     *inbox
	sources map[Tree]rsyncx.Source
	body    hashed // of the file that is being sent
	scratch []byte
}

// receive greets and then moves frames into the box until in ends.
func (a *agent) receive(in io.Reader, quit <-chan struct{}) error {
	var got [len(magic)]byte
	if _, err := io.ReadFull(in, got[:]); err != nil || string(got[:]) != magic {
		return hint.New("no drsync is at the other end", "this command is started by drsync on the standby, through ssh; it is of no use by hand")
	}
	for first := true; ; first = false {
		h, err := readHeader(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if first != (h.kind == frameHello) {
			return hostile("a frame of type %q out of place", h.kind)
		}
		payload, err := readMore(in, nil, h.size)
		if err != nil {
			return err
		}
		if err := a.box.put(frame{h.kind, payload}, quit); err != nil {
			return err
		}
	}
}

// serve greets and answers requests.
func (a *agent) serve(ctx context.Context) error {
	if _, err := io.WriteString(a.out.w, magic); err != nil {
		return err
	}
	if err := errors.Join(a.out.write(frameHello, appendHello(nil, a.Version)), a.out.flush()); err != nil {
		return err
	}
	hello, err := a.box.take(ctx)
	if err != nil {
		if errors.Is(err, ErrClientGone) {
			return nil
		}
		return err
	}
	d := &decoder{b: hello.payload}
	lo, hi, version := d.hello()
	if d.err != nil {
		return d.err
	}
	if _, err := choose(lo, hi, Clean([]byte(version))); err != nil {
		return err // the client finds the same from our greeting
	}
	a.out.compress(d.compression())
	if err := d.end("greeting"); err != nil {
		return err
	}
	for {
		f, err := a.box.take(ctx)
		if errors.Is(err, ErrClientGone) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.answer(ctx, f); err != nil {
			return err
		}
		if err := a.out.flush(); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

// answer handles one request. Its error ends the session.
func (a *agent) answer(ctx context.Context, f frame) error {
	d := &decoder{b: f.payload}
	var err error
	switch f.kind {
	case frameClock:
		return a.out.write(frameTime, appendTime(nil, time.Now()))
	case frameOpen:
		err = a.open(d)
	case frameLstat:
		err = a.lstat(ctx, d)
	case frameWalk:
		err = a.walk(ctx, d)
	case frameRead:
		err = a.read(ctx, d)
	case frameSums:
		err = a.sums(ctx, d)
	case frameStream:
		err = a.stream(ctx, d)
	case frameStop: // of a walk that ended by itself meanwhile
		return nil
	default:
		return hostile("a request of type %q", f.kind)
	}
	var final *sessionError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &final), errors.Is(err, rsyncx.ErrHostile) && d.err != nil:
		return err
	case context.Cause(ctx) != nil && errors.Is(context.Cause(ctx), ErrClientGone):
		return ErrClientGone
	}
	return a.out.write(frameError, appendError(nil, err))
}

// sessionError ends the session: the answer is cut in the middle.
type sessionError struct{ err error }

func (e *sessionError) Error() string { return e.err.Error() }
func (e *sessionError) Unwrap() error { return e.err }

// send writes a frame of an answer.
func (a *agent) send(kind byte, payload []byte) error {
	if err := a.out.write(kind, payload); err != nil {
		return &sessionError{fmt.Errorf("answer: %w", err)}
	}
	return nil
}

func (a *agent) flush() error {
	if err := a.out.flush(); err != nil {
		return &sessionError{fmt.Errorf("answer: %w", err)}
	}
	return nil
}

// keepAlive speaks up now and then until the function it returns is called,
// which may be done again. It is called before the end of the answer is sent: after that
// end nothing may follow.
func (a *agent) keepAlive() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(aliveEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if a.out.alive() != nil {
					return
				}
			case <-quit:
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-ended })
}

// source returns the opened source of the root that a request names.
func (a *agent) source(d *decoder) (rsyncx.Source, error) {
	tree := d.tree()
	if d.err != nil {
		return nil, d.err
	}
	if src, ok := a.sources[tree]; ok {
		return src, nil
	}
	if len(a.sources) >= maxRoots { // requests come one at a time, and each names its root again
		for known, src := range a.sources {
			_ = src.Close()
			delete(a.sources, known)
		}
	}
	src, err := confine(a.Roots, tree.Root, func(path string) (rsyncx.Source, error) { return a.Open(path, tree.View) })
	if err != nil {
		return nil, err
	}
	a.sources[tree] = src
	return src, nil
}

func (a *agent) open(d *decoder) error {
	src, err := a.source(d)
	if err != nil {
		return err
	}
	if err := d.end("request"); err != nil {
		return err
	}
	can := src.Abilities()
	can.Digests = true // which this package makes
	return a.send(frameAbilities, appendAbilities(nil, can))
}

func (a *agent) lstat(ctx context.Context, d *decoder) error {
	src, err := a.source(d)
	if err != nil {
		return err
	}
	path := d.string("path", maxPath)
	if err := d.end("request"); err != nil {
		return err
	}
	if err := rsyncx.CheckPath(path); err != nil {
		return err
	}
	e, err := src.Lstat(ctx, path)
	if err != nil {
		return bare(err)
	}
	if err := sendable(&e); err != nil {
		return err
	}
	return a.send(frameEntry, appendEntry(nil, &e, &rsyncx.Entry{}))
}

// sendable returns an error for an entry that the client would take for hostile,
// so that one odd name does not look like an attack.
func sendable(e *rsyncx.Entry) error {
	switch {
	case len(e.Name) > 255 || len(e.Target) > maxTarget || len(e.User) > maxOwner || len(e.Group) > maxOwner:
		return errors.New("a name or link target is too long to be carried")
	case e.Size < 0 || e.Mtime.Nsec < 0 || e.Mtime.Nsec > 999_999_999:
		return errors.New("its size or time is out of range")
	case e.Xattrs != "" && rsyncx.CheckXattrs(e.Xattrs) != nil:
		return errors.New("its extended attributes are too long to be carried")
	}
	return nil
}

// bare strips the path off an error, which the client adds again.
func bare(err error) error {
	if single := (*rsyncx.PathError)(nil); errors.As(err, &single) {
		return single.Err
	}
	return err
}
