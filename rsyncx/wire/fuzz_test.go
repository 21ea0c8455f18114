package wire

import (
	"bytes"
	"context"
	"io"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// replay is an agent whose whole output is known beforehand.
type replay struct {
	io.Reader
}

func (r *replay) Write(p []byte) (int, error) { return len(p), nil }
func (r *replay) Close() error                { return nil }

// FuzzClient: whatever an agent sends, the client neither panics nor lets a bad
// name through, and it ends.
func FuzzClient(f *testing.F) {
	var b bytes.Buffer
	hello(&b)
	greeting := b.Bytes()
	open := appendFrame(nil, frameAbilities, []byte{15})
	done := appendFrame(nil, frameDone, nil)
	f.Add(byte(0), slices.Concat(greeting, open, dirFrame(""), entriesFrame("a", "b"), appendFrame(nil, frameDirEnd, nil), done))
	f.Add(byte(0), slices.Concat(greeting, open, appendFrame(nil, frameDirError, appendError(appendString(nil, "x"), io.EOF)), done))
	f.Add(byte(1), slices.Concat(greeting, open, fileFrames("f", 5, "hello", sumFrame("hello", 5)), appendFrame(nil, frameFileError, appendError(nil, io.EOF)), done))
	f.Add(byte(2), slices.Concat(greeting, open, appendFrame(nil, frameEntry, entryBytes("f"))))
	f.Add(byte(3), slices.Concat(greeting, appendFrame(nil, frameTime, appendTime(nil, time.Unix(1, 1)))))
	f.Add(byte(4), slices.Concat(greeting, done, appendFrame(nil, frameData, []byte("hello")), sumFrame("hello", 5)))
	f.Add(byte(0), slices.Concat(greeting, open, squeezed(slices.Concat(dirFrame(""), appendFrame(nil, frameDirEnd, nil), done))))
	f.Add(byte(1), slices.Concat(greeting, open, appendFrame(nil, frameFile, appendEntry([]byte{0}, &rsyncx.Entry{Name: "f", Size: 5}, &rsyncx.Entry{})), appendFrame(nil, frameZeros, []byte{5})))
	f.Add(byte(5), slices.Concat(greeting, open, sumsFrames("f", 5, 3), appendFrame(nil, frameFileError, appendError(nil, io.EOF)), done))
	f.Add(byte(6), slices.Concat(greeting, open, aheadFrame("", "a", "given"), dirFrame(""), appendFrame(nil, frameDirEnd, nil), done))
	f.Fuzz(func(t *testing.T, op byte, sent []byte) {
		ctx := context.Background()
		c, err := Dial(ctx, &replay{Reader: bytes.NewReader(sent)}, ClientOptions{Silence: time.Minute})
		if err != nil {
			return
		}
		defer c.Close()
		switch op % 7 {
		case 0, 6:
			var o rsyncx.WalkOptions
			if op%7 == 6 {
				o.Same = func(p rsyncx.Piece, _ rsyncx.DirDigest) bool { return len(p.Path)%2 == 0 }
			}
			for d, err := range c.Walk(ctx, Tree{Root: "/x"}, o) {
				if err != nil {
					continue
				}
				if rsyncx.CheckPath(d.Path) != nil {
					t.Errorf("path %q", d.Path)
				}
				for i, e := range d.Entries {
					if rsyncx.CheckName(e.Name) != nil || i > 0 && e.Name <= d.Entries[i-1].Name {
						t.Errorf("name %q", e.Name)
					}
				}
			}
		case 1:
			for f, err := range c.Read(ctx, Tree{Root: "/x"}, rsyncx.Wants(slices.Values([]string{"f", "g/h"}))) {
				if err == nil && f.Body != nil {
					n, err := io.Copy(io.Discard, f.Body)
					if err == nil && n != f.Entry.Size {
						t.Errorf("%d bytes of %d without an error", n, f.Entry.Size)
					}
				}
			}
		case 2:
			c.Lstat(ctx, Tree{Root: "/x"}, "f")
		case 3:
			c.Clock(ctx)
		case 5:
			for f, err := range c.Sums(ctx, Tree{Root: "/x"}, slices.Values([]rsyncx.SumWant{{Path: "f", Size: 5, Block: 2}, {Path: "g"}})) {
				if err == nil && f.Err == nil && f.Path == "f" && int64(len(f.Sums.Strong)) != (f.Entry.Size+1)/2 {
					t.Errorf("%d sums of %d bytes", len(f.Sums.Strong), f.Entry.Size)
				}
			}
		case 4:
			if r, err := c.Stream(ctx, "s", "", func() {}); err == nil {
				io.Copy(io.Discard, r)
				r.Close()
			}
		}
	})
}

// FuzzServer: whatever a client sends, the server does not panic and ends with
// its input.
func FuzzServer(f *testing.F) {
	greeting := magic + string(appendFrame(nil, frameHello, append(appendHello(nil, "x"), 0)))
	root := appendTree(nil, Tree{Root: "/nonexistent/allowed"})
	f.Add([]byte(greeting + string(appendFrame(nil, frameOpen, root))))
	f.Add([]byte(greeting + string(appendFrame(nil, frameLstat, appendString(slices.Clone(root), "a")))))
	f.Add([]byte(greeting + string(appendFrame(nil, frameWalk, append(slices.Clone(root), 0, 0, 5, 0)))))
	f.Add([]byte(greeting + string(appendFrame(nil, frameRead, root)) + string(appendFrame(nil, frameNames, (&question{path: "a"}).append(nil, false))) + string(appendFrame(nil, frameNamesEnd, nil))))
	f.Add([]byte(greeting + string(appendFrame(nil, frameStream, append(appendString(nil, "s"), 0))) + string(appendFrame(nil, frameClock, nil))))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, sent []byte) {
		// The fuzzer cannot guess the name of a directory: it gets a short one.
		open := func(string, rsyncx.View) (rsyncx.Source, error) { return rsyncx.Local(dir) }
		Serve(context.Background(), bytes.NewReader(sent), io.Discard, Server{Roots: []string{"/"}, Open: open, Streams: map[string]StreamFunc{
			"s": func(_ context.Context, arg string, w io.Writer) error { _, err := io.WriteString(w, arg); return err },
		}})
	})
}

