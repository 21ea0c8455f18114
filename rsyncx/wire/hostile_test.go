package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
)

// peer is an agent that does as the test says.
func peer(t *testing.T, script func(io.ReadWriter)) io.ReadWriteCloser {
	t.Helper()
	near, far := pair()
	ended, drained := make(chan struct{}), make(chan struct{})
	back := &duplex{Reader: far.Reader, Writer: far.Writer}
	r, w := io.Pipe()
	back.Reader = r
	go func() { // what the client sends must never hold it up
		defer close(drained)
		io.Copy(w, far)
		w.Close()
	}()
	go func() {
		defer close(ended)
		script(back)
		r.Close()
		far.Close()
	}()
	t.Cleanup(func() { near.Close(); r.Close(); <-ended; <-drained })
	return near
}

func hello(w io.Writer) {
	io.WriteString(w, magic)
	w.Write(appendFrame(nil, frameHello, appendHello(nil, "9.9.9-hostile")))
}

// request answers everything up to the n-th frame of kind, which it consumes.
func request(rw io.ReadWriter, kind byte) error {
	for {
		var got [headerSize]byte
		if _, err := io.ReadFull(rw, got[:1]); err != nil {
			return err
		}
		if got[0] == magic[0] {
			if _, err := io.ReadFull(rw, make([]byte, len(magic)-1)); err != nil {
				return err
			}
			continue
		}
		if _, err := io.ReadFull(rw, got[1:]); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, rw, int64(binary.BigEndian.Uint32(got[1:]))); err != nil {
			return err
		}
		switch got[0] {
		case kind:
			return nil
		case frameOpen:
			rw.Write(appendFrame(nil, frameAbilities, []byte{15}))
		}
	}
}

func quick() ClientOptions { return ClientOptions{Silence: 5 * time.Second} }

func TestNoGreeting(t *testing.T) {
	for _, c := range []struct{ name, sent, want, hint string }{
		{"nothing", "", "ended without a word", ""},
		{"noise", "Welcome to \x1b[31mprod\r\nLast login: today\n", `"Welcome to \#033[31mprod; Last login: today"`, "start-up files"},
		{"short noise", "hi", `"hi"`, "start-up files"},
		{"half a greeting", magic[:4], "went away", ""},
		{"long noise", strings.Repeat("motd ", 1000), "motd", ""},
		{"a newer version", magic + string(appendFrame(nil, frameHello, []byte{7, 9, 3, '9', '.', '9', 'x', 'y'})), `drsync "9.9" with agent protocol 7 to 9, this side speaks 3 to 3`, "same version"},
		{"cut in the greeting", magic + "H", "went away", ""},
		{"a huge frame", magic + "H\xff\xff\xff\xff", "4294967295 bytes", ""},
		{"another frame", magic + "Z\x00\x00\x00\x00", "where 'H' was due", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) { io.WriteString(rw, c.sent) }), quick())
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 600 {
				t.Fatalf("%v, want %s", err, c.want)
			}
			if h := hint.Of(err); !strings.Contains(h, c.hint) {
				t.Errorf("hint %q, want %q", h, c.hint)
			}
		})
	}
}

