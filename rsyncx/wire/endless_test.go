package wire

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// TestOnlyAliveForEver: an agent that says nothing but that it lives is cut off,
// later where an answer may take its time, and one that gives something is not.
func TestOnlyAliveForEver(t *testing.T) {
	alive := appendFrame(nil, frameAlive, nil)
	dir := slices.Concat(dirFrame("d"), appendFrame(nil, frameDirEnd, nil))
	walk := func(t *testing.T, c *Conn) (last error) {
		for _, last = range c.Walk(t.Context(), Tree{Root: "/x"}, rsyncx.WalkOptions{}) {
		}
		return last
	}
	same := func(t *testing.T, c *Conn) (last error) {
		o := rsyncx.WalkOptions{Same: func(rsyncx.Piece, rsyncx.DirDigest) bool { return true }}
		for _, last = range c.Walk(t.Context(), Tree{Root: "/x"}, o) {
		}
		return last
	}
	stream := func(t *testing.T, c *Conn) error {
		r, err := c.Stream(t.Context(), "db", "", func() {})
		if err == nil {
			defer r.Close()
			_, err = io.ReadAll(r)
		}
		return err
	}
	sums := func(t *testing.T, c *Conn) (last error) {
		want := slices.Values([]rsyncx.SumWant{{Path: "f", Size: 1, Block: 1024}})
		for _, last = range c.Sums(t.Context(), Tree{Root: "/x"}, want) {
		}
		return last
	}
	for _, c := range []struct {
		name    string
		kind    byte
		silence time.Duration
		begin   []byte
		ask     func(*testing.T, *Conn) error
		useful  time.Duration // something is given so often
		after   time.Duration // it is cut off; 0 is never
	}{
		{"a walk", frameWalk, 10 * time.Second, nil, walk, 0, leastAlive},
		{"a patient walk", frameWalk, 2 * time.Minute, nil, walk, 0, longestAlive * 2 * time.Minute},
		{"a walk with digests", frameWalk, 10 * time.Second, nil, same, 0, leastAlive},
		{"a slow walk", frameWalk, 10 * time.Second, nil, walk, 14 * time.Minute, 0},
		{"a stream", frameStream, 10 * time.Second, appendFrame(nil, frameDone, nil), stream, 0, leastAliveWhole},
		{"sums", frameSums, 10 * time.Second, nil, sums, 0, leastAliveWhole},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					hello(far)
					if request(far, c.kind) != nil {
						return
					}
					go io.Copy(io.Discard, far)
					far.Write(c.begin)
					start, given := time.Now(), time.Now()
					for c.after > 0 || time.Since(start) < 3*time.Hour {
						time.Sleep(5 * time.Second)
						b := alive
						if c.useful > 0 && time.Since(given) > c.useful {
							given, b = time.Now(), dir
						}
						if _, err := far.Write(b); err != nil {
							return
						}
					}
					far.Write(appendFrame(nil, frameDone, nil))
				}()
				conn, err := Dial(t.Context(), near, ClientOptions{Silence: c.silence})
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				err = c.ask(t, conn)
				took := time.Since(start)
				switch {
				case c.after == 0 && err != nil:
					t.Errorf("%v after %v", err, took)
				case c.after > 0 && (!errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "nothing but")):
					t.Errorf("%v after %v", err, took)
				case c.after > 0 && (took < c.after || took > c.after+time.Minute):
					t.Errorf("cut off after %v, want %v", took, c.after)
				}
				conn.Close()
				far.Close()
				<-ended
			})
		})
	}
}

// TestEmptyFramesForEver: what holds nothing is no progress.
func TestEmptyFramesForEver(t *testing.T) {
	for name, begin := range map[string][]byte{
		"entries":       slices.Concat(dirFrame(""), appendFrame(nil, frameEntries, nil)),
		"announcements": appendFrame(nil, frameAhead, nil),
	} {
		c, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
			hello(rw)
			if request(rw, frameWalk) == nil {
				rw.Write(begin)
				request(rw, 0)
			}
		}), quick())
		if err != nil {
			t.Fatal(err)
		}
		var o rsyncx.WalkOptions
		if name == "announcements" {
			o.Same = func(rsyncx.Piece, rsyncx.DirDigest) bool { return true }
		}
		var last error
		for _, last = range c.Walk(t.Context(), Tree{Root: "/x"}, o) {
		}
		if !errors.Is(last, rsyncx.ErrHostile) {
			t.Errorf("%s: %v", name, last)
		}
	}
}

// TestNameErrorsAreBounded: below what the listing itself may hold.
func TestNameErrorsAreBounded(t *testing.T) {
	if w := newWalker(&Conn{maxNameErrors: maxNameErrors}, rsyncx.DefaultMaxEntries); w.odd != 1<<20 {
		t.Errorf("%d", w.odd)
	}
	bad := appendFrame(nil, frameDirError, appendError(appendString(nil, "x"), io.EOF))
	c, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
		hello(rw)
		if request(rw, frameWalk) != nil {
			return
		}
		for {
			if _, err := rw.Write(bad); err != nil {
				return
			}
		}
	}), quick())
	if err != nil {
		t.Fatal(err)
	}
	c.maxNameErrors = 100
	n := 0
	var last error
	for _, last = range c.Walk(t.Context(), Tree{Root: "/x"}, rsyncx.WalkOptions{}) {
		n++
	}
	if !errors.Is(last, rsyncx.ErrTooMany) || n != 102 {
		t.Errorf("%d, %v", n, last)
	}
}
