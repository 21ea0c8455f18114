package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// DefaultSilence is how long an agent may say nothing while an answer is due.
const DefaultSilence = 2 * time.Minute

// ClientOptions configure a Conn.
type ClientOptions struct {
	Version string        // of this program, for the agent's error messages
	Silence time.Duration // ends a request in which the agent says nothing for so long; 0 is DefaultSilence
	// Compress says what the agent compresses.
	Compress Compress
	// Greeting stands for Silence until the agent has greeted: a login may take
	// longer than any answer. 0 is Silence.
	Greeting time.Duration
	// Explain may add to an error of the transport what else is known about it,
	// such as what the agent's process printed. It may be nil.
	Explain func(error) error
}

// Conn is the client's side of one stream to an agent. It carries one request
// at a time; a second one waits for nothing and must not be made. A request that
// does not run to its end closes the Conn, because the rest of its answer
// would be in the way of the next.
type Conn struct {
	link    *link
	version string // of the agent
	explain func(error) error
	opened  map[Tree]rsyncx.Abilities
	trip    time.Duration // the shortest round trip so far; 0 is none
	payload []byte
	names   *interned

	head    [headerSize]byte
	inner   []byte // what is left of a compressed frame
	whole   *chunk // its buffer
	decoder *zstd.Decoder
	spare   chan *chunk // for decompressed frames

	alive      time.Time     // when the first came of the alive frames that nothing else followed
	leastAlive time.Duration // of the request under way

	maxDirBytes   int   // rsyncx.MaxDirBytes; tests set less
	maxNameErrors int64 // maxNameErrors; tests set less
}

// Tree is a directory of the agent's host as a Source shows it.
type Tree struct {
	Root string
	View rsyncx.View
}

// Dial greets the agent at the other end of rwc, which the Conn closes in the end.
// rwc.Close must make a blocked Read or Write return, sooner or later.
func Dial(ctx context.Context, rwc io.ReadWriteCloser, o ClientOptions) (*Conn, error) {
	if o.Silence <= 0 {
		o.Silence = DefaultSilence
	}
	if o.Explain == nil {
		o.Explain = func(err error) error { return err }
	}
	if o.Greeting <= 0 {
		o.Greeting = o.Silence
	}
	if o.Compress >= compressModes {
		return nil, fmt.Errorf("greet the agent: internal error: compression %d", o.Compress)
	}
	c := &Conn{link: newLink(rwc, o.Greeting), explain: o.Explain, opened: map[Tree]rsyncx.Abilities{}, names: &interned{},
		spare: make(chan *chunk, chunkSpares/4), maxDirBytes: rsyncx.MaxDirBytes, maxNameErrors: maxNameErrors}
	err := c.request(ctx, func() error { return c.greet(o.Version, o.Compress) })
	if err != nil {
		c.link.kill(err)
		return nil, fmt.Errorf("greet the agent: %w", err)
	}
	c.link.silence = o.Silence
	return c, nil
}

func (c *Conn) greet(version string, compress Compress) error {
	hello := append(appendHello(nil, version), byte(compress))
	if err := c.link.send(append([]byte(magic), appendFrame(nil, frameHello, hello)...)); err != nil {
		return err
	}
	if err := c.readMagic(); err != nil {
		return err
	}
	d, err := c.expect(frameHello)
	if err != nil {
		return err
	}
	lo, hi, theirs := d.hello()
	if d.err != nil {
		return d.err
	}
	c.version = Clean([]byte(theirs))
	_, err = choose(lo, hi, c.version)
	return err
}

func appendHello(b []byte, version string) []byte {
	b = binary.AppendUvarint(b, minProtocol)
	b = binary.AppendUvarint(b, maxProtocol)
	return appendString(b, clip(version, maxVersion))
}

// hello decodes a greeting. What follows is what a client wants.
func (d *decoder) hello() (lo, hi uint64, version string) {
	lo, hi = d.uint("version", 1<<16), d.uint("version", 1<<16)
	version = d.string("version", maxVersion)
	return lo, hi, version
}