func TestSilentAgent(t *testing.T) {
	quit := make(chan struct{})
	defer close(quit)
	silent := peer(t, func(rw io.ReadWriter) { hello(rw); <-quit })
	c, err := Dial(t.Context(), silent, ClientOptions{Silence: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.Clock(t.Context()); err == nil || !strings.Contains(err.Error(), "silent for 30ms") {
		t.Fatal(err)
	}
	if _, err := c.Clock(t.Context()); err == nil {
		t.Error("a dead connection answered")
	}
}

func TestAliveFramesCount(t *testing.T) {
	c, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
		hello(rw)
		request(rw, frameWalk)
		for range 30 {
			time.Sleep(20 * time.Millisecond) // the agent is busy
			rw.Write(appendFrame(nil, frameAlive, nil))
		}
		rw.Write(appendFrame(nil, frameDone, nil))
		request(rw, 'q')
	}), ClientOptions{Silence: 400 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range c.Walk(t.Context(), Tree{Root: "/x"}, rsyncx.WalkOptions{}) {
		t.Error(err)
	}
}

func entryBytes(name string) []byte {
	return appendEntry(nil, &rsyncx.Entry{Name: name, Mode: 0o100644}, &rsyncx.Entry{})
}

func dirFrame(path string) []byte {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return appendFrame(nil, frameDir, appendEntry(append(appendString(nil, path), 0, 0, 0, 0), &rsyncx.Entry{Name: name, Mode: 0o040755}, &rsyncx.Entry{}))
}

func entriesFrame(names ...string) []byte {
	var b []byte
	for _, n := range names {
		b = append(b, entryBytes(n)...)
	}
	return appendFrame(nil, frameEntries, b)
}

func TestHostileListings(t *testing.T) {
	end := appendFrame(nil, frameDirEnd, nil)
	done := appendFrame(nil, frameDone, nil)
	forever := func(frames ...[]byte) func(io.Writer) {
		all := slices.Concat(frames...)
		return func(w io.Writer) {
			for {
				if _, err := w.Write(all); err != nil {
					return
				}
			}
		}
	}
	once := func(frames ...[]byte) func(io.Writer) {
		return func(w io.Writer) { w.Write(slices.Concat(frames...)) }
	}
	for _, c := range []struct {
		name string
		send func(io.Writer)
		want error
	}{
		{"a slash", once(dirFrame(""), entriesFrame("a/b"), end, done), rsyncx.ErrHostile},
		{"dot dot", once(dirFrame(""), entriesFrame(".."), end, done), rsyncx.ErrHostile},
		{"a NUL", once(dirFrame(""), entriesFrame("a\x00b"), end, done), rsyncx.ErrHostile},
		{"no name", once(dirFrame(""), entriesFrame(""), end, done), rsyncx.ErrHostile},
		{"twice", once(dirFrame(""), entriesFrame("a", "a"), end, done), rsyncx.ErrHostile},
		{"out of order", once(dirFrame(""), entriesFrame("b"), entriesFrame("a"), end, done), rsyncx.ErrHostile},
		{"an absolute directory", once(dirFrame("/etc"), end, done), rsyncx.ErrHostile},
		{"a directory above", once(dirFrame("../etc"), end, done), rsyncx.ErrHostile},
		{"a directory of another name", once(appendFrame(nil, frameDir, append(append(appendString(nil, "a"), 0, 0, 0, 0), entryBytes("b")...)), end), rsyncx.ErrHostile},
		{"half an entry", once(dirFrame(""), appendFrame(nil, frameEntries, entryBytes("abc")[:5]), end, done), rsyncx.ErrHostile},
		{"a name longer than its frame", once(dirFrame(""), appendFrame(nil, frameEntries, []byte{0, 200, 1, 'x'}), end), rsyncx.ErrHostile},
		{"a NUL in a link", once(dirFrame(""), appendFrame(nil, frameEntries, appendEntry(nil, &rsyncx.Entry{Name: "l", Mode: 0o120777, Target: "a\x00b"}, &rsyncx.Entry{})), end), rsyncx.ErrHostile},
		{"an error outside", once(appendFrame(nil, frameDirError, appendError(appendString(nil, "../x"), io.EOF)), done), rsyncx.ErrHostile},
		{"a frame of files", once(appendFrame(nil, frameFile, nil)), rsyncx.ErrHostile},
		{"a huge frame", once(dirFrame(""), []byte("i\x7f\xff\xff\xff")), rsyncx.ErrHostile},
		{"an end inside", once(dirFrame(""), done), rsyncx.ErrHostile},
		{"endless directories", forever(dirFrame("a"), end), rsyncx.ErrTooMany},
		{"endless errors", forever(appendFrame(nil, frameDirError, appendError(appendString(nil, "x"), io.EOF))), rsyncx.ErrTooMany},
		{"endless entries", func(w io.Writer) {
			w.Write(dirFrame(""))
			for i := uint64(0); ; i++ {
				var name [10]byte
				if _, err := w.Write(entriesFrame("n" + string(binary.BigEndian.AppendUint64(name[:0], i|0x0101010101010101)))); err != nil {
					return
				}
			}
		}, rsyncx.ErrHostile}, // a NUL or the order, sooner or later: any of the bounds will do
		{"a large directory", func(w io.Writer) {
			w.Write(dirFrame(""))
			for i := range 1000 {
				name := strings.Repeat("x", 100) + string(rune('a'+i/26/26)) + string(rune('a'+i/26%26)) + string(rune('a'+i%26))
				if _, err := w.Write(entriesFrame(name)); err != nil {
					return
				}
			}
		}, rsyncx.ErrHostile},
		{"cut", once(dirFrame(""), entriesFrame("a")), errGoneAway},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
				hello(rw)
				if request(rw, frameWalk) == nil {
					c.send(rw)
				}
			}), quick())
			if err != nil {
				t.Fatal(err)
			}
			conn.maxDirBytes = 64 << 10
			var last error
			for d, err := range conn.Walk(t.Context(), Tree{Root: "/home"}, rsyncx.WalkOptions{MaxEntries: 3000}) {
				if err == nil && rsyncx.CheckPath(d.Path) != nil {
					t.Errorf("%q was let through", d.Path)
				}
				last = err
			}
			switch {
			case last == nil:
				t.Fatal("no error")
			case errors.Is(c.want, errGoneAway) && !strings.Contains(last.Error(), c.want.Error()), !errors.Is(c.want, errGoneAway) && !errors.Is(last, c.want):
				t.Fatalf("%v, want %v", last, c.want)
			}
			if conn.usable() {
				t.Error("the connection may be used again")
			}
		})
	}
}

