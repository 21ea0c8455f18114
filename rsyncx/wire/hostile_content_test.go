package wire

import (
	"errors"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// sumsFrames is the answer with the sums of a file of size bytes in so many blocks.
func sumsFrames(name string, size int64, blocks int, frames ...[]byte) []byte {
	b := appendEntry(nil, &rsyncx.Entry{Name: name, Mode: 0o100644, Size: size}, &rsyncx.Entry{})
	b = append(b, make([]byte, 16)...)
	b = appendUint(appendUint(b, size), int64(blocks))
	if frames == nil && blocks > 0 {
		frames = [][]byte{appendFrame(nil, frameBlocks, make([]byte, 8*blocks))}
	}
	return append(appendFrame(nil, frameSumsOf, b), slices.Concat(frames...)...)
}

func TestHostileSums(t *testing.T) {
	done := appendFrame(nil, frameDone, nil)
	for _, c := range []struct {
		name   string
		frames []byte
		want   error
	}{
		{"right", sumsFrames("f", 5, 3), nil},
		{"too many blocks", sumsFrames("f", 5, 4), rsyncx.ErrHostile},
		{"too few blocks", sumsFrames("f", 5, 2), rsyncx.ErrHostile},
		{"a count beyond all bounds", sumsFrames("f", math.MaxInt64, 1<<40, []byte{}), rsyncx.ErrHostile},
		{"more blocks than it said", sumsFrames("f", 5, 3, appendFrame(nil, frameBlocks, make([]byte, 32))), rsyncx.ErrHostile},
		{"half a block", sumsFrames("f", 5, 3, appendFrame(nil, frameBlocks, make([]byte, 12))), rsyncx.ErrHostile},
		{"an empty frame of blocks", sumsFrames("f", 5, 3, appendFrame(nil, frameBlocks, nil)), rsyncx.ErrHostile},
		{"an end with blocks due", sumsFrames("f", 5, 3, []byte{}), rsyncx.ErrHostile},
		{"another file", sumsFrames("g", 5, 3), rsyncx.ErrHostile},
		{"content", fileFrames("f", 5, "hello", sumFrame("hello", 5)), rsyncx.ErrHostile},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
				hello(rw)
				if request(rw, frameNames) == nil {
					rw.Write(append(c.frames, done...))
					request(rw, frameStop)
				}
			}), quick())
			if err != nil {
				t.Fatal(err)
			}
			var got error
			for f, err := range conn.Sums(t.Context(), Tree{Root: "/x"}, slices.Values([]rsyncx.SumWant{{Path: "f", Size: 5, Block: 2}})) {
				got = errors.Join(err, f.Err)
			}
			if !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
				t.Fatalf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestHostileZerosAndParts(t *testing.T) {
	file := func(size int64, frames ...[]byte) []byte {
		return append(appendFrame(nil, frameFile, appendEntry([]byte{0}, &rsyncx.Entry{Name: "f", Mode: 0o100644, Size: size}, &rsyncx.Entry{})), slices.Concat(frames...)...)
	}
	zeros := func(n int64) []byte { return appendFrame(nil, frameZeros, appendUint(nil, n)) }
	data := appendFrame(nil, frameData, []byte("hello"))
	whole := rsyncx.Want{Path: "f", Size: 5}
	part := rsyncx.Want{Path: "f", Size: 50, Ranges: []rsyncx.Range{{Off: 10, Len: 5}}}
	for _, c := range []struct {
		name   string
		want   rsyncx.Want
		frames []byte
		err    error
	}{
		{"right part", part, file(50, data, sumFrame("hello", 5)), nil},
		{"more than the part", part, file(50, data, data, sumFrame("hellohello", 10)), rsyncx.ErrHostile},
		{"less than the part", part, file(50, sumFrame("", 0)), rsyncx.ErrHostile},
		{"more zeros than there are", whole, file(5, zeros(6)), rsyncx.ErrHostile},
		{"no zeros", whole, file(5, zeros(0)), rsyncx.ErrHostile},
		{"endless zeros", whole, file(math.MaxInt64, zeros(math.MaxInt64), zeros(1)), rsyncx.ErrHostile},
		{"zeros that the sum does not count", whole, file(5, zeros(5), sumFrame("\x00\x00\x00\x00\x00", 5)), ErrDamaged},
		{"a bomb", whole, bomb(), rsyncx.ErrHostile},
		{"a compressed frame in a compressed frame", whole, squeezed(squeezed(slices.Repeat(data, 100))), rsyncx.ErrHostile},
		{"a compressed frame with another length", whole, appendFrame(nil, frameSqueezed, append([]byte{9}, squeezed(data)[headerSize+1:]...)), rsyncx.ErrHostile},
		{"a frame that says too much", whole, appendFrame(nil, frameSqueezed, appendUint(nil, maxRecord+1)), rsyncx.ErrHostile},
		{"garbage compressed", whole, appendFrame(nil, frameSqueezed, []byte{5, 1, 2, 3, 4}), rsyncx.ErrHostile},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
				hello(rw)
				if request(rw, frameNames) == nil {
					rw.Write(append(c.frames, appendFrame(nil, frameDone, nil)...))
					request(rw, frameStop)
				}
			}), quick())
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			var got error
			for f, err := range conn.Read(t.Context(), Tree{Root: "/x"}, slices.Values([]rsyncx.Want{c.want})) {
				if got = errors.Join(got, err, f.Err); f.Body != nil {
					_, err := io.CopyN(io.Discard, f.Body, 100)
					if !errors.Is(err, io.EOF) {
						got = errors.Join(got, err)
					}
				}
			}
			runtime.ReadMemStats(&after)
			if !errors.Is(got, c.err) || (got == nil) != (c.err == nil) {
				t.Fatalf("%v, want %v", got, c.err)
			}
			if grown := int64(after.TotalAlloc) - int64(before.TotalAlloc); grown > 32<<20 {
				t.Errorf("it took %d MiB", grown>>20)
			}
		})
	}
}