// compression decodes what a client wants compressed. Bytes that a later version may
// add are ignored.
func (d *decoder) compression() Compress {
	c := d.uint("compression", uint64(compressModes)-1)
	d.b = nil
	return Compress(c)
}

// choose returns the highest version of the protocol that both sides speak.
func choose(lo, hi uint64, theirs string) (uint64, error) {
	v := min(hi, maxProtocol)
	if v >= max(lo, minProtocol) {
		return v, nil
	}
	return 0, hint.With(fmt.Errorf("%w: the other side is drsync %q with agent protocol %d to %d, this side speaks %d to %d",
		ErrVersion, theirs, lo, hi, minProtocol, maxProtocol), "install the same version of drsync on both hosts")
}

// readMagic reads the magic bytes. Anything else in their place is shown.
func (c *Conn) readMagic() error {
	got := make([]byte, 0, 512)
	for len(got) < len(magic) {
		n, err := c.link.Read(got[len(got):len(magic)])
		got = got[:len(got)+n]
		if err == io.EOF && len(got) == 0 { //nolint:errorlint // a lost connection wraps io.EOF
			return c.explain(ErrMute)
		}
		if err != nil && err != io.EOF { //nolint:errorlint // a lost connection wraps io.EOF
			return c.explain(err)
		}
		if !strings.HasPrefix(magic, string(got)) {
			return c.noise(got)
		}
		if err == io.EOF { //nolint:errorlint // a lost connection wraps io.EOF
			return c.explain(&lostError{errors.New("the agent went away in the middle of its greeting")})
		}
	}
	return nil
}

// noise makes the error for a peer that began with something else: its first
// line or so, as far as it comes soon.
func (c *Conn) noise(got []byte) error {
	c.link.silence = 300 * time.Millisecond
	for len(got) < cap(got) {
		n, err := c.link.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		if err != nil {
			break
		}
	}
	return hint.With(fmt.Errorf("%w it sent \"%s\"", ErrNoise, clip(Clean(got), 200)),
		"the login shell or the command on the active prints something of its own; make its start-up files silent for commands that ssh runs")
}

// request runs do, which ends early when ctx is cancelled. Any error that does not
// come from the agent closes the Conn.
func (c *Conn) request(ctx context.Context, do func() error) error {
	return c.begin(ctx)(do())
}

// begin starts a request. The function it returns ends it: it takes what went
// wrong and returns what to show for it.
func (c *Conn) begin(ctx context.Context) (end func(error) error) {
	c.alive, c.leastAlive = time.Time{}, leastAlive
	stop := context.AfterFunc(ctx, func() { c.link.kill(context.Cause(ctx)) })
	return func(err error) error {
		if !stop() {
			// Perhaps the answer was complete before, but the link is lost.
			c.link.kill(context.Cause(ctx))
			if err != nil {
				return context.Cause(ctx)
			}
		}
		var reported *Error
		if err != nil && !errors.As(err, &reported) {
			c.link.kill(err)
		}
		return err
	}
}

// take returns the next bytes from the agent, at most limit and at least one. They are valid until
// the next call, and longer for who retains the chunk. The end of the input is an error here.
func (c *Conn) take(limit int) ([]byte, *chunk, error) {
	if len(c.inner) > 0 {
		part := c.inner[:min(limit, len(c.inner))]
		c.inner = c.inner[len(part):]
		return part, c.whole, nil
	}
	part, from, err := c.link.take(limit)
	var lost *lostError
	switch {
	case err == io.EOF: //nolint:errorlint // a lost connection wraps io.EOF
		err = c.explain(&lostError{errors.New("the agent went away in the middle of a request")})
	case errors.As(err, &lost):
		err = c.explain(err)
	}
	return part, from, err
}

// read is take with a copy.
func (c *Conn) read(p []byte) (int, error) {
	part, _, err := c.take(len(p))
	return copy(p, part), err
}

// input is Conn.read as an io.Reader.
type input struct{ c *Conn }

func (i input) Read(p []byte) (int, error) { return i.c.read(p) }