// squeezed returns frames as one compressed frame.
func squeezed(frames []byte) []byte {
	p := press{}
	out, err := p.squeeze(slices.Concat(frames, appendFrame(nil, frameAlive, nil)))
	if err != nil {
		panic(err)
	}
	if out[0] == frameSqueezed {
		return out
	}
	encoded := p.encoder.EncodeAll(frames, appendUint(nil, int64(len(frames))))
	return appendFrame(nil, frameSqueezed, encoded)
}

// FuzzUnsqueeze: whatever is decompressed stays within its bound.
func FuzzUnsqueeze(f *testing.F) {
	decoder, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(squeezed(make([]byte, 10_000))[headerSize:])
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		out, err := unsqueeze(decoder, payload, nil)
		if err == nil && len(out) > maxRecord {
			t.Errorf("%d bytes", len(out))
		}
	})
}

// FuzzQuestion: what is taken for a question is a good one, and can be asked again.
func FuzzQuestion(f *testing.F) {
	for _, q := range []question{{path: "a/b"}, {path: "a", kind: kindPart, part: rsyncx.Range{Off: 5}}, {path: "", kind: kindRanges, ranges: []rsyncx.Range{{Off: 1, Len: 2}, {Off: 3, Len: 1}}, block: 64, weak: true}} {
		f.Add(q.append(nil, true), true)
		f.Add(q.append(nil, false), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, sums bool) {
		d := decoder{b: b}
		q := d.question(sums)
		if d.err != nil {
			return
		}
		if rsyncx.CheckPath(q.path) != nil || !validRanges(q.ranges) || len(q.ranges) > maxRanges || q.part.Off < 0 || q.part.Off+q.part.Len < q.part.Off {
			t.Fatalf("%+v", q)
		}
		again := decoder{b: q.append(nil, sums)}
		if r := again.question(sums); again.end("question") != nil || !reflect.DeepEqual(r, q) {
			t.Errorf("%+v, then %+v", q, r)
		}
	})
}
