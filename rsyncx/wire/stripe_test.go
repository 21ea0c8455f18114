package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/sourcetest"
)

// farPool is a pool whose requests are spread over lanes connections, as if the agent were far away.
func farPool(t testing.TB, lanes int, s Server) (*Pool, *atomic.Int64) {
	t.Helper()
	var dials atomic.Int64
	p := NewPool(lanes+spareSlots, func(ctx context.Context) (*Conn, error) {
		dials.Add(1)
		rwc, _ := serve(t, s)
		return Dial(ctx, rwc, quick())
	})
	p.lanes = lanes
	t.Cleanup(func() { p.Close() })
	return p, &dials
}

func TestSpreadSourceContract(t *testing.T) {
	sourcetest.TestSource(t, func(t *testing.T, dir string) rsyncx.Source {
		p, _ := farPool(t, 4, Server{Roots: []string{dir}})
		src, err := p.Source(t.Context(), dir, rsyncx.View{})
		if err != nil {
			t.Fatal(err)
		}
		return src
	})
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSpreadRead: large and small files, whole and in parts, with right, wrong and no
// sizes, arrive in order and whole.
func TestSpreadRead(t *testing.T) {
	dir := t.TempDir()
	content := map[string][]byte{}
	var want []rsyncx.Want
	expect := [][]byte{}
	add := func(path string, size int64, data []byte, ranges ...rsyncx.Range) {
		if _, ok := content[path]; !ok {
			content[path] = data
			write(t, filepath.Join(dir, path), data)
		}
		want = append(want, rsyncx.Want{Path: path, Size: size, Ranges: ranges})
		e := content[path]
		if ranges != nil {
			e = nil
			for _, r := range ranges {
				e = append(e, content[path][r.Off:r.Off+r.Len]...)
			}
		}
		expect = append(expect, e)
	}
	big := noise(9<<20+77, 1)
	for i := range 600 {
		add(fmt.Sprintf("d%d/f%03d", i/50, i), int64(i*300), noise(i*300, byte(i)))
		switch i {
		case 100:
			add("big", int64(len(big)), big)
		case 200:
			add("grown", 3<<20, noise(7<<20, 2))
		case 300:
			add("shrunk", 9<<20, noise(4<<20+5, 3))
		case 400:
			add("vanished to nothing", 9<<20, []byte{})
		case 450:
			add("unknown", -1, noise(5<<20, 4))
		case 500:
			var ranges []rsyncx.Range
			for off := int64(0); off+5000 < int64(len(big)); off += 5000 {
				ranges = append(ranges, rsyncx.Range{Off: off, Len: 1000})
			}
			add("big", int64(len(big)), nil, ranges...)
			add("big", int64(len(big)), nil, rsyncx.Range{Off: 5, Len: 8 << 20}, rsyncx.Range{Off: 8<<20 + 5, Len: 1})
		}
	}
	p, dials := farPool(t, 4, Server{Roots: []string{dir}})
	src, err := p.Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		n := 0
		for f, err := range src.Read(t.Context(), slices.Values(want)) {
			if err != nil || f.Err != nil || f.Path != want[n].Path {
				t.Fatal(n, f.Path, err, f.Err)
			}
			if round == 1 && n%7 == 0 { // leave some of it
				io.CopyN(io.Discard, f.Body, int64(len(expect[n])/2))
			} else if got, err := io.ReadAll(f.Body); err != nil || !bytes.Equal(got, expect[n]) {
				t.Fatalf("%s: %d bytes of %d, %v", f.Path, len(got), len(expect[n]), err)
			}
			n++
		}
		if n != len(want) {
			t.Fatalf("%d of %d files", n, len(want))
		}
	}
	if n := dials.Load(); n < 2 || n > 4 {
		t.Errorf("%d connections", n)
	}
}