var errGoneAway = errors.New("went away in the middle")

func fileFrames(name string, size int64, content string, sum []byte) []byte {
	b := appendFrame(nil, frameFile, appendEntry([]byte{0}, &rsyncx.Entry{Name: name, Mode: 0o100644, Size: size}, &rsyncx.Entry{}))
	if content != "" {
		b = append(b, appendFrame(nil, frameData, []byte(content))...)
	}
	return append(b, sum...)
}

func sumFrame(content string, total int64) []byte {
	var h xxh3.Hasher
	h.WriteString(content)
	return appendFrame(nil, frameSum, appendSum(nil, total, &h))
}

func TestHostileFiles(t *testing.T) {
	for _, c := range []struct {
		name   string
		frames []byte
		want   error
	}{
		{"right", fileFrames("f", 5, "hello", sumFrame("hello", 5)), nil},
		{"another file", fileFrames("g", 5, "hello", sumFrame("hello", 5)), rsyncx.ErrHostile},
		{"more than announced", fileFrames("f", 3, "hello", sumFrame("hello", 5)), rsyncx.ErrHostile},
		{"less than announced", fileFrames("f", 9, "hello", sumFrame("hello", 5)), rsyncx.ErrHostile},
		{"damaged", fileFrames("f", 5, "hallo", sumFrame("hello", 5)), ErrDamaged},
		{"another length", fileFrames("f", 5, "hello", sumFrame("hello", 6)), ErrDamaged},
		{"a negative size", appendFrame(nil, frameFile, append(append([]byte{0}, entryBytes("f")[:4]...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0)), rsyncx.ErrHostile},
		{"torn", fileFrames("f", 9, "hello", appendFrame(nil, frameCut, appendError(nil, rsyncx.ErrTorn))), rsyncx.ErrTorn},
		{"cut", fileFrames("f", 9, "hello", nil), errGoneAway},
		{"a frame of listings", fileFrames("f", 9, "hello", appendFrame(nil, frameDirEnd, nil)), rsyncx.ErrHostile},
		{"an empty sum", fileFrames("f", 0, "", appendFrame(nil, frameSum, nil)), rsyncx.ErrHostile},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
				hello(rw)
				if request(rw, frameNames) == nil {
					rw.Write(c.frames)
					if !errors.Is(c.want, errGoneAway) {
						rw.Write(appendFrame(nil, frameDone, nil))
						request(rw, 'q') // until the client closes
					}
				}
			}), quick())
			if err != nil {
				t.Fatal(err)
			}
			var got error
			for f, err := range conn.Read(t.Context(), Tree{Root: "/home"}, rsyncx.Wants(slices.Values([]string{"f"}))) {
				if got == nil {
					got = errors.Join(err, f.Err)
				}
				if f.Body != nil {
					content, err := io.ReadAll(f.Body)
					got = err
					if err == nil && string(content) != "hello" {
						t.Errorf("%q was taken for good", content)
					}
				}
			}
			if errors.Is(c.want, errGoneAway) {
				if got == nil || !strings.Contains(got.Error(), c.want.Error()) {
					t.Fatal(got)
				}
			} else if !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
				t.Fatalf("%v, want %v", got, c.want)
			}
		})
	}
}