// bomb is a small frame that would become 64 MiB of zeros, and says that it does not.
func bomb() []byte {
	p := press{}
	if _, err := p.squeeze(make([]byte, 1000)); err != nil {
		panic(err)
	}
	b := p.encoder.EncodeAll(make([]byte, 64<<20), appendUint(nil, maxRecord))
	return appendFrame(nil, frameSqueezed, b)
}

// TestPartsOfTwoStates: parts that look the same and are of different versions are not put together.
func TestPartsOfTwoStates(t *testing.T) {
	want := rsyncx.Want{Path: "f", Size: 5000}
	for i := range partRanges + 1 {
		want.Ranges = append(want.Ranges, rsyncx.Range{Off: int64(2 * i), Len: 1})
	}
	part := func(version byte, n int) []byte {
		b := appendFrame(nil, frameFile, appendEntry([]byte{version}, &rsyncx.Entry{Name: "f", Mode: 0o100644, Size: 5000}, &rsyncx.Entry{}))
		text := strings.Repeat("x", n)
		return slices.Concat(b, appendFrame(nil, frameData, []byte(text)), sumFrame(text, int64(n)))
	}
	for second, torn := range map[byte]bool{1: false, 2: true} {
		conn, err := Dial(t.Context(), peer(t, func(rw io.ReadWriter) {
			hello(rw)
			if request(rw, frameNamesEnd) == nil {
				rw.Write(slices.Concat(part(1, partRanges), part(second, 1), appendFrame(nil, frameDone, nil)))
				request(rw, frameStop)
			}
		}), quick())
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range conn.Read(t.Context(), Tree{Root: "/x"}, slices.Values([]rsyncx.Want{want})) {
			if err != nil || f.Err != nil {
				t.Fatal(err, f.Err)
			}
			if n, err := io.Copy(io.Discard, f.Body); errors.Is(err, rsyncx.ErrTorn) != torn {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
	}
}