// TestSmallReadTakesOneConnection: another agent costs more than a few files.
func TestSmallReadTakesOneConnection(t *testing.T) {
	dir := t.TempDir()
	var want []rsyncx.Want
	for i := range 300 {
		write(t, filepath.Join(dir, fmt.Sprint(i)), noise(1000, byte(i)))
		want = append(want, rsyncx.Want{Path: fmt.Sprint(i), Size: 1000})
	}
	p, dials := farPool(t, 8, Server{Roots: []string{dir}})
	src, err := p.Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range src.Read(t.Context(), slices.Values(want)) {
		if err != nil || f.Err != nil {
			t.Fatal(err, f.Err)
		}
		io.Copy(io.Discard, f.Body)
	}
	if dials.Load() != 1 {
		t.Errorf("%d connections", dials.Load())
	}
}

// TestSpreadFileIsOneState: parts of two states of a file are never put together silently.
func TestSpreadFileIsOneState(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	old, changed := bytes.Repeat([]byte{1}, 24<<20), bytes.Repeat([]byte{2}, 24<<20)
	write(t, path, old)
	before := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, before, before); err != nil {
		t.Fatal(err)
	}
	p, _ := farPool(t, 3, Server{Roots: []string{dir}})
	src, err := p.Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range src.Read(t.Context(), slices.Values([]rsyncx.Want{{Path: "f", Size: 24 << 20}})) {
		if err != nil || f.Err != nil {
			t.Fatal(err, f.Err)
		}
		if _, err := io.ReadFull(f.Body, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		// In place, and with the old time: only the time of the change tells.
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(changed, 0); err != nil {
			t.Fatal(err)
		}
		file.Close()
		if err := os.Chtimes(path, before, before); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(f.Body)
		if !errors.Is(err, rsyncx.ErrTorn) {
			t.Errorf("%d bytes and %v, want ErrTorn", len(rest), err)
		}
	}
}

// cutReader ends after so many bytes.
type cutConn struct {
	io.ReadWriteCloser
	left atomic.Int64
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	if c.left.Add(-int64(n)) < 0 {
		return 0, errors.New("the cable was cut")
	}
	return n, err
}

func TestOneLostConnectionFailsTheRead(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), noise(32<<20, 1))
	dials := 0
	var mu sync.Mutex
	p := NewPool(6, func(ctx context.Context) (*Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		rwc, _ := serve(t, Server{Roots: []string{dir}})
		cut := &cutConn{ReadWriteCloser: rwc}
		cut.left.Store(1 << 40)
		if dials++; dials == 3 {
			cut.left.Store(100 << 10)
		}
		return Dial(ctx, cut, quick())
	})
	p.lanes = 4
	defer p.Close()
	src, err := p.Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Repeat([]rsyncx.Want{{Path: "f", Size: 32 << 20}}, 20)
	var last error
	for f, err := range src.Read(t.Context(), slices.Values(want)) {
		if last = err; err == nil && f.Err == nil {
			io.Copy(io.Discard, f.Body)
		}
	}
	if last == nil || !strings.Contains(last.Error(), "the cable was cut") {
		t.Errorf("%v", last)
	}
	if _, err := rsyncx.ReadFile(t.Context(), src, "f", 32<<20); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// TestRefusedConnectionIsNoError: a host that allows few channels is served over those.
func TestRefusedConnectionIsNoError(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), noise(20<<20, 1))
	var dials atomic.Int64
	p := NewPool(10, func(ctx context.Context) (*Conn, error) {
		if dials.Add(1) > 2 {
			return nil, errors.New("no more sessions")
		}
		rwc, _ := serve(t, Server{Roots: []string{dir}})
		return Dial(ctx, rwc, quick())
	})
	p.lanes = 8
	defer p.Close()
	src, err := p.Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for f, err := range src.Read(t.Context(), slices.Values([]rsyncx.Want{{Path: "f", Size: 20 << 20}})) {
			if err != nil || f.Err != nil {
				t.Fatal(err, f.Err)
			}
			if n, err := io.Copy(io.Discard, f.Body); n != 20<<20 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
}