// TestBoundedMemory: a length alone takes no memory, and neither does an
// endless directory beyond its bound.
func TestBoundedMemory(t *testing.T) {
	conn, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
		hello(rw)
		if request(rw, frameWalk) != nil {
			return
		}
		rw.Write(dirFrame(""))
		var name [12]byte
		for i := uint64(0); ; i++ {
			for k := range name {
				name[k] = 'a' + byte(i>>(4*(len(name)-1-k))&15)
			}
			if _, err := rw.Write(entriesFrame(string(name[:]))); err != nil {
				return
			}
		}
	}), quick())
	if err != nil {
		t.Fatal(err)
	}
	conn.maxDirBytes = 2 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, err := range conn.Walk(t.Context(), Tree{Root: "/home"}, rsyncx.WalkOptions{}) {
		if !errors.Is(err, rsyncx.ErrHostile) {
			t.Errorf("%v", err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 128<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

func TestRemoteErrorsAreClean(t *testing.T) {
	conn, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
		hello(rw)
		request(rw, frameStream)
		rw.Write(appendFrame(nil, frameError, appendError(nil, hint.New("bad\x1b[2J\nline", "do\x07this"))))
		request(rw, 'q')
	}), quick())
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Stream(t.Context(), "x", "", func() {})
	if want := `stream x: bad\#033[2J; line`; err == nil || err.Error() != want || hint.Of(err) != `do\#007this` {
		t.Errorf("%v (hint %q), want %s", err, hint.Of(err), want)
	}
	if !conn.usable() {
		t.Error("an error that the agent reported closed the connection")
	}
}

func TestCancelledWhileAgentHangs(t *testing.T) {
	mine := errors.New("mine")
	quit := make(chan struct{})
	t.Cleanup(func() { close(quit) })
	ops := map[string]func(context.Context, *Conn) error{
		"lstat": func(ctx context.Context, c *Conn) error { _, err := c.Lstat(ctx, Tree{Root: "/x"}, "y"); return err },
		"clock": func(ctx context.Context, c *Conn) error { _, err := c.Clock(ctx); return err },
		"walk": func(ctx context.Context, c *Conn) (last error) {
			for _, err := range c.Walk(ctx, Tree{Root: "/x"}, rsyncx.WalkOptions{}) {
				last = err
			}
			return last
		},
		"read": func(ctx context.Context, c *Conn) (last error) {
			endless := func(yield func(string) bool) {
				for yield("a") {
				}
			}
			for _, err := range c.Read(ctx, Tree{Root: "/x"}, rsyncx.Wants(endless)) {
				last = err
			}
			return last
		},
		"stream": func(ctx context.Context, c *Conn) error { _, err := c.Stream(ctx, "s", "", func() {}); return err },
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			near, far := pair()
			go func() { // it greets and opens, then neither reads nor writes
				hello(far)
				request(far, frameOpen)
				far.Write(appendFrame(nil, frameAbilities, []byte{15}))
				<-quit
			}()
			t.Cleanup(func() { near.Close() })
			c, err := Dial(t.Context(), near, quick())
			if err != nil {
				t.Fatal(err)
			}
			if name != "stream" && name != "clock" {
				if _, err := c.Open(t.Context(), Tree{Root: "/x"}); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(20*time.Millisecond, func() { cancel(mine) })
			start := time.Now()
			if err := op(ctx, c); !errors.Is(err, mine) {
				t.Errorf("%v, want the cause", err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