// usable reports whether another request can be made.
func (c *Conn) usable() bool { return len(c.inner) == 0 && c.link.quiet() }

// Version is the agent's version, safe to print.
func (c *Conn) Version() string { return c.version }

// Close ends the connection; the agent ends when it notices.
func (c *Conn) Close() error {
	c.link.kill(errors.New("the connection to the agent was closed"))
	return nil
}

// next reads the header of the next frame that means something.
func (c *Conn) next() (header, error) {
	for {
		h, err := c.header()
		if err != nil {
			return header{}, err
		}
		switch {
		case h.kind == frameSqueezed:
			if err := c.open(h); err != nil {
				return header{}, err
			}
		case h.kind != frameAlive:
			c.alive = time.Time{}
			return h, nil
		case h.size != 0:
			return header{}, hostile("a frame of type %q with %d bytes", h.kind, h.size)
		default:
			if err := c.stillAlive(time.Now()); err != nil {
				return header{}, err
			}
		}
	}
}

// stillAlive takes an alive frame. It ends a request that has given nothing else
// for too long.
func (c *Conn) stillAlive(now time.Time) error {
	if c.alive.IsZero() {
		c.alive = now
		return nil
	}
	most := max(longestAlive*c.link.silence, c.leastAlive)
	if now.Sub(c.alive) <= most {
		return nil
	}
	c.link.kill(&lostError{fmt.Errorf("%w: for %v it said nothing but that it is alive", ErrSilent, most)})
	return c.explain(c.link.err)
}

// open decompresses a frame; what it holds is read next.
func (c *Conn) open(h header) error {
	if len(c.inner) > 0 {
		return hostile("a compressed frame in a compressed frame")
	}
	if h.size > maxRecord {
		return hostile("a compressed frame with %d bytes", h.size)
	}
	var err error
	if c.payload, err = readMore(input{c}, c.payload[:0], h.size); err != nil {
		return err
	}
	if c.decoder == nil {
		if c.decoder, err = newDecoder(); err != nil {
			return err
		}
	}
	if c.whole != nil {
		c.whole.release()
	}
	c.whole = newChunk(c.spare, maxRecord)
	c.inner, err = unsqueeze(c.decoder, c.payload, c.whole.buf)
	return err
}

// header reads a frame's header.
func (c *Conn) header() (header, error) {
	for got := 0; got < headerSize; {
		part, _, err := c.take(headerSize - got)
		if err != nil {
			if got > 0 {
				err = unexpected(err)
			}
			return header{}, err
		}
		got += copy(c.head[got:], part)
	}
	return parseHeader(c.head)
}

// load reads the payload of a frame. It is valid until something else is read.
func (c *Conn) load(h header) (decoder, error) {
	if h.size == 0 {
		return decoder{}, nil
	}
	payload, _, err := c.take(h.size)
	if err != nil {
		return decoder{}, unexpected(err)
	}
	if len(payload) < h.size { // it lies across chunks
		c.payload, err = readMore(input{c}, append(c.payload[:0], payload...), h.size)
		if err != nil {
			return decoder{}, err
		}
		payload = c.payload
	}
	return decoder{b: payload, names: c.names}, nil
}

// expect reads a frame of the given kind, or the error that came instead.
func (c *Conn) expect(kind byte) (decoder, error) {
	h, err := c.next()
	if err != nil {
		return decoder{}, err
	}
	switch h.kind {
	case kind:
		return c.load(h)
	case frameError:
		return decoder{}, c.reported(h)
	}
	return decoder{}, hostile("a frame of type %q where %q was due", h.kind, kind)
}

// reported decodes the error in a frame.
func (c *Conn) reported(h header) error {
	d, err := c.load(h)
	if err != nil {
		return err
	}
	reported := d.remoteError()
	if err := d.end("error"); err != nil {
		return err
	}
	return reported
}

// ask sends a request.
func (c *Conn) ask(kind byte, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("a request of %d bytes is too long: filter rules may take up to %d", len(payload), maxFrame)
	}
	return c.link.send(appendFrame(nil, kind, payload))
}