func TestSpreadReadStops(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "f"), noise(30<<20, 1))
	p, _ := farPool(t, 4, Server{Roots: []string{dir}})
	src, err := p.Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	endless := func(yield func(rsyncx.Want) bool) {
		for yield(rsyncx.Want{Path: "f", Size: 30 << 20}) {
		}
	}
	for range 3 {
		for f, err := range src.Read(t.Context(), endless) {
			if err != nil {
				t.Fatal(err)
			}
			io.CopyN(io.Discard, f.Body, 3<<20)
			break
		}
	}
	mine := errors.New("mine")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var last error
	for f, err := range src.Read(ctx, endless) {
		if last = err; err != nil {
			break
		}
		io.CopyN(io.Discard, f.Body, 5<<20)
		cancel(mine)
		if _, err := io.Copy(io.Discard, f.Body); err == nil {
			continue // all of it was there
		}
	}
	if !errors.Is(last, mine) {
		t.Errorf("%v", last)
	}
}

// TestHolesDoNotTravel: zeros that nobody stored are neither sent nor received.
func TestHolesDoNotTravel(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	want := make([]byte, size)
	for _, at := range []int{1 << 20, 30 << 20, size - 5000} {
		copy(want[at:], noise(5000, byte(at>>20)))
		if _, err := f.WriteAt(want[at:at+5000], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	var passed atomic.Int64
	for _, lanes := range []int{1, 3} {
		p := NewPool(8, func(ctx context.Context) (*Conn, error) {
			rwc, _ := serve(t, Server{Roots: []string{dir}})
			return Dial(ctx, &countConn{rwc, &passed}, quick())
		})
		p.lanes = lanes
		defer p.Close()
		src, err := p.Source(t.Context(), dir, rsyncx.View{})
		if err != nil {
			t.Fatal(err)
		}
		for _, skip := range []bool{false, true} {
			for f, err := range src.Read(t.Context(), slices.Values([]rsyncx.Want{{Path: "sparse", Size: size}})) {
				if err != nil || f.Err != nil {
					t.Fatal(err, f.Err)
				}
				got := &bytes.Buffer{}
				skipped := int64(0)
				for buf := make([]byte, 1<<16); ; {
					if skip {
						n, err := f.Body.(rsyncx.Holes).Hole()
						if err != nil {
							t.Fatal(err)
						}
						got.Write(make([]byte, n))
						skipped += n
					}
					n, err := f.Body.Read(buf)
					got.Write(buf[:n])
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if !bytes.Equal(got.Bytes(), want) {
					t.Errorf("%d lanes: other content, %d bytes", lanes, got.Len())
				}
				if skip && skipped < size/2 {
					t.Errorf("%d bytes of holes", skipped)
				}
			}
		}
	}
	if n := passed.Load(); n > 4<<20 {
		t.Errorf("%d bytes were received", n)
	}
}

type countConn struct {
	io.ReadWriteCloser
	n *atomic.Int64
}

func (c *countConn) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func TestCompression(t *testing.T) {
	dir := t.TempDir()
	text := []byte(strings.Repeat("a line that is like the next one\n", 100_000))
	random := noise(3<<20, 1)
	write(t, filepath.Join(dir, "text"), text)
	write(t, filepath.Join(dir, "random"), random)
	for _, c := range []struct {
		mode Compress
		most int64
	}{{CompressNever, 1 << 40}, {CompressAuto, 1 << 40}, {CompressAlways, int64(len(random)) + 300<<10}} {
		var passed atomic.Int64
		p := NewPool(1, func(ctx context.Context) (*Conn, error) {
			rwc, _ := serve(t, Server{Roots: []string{dir}})
			return Dial(ctx, &countConn{rwc, &passed}, ClientOptions{Compress: c.mode, Silence: 10 * time.Second})
		})
		src, err := p.Source(t.Context(), dir, rsyncx.View{})
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range src.Read(t.Context(), rsyncx.Wants(slices.Values([]string{"text", "random", "text"}))) {
			if err != nil || f.Err != nil {
				t.Fatal(err, f.Err)
			}
			want := text
			if f.Path == "random" {
				want = random
			}
			if got, err := io.ReadAll(f.Body); err != nil || !bytes.Equal(got, want) {
				t.Errorf("mode %d: %d bytes, %v", c.mode, len(got), err)
			}
		}
		if n := passed.Load(); n > c.most || c.mode == CompressNever && n < int64(len(random)+2*len(text)) {
			t.Errorf("mode %d: %d bytes", c.mode, n)
		}
		p.Close()
	}
}

// TestCompressionIsTriedOnASlowLine: what decides is how long writing takes.
func TestCompressionIsTriedOnASlowLine(t *testing.T) {
	p := press{}
	at := time.Unix(100, 0)
	p.judge(at, at.Add(90*time.Millisecond), 1<<20)
	if p.on {
		t.Error("judged too early")
	}
	p.judge(at.Add(95*time.Millisecond), at.Add(120*time.Millisecond), 1<<20)
	if !p.on {
		t.Error("a line of 17 MB/s that everything waits for is not slow")
	}
	at = at.Add(120 * time.Millisecond)
	p.judge(at.Add(195*time.Millisecond), at.Add(200*time.Millisecond), 1<<20)
	if p.on {
		t.Error("a line that waits for the disk is slow")
	}
	p.judge(at.Add(201*time.Millisecond), at.Add(400*time.Millisecond), 64<<20)
	if p.on {
		t.Error("a line of 320 MB/s is slow")
	}
	p.on = true
	if _, err := p.squeeze(noise(10_000, 1)); err != nil {
		t.Fatal(err)
	}
	for n := range 8 {
		if p.wanted(10_000) {
			t.Errorf("tried again after %d records", n)
		}
	}
	if !p.wanted(10_000) || p.wanted(100) {
		t.Error("not tried again, or on little")
	}
}

func sumsOf(t *testing.T, src rsyncx.Source, want iter.Seq[rsyncx.SumWant]) (all []rsyncx.FileSums) {
	t.Helper()
	for f, err := range src.Sums(t.Context(), want) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

// TestSumsArriveAsMade compares the sums of the agent with those of the same files read here.
func TestSumsArriveAsMade(t *testing.T) {
	dir := t.TempDir()
	var want []rsyncx.SumWant
	for i := range 200 {
		size := i * i * 50
		name := fmt.Sprint("f", i)
		write(t, filepath.Join(dir, name), noise(size, byte(i)))
		w := rsyncx.SumWant{Path: name, Size: int64(size), Block: []int64{0, 64, 700, 4096}[i%4]}
		w.Weak = w.Block > 0 && i%3 == 0
		want = append(want, w)
		if i > 100 && w.Block > 0 {
			w.Ranges = []rsyncx.Range{{Off: 0, Len: w.Block}, {Off: 10 * w.Block, Len: 5 * w.Block}}
			want = append(want, w)
		}
	}
	want = append(want, rsyncx.SumWant{Path: "missing", Size: 5}, rsyncx.SumWant{Path: "../x"}, rsyncx.SumWant{Path: "f9", Block: 64, Ranges: []rsyncx.Range{{Off: 1 << 30, Len: 64}}})
	local, err := rsyncx.Local(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	expect := sumsOf(t, local, slices.Values(want))
	for _, lanes := range []int{1, 3} {
		p, _ := farPool(t, lanes, Server{Roots: []string{dir}})
		src, err := p.Source(t.Context(), dir, rsyncx.View{})
		if err != nil {
			t.Fatal(err)
		}
		got := sumsOf(t, src, slices.Values(want))
		if len(got) != len(expect) {
			t.Fatalf("%d answers of %d", len(got), len(expect))
		}
		for i, g := range got {
			e := expect[i]
			if (g.Err == nil) != (e.Err == nil) || errors.Is(g.Err, rsyncx.ErrTorn) != errors.Is(e.Err, rsyncx.ErrTorn) || errors.Is(g.Err, os.ErrNotExist) != errors.Is(e.Err, os.ErrNotExist) {
				t.Errorf("%+v: %v, want %v", want[i], g.Err, e.Err)
			}
			if g.Err == nil && (g.Path != e.Path || g.Entry != e.Entry || g.Whole != e.Whole || g.Sums.Size != e.Sums.Size || g.Sums.Block != e.Sums.Block ||
				!slices.Equal(g.Sums.Strong, e.Sums.Strong) || !slices.Equal(g.Sums.Weak, e.Sums.Weak)) {
				t.Errorf("%+v: other sums", want[i])
			}
		}
	}
}
