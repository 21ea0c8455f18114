package sourcetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/delta"
	"github.com/zeebo/xxh3"
	"golang.org/x/crypto/md4" //nolint:staticcheck // rsync offers this sum by name; what travels is proved by another
)

// startSums is start for a source that can tell sums; one that cannot must say so, and is asked no more.
func startSums(t *testing.T, open Open, dir string) (context.Context, rsyncx.Source, bool) {
	t.Helper()
	ctx, src := start(t, open, dir)
	if src.Abilities().Sums {
		return ctx, src, true
	}
	for _, err := range src.Sums(ctx, slices.Values([]rsyncx.SumWant{{Path: "x"}})) {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Sums of a source that lacks them gave %v", err)
		}
	}
	return ctx, src, false
}

func testSums(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src, can := startSums(t, open, tree.dir)
	if !can {
		return
	}
	var want []rsyncx.SumWant
	for _, path := range tree.files() {
		size := int64(len(tree.content[path]))
		want = append(want, rsyncx.SumWant{Path: path, Size: size}, rsyncx.SumWant{Path: path, Size: -1, Block: 4096},
			rsyncx.SumWant{Path: path, Size: size, Block: 1 << 17}, rsyncx.SumWant{Path: path, Size: size, Block: 700, Weak: true},
			rsyncx.SumWant{Path: path, Size: size, Block: 1 << 20, Weak: true},
			rsyncx.SumWant{Path: path, Size: size, Kind: rsyncx.SumMD5}, rsyncx.SumWant{Path: path, Size: -1, Kind: rsyncx.SumSHA1, Block: 4096},
			rsyncx.SumWant{Path: path, Size: size, Kind: rsyncx.SumXXH3}, rsyncx.SumWant{Path: path, Size: size, Kind: rsyncx.SumXXH64, Block: 700, Weak: true},
			rsyncx.SumWant{Path: path, Size: size, Kind: rsyncx.SumMD4})
	}
	n := 0
	for f, err := range src.Sums(ctx, slices.Values(want)) {
		if err != nil {
			t.Fatal(err)
		}
		if n == len(want) || f.Path != want[n].Path {
			t.Fatalf("answer %d is for %q", n, f.Path)
		}
		tree.checkSums(t, src.Abilities(), &want[n], f)
		n++
	}
	if n != len(want) {
		t.Errorf("%d answers to %d wants", n, len(want))
	}
	for f, err := range src.Sums(ctx, slices.Values([]rsyncx.SumWant(nil))) {
		t.Errorf("sums of nothing gave %+v, %v", f, err)
	}
}

func testSumsOfRanges(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src, can := startSums(t, open, tree.dir)
	if !can {
		return
	}
	size := int64(len(tree.content["big"]))
	tail := rsyncx.Range{Off: size &^ 4095, Len: size & 4095}
	for _, w := range []rsyncx.SumWant{
		{Block: 4096, Ranges: []rsyncx.Range{{Off: 0, Len: 4096}}},
		{Block: 4096, Weak: true, Ranges: []rsyncx.Range{{Off: 8192, Len: 4096}, {Off: 12288, Len: 1 << 20}, tail}},
		{Block: 1 << 20, Weak: true, Ranges: []rsyncx.Range{{Off: 1 << 20, Len: size - 1<<20}}},
		{Block: 4096, Ranges: []rsyncx.Range{}},
	} {
		w.Path, w.Size = "big", size
		for f, err := range src.Sums(ctx, slices.Values([]rsyncx.SumWant{w})) {
			if err != nil {
				t.Fatal(err)
			}
			tree.checkSums(t, src.Abilities(), &w, f)
		}
	}
}

// checkSums makes the sums anew, in another way.
func (tr *tree) checkSums(t *testing.T, can rsyncx.Abilities, w *rsyncx.SumWant, f rsyncx.FileSums) {
	t.Helper()
	if f.Err != nil {
		t.Errorf("sums of %q: %v", f.Path, f.Err)
		return
	}
	tr.check(t, can, f.Path, f.Entry)
	content := []byte(tr.content[f.Path])
	parts := [][]byte{content}
	whole := xxh3.Hash128(content).Bytes()
	if w.Ranges != nil {
		parts, whole = nil, [16]byte{}
	}
	for _, r := range w.Ranges {
		parts = append(parts, content[r.Off:r.Off+r.Len])
	}
	sums := delta.Sums{Block: w.Block}
	for _, part := range parts {
		sums.Size += int64(len(part))
		if w.Block == 0 {
			continue
		}
		for block := range slices.Chunk(part, int(w.Block)) {
			sums.Strong = append(sums.Strong, xxh3.Hash(block))
			if w.Weak {
				sums.Weak = append(sums.Weak, weakSum(block))
			}
		}
	}
	if other := otherSum(w.Kind, content); !bytes.Equal(f.Other, other) {
		t.Errorf("%q: the sum of kind %d is %x, want %x", f.Path, w.Kind, f.Other, other)
	}
	if w.Ranges == nil && !w.Weak && w.Block >= delta.TreeBlock {
		var leaves []byte
		for block := range slices.Chunk(content, int(w.Block)) {
			sum := xxh3.Hash128(block).Bytes()
			leaves = append(leaves, sum[:]...)
		}
		whole = xxh3.Hash128(leaves).Bytes()
	}
	if f.Whole != whole {
		t.Errorf("%q: the sum of the whole is %x, want %x", f.Path, f.Whole, whole)
	}
	if f.Sums.Block != sums.Block || f.Sums.Size != sums.Size || !slices.Equal(f.Sums.Strong, sums.Strong) || !slices.Equal(f.Sums.Weak, sums.Weak) {
		t.Errorf("%q: %d and %d sums of blocks of %d in %d bytes, want %d and %d of %d in %d, or they differ", f.Path, len(f.Sums.Strong),
			len(f.Sums.Weak), f.Sums.Block, f.Sums.Size, len(sums.Strong), len(sums.Weak), sums.Block, sums.Size)
	}
}

func otherSum(k rsyncx.SumKind, content []byte) []byte {
	switch k {
	case rsyncx.SumXXH3:
		return binary.BigEndian.AppendUint64(nil, xxh3.Hash(content))
	case rsyncx.SumXXH64:
		h := delta.NewXXH64()
		for piece := range slices.Chunk(content, 37) {
			_, _ = h.Write(piece)
		}
		return h.Sum(nil)
	case rsyncx.SumMD5:
		sum := md5.Sum(content)
		return sum[:]
	case rsyncx.SumSHA1:
		sum := sha1.Sum(content)
		return sum[:]
	case rsyncx.SumMD4:
		h := md4.New()
		_, _ = h.Write(content)
		return h.Sum(nil)
	}
	return nil
}

// weakSum is the rolling sum as its definition has it.
func weakSum(block []byte) uint32 {
	var a, b uint64
	for i, c := range block {
		a += uint64(c)
		b += uint64(len(block)-i) * uint64(c)
	}
	return uint32((a*0x9E3779B97F4A7C15 + b*0xC2B2AE3D27D4EB4F) >> 32)
}

func testSumsRefuse(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src, can := startSums(t, open, tree.dir)
	if !can {
		return
	}
	var want []rsyncx.SumWant
	for _, path := range append([]string{"missing", "missing/x", "", "etc", "to-etc", "to-etc/app.conf", "pipe", "etc/app.conf/x"}, badPaths...) {
		want = append(want, rsyncx.SumWant{Path: path, Size: -1, Block: 4096})
	}
	big := func(w rsyncx.SumWant) { w.Path, w.Size = "big", -1; want = append(want, w) }
	big(rsyncx.SumWant{Block: -1})
	big(rsyncx.SumWant{Weak: true})
	big(rsyncx.SumWant{Ranges: []rsyncx.Range{{Off: 0, Len: 1}}})
	big(rsyncx.SumWant{Block: 4096, Ranges: []rsyncx.Range{{Off: 1, Len: 4096}}})
	big(rsyncx.SumWant{Block: 4096, Ranges: []rsyncx.Range{{Off: 0, Len: 5000}}})
	big(rsyncx.SumWant{Block: 4096, Ranges: []rsyncx.Range{{Off: 0, Len: -4096}}})
	big(rsyncx.SumWant{Block: 4096, Ranges: []rsyncx.Range{{Off: -4096, Len: 4096}}})
	big(rsyncx.SumWant{Block: 4096, Ranges: []rsyncx.Range{{Off: 8192, Len: 4096}, {Off: 0, Len: 4096}}})
	torn := len(want)
	big(rsyncx.SumWant{Block: 4096, Ranges: []rsyncx.Range{{Off: 0, Len: 4 << 20}}})
	big(rsyncx.SumWant{Block: 4096, Ranges: []rsyncx.Range{{Off: 1 << 40, Len: 4096}}})
	good := len(want)
	big(rsyncx.SumWant{Block: 4096})
	n := 0
	for f, err := range src.Sums(ctx, slices.Values(want)) {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case n >= len(want) || f.Path != want[n].Path:
			t.Fatalf("answer %d is for %q", n, f.Path)
		case n == good:
			tree.checkSums(t, src.Abilities(), &want[n], f)
		case f.Err == nil:
			t.Errorf("Sums(%+v) gave %d sums, want an error", want[n], len(f.Sums.Strong))
		case n < 2 && !errors.Is(f.Err, fs.ErrNotExist):
			t.Errorf("Sums(%+v): %v, want one that wraps fs.ErrNotExist", want[n], f.Err)
		case n >= torn && !errors.Is(f.Err, rsyncx.ErrTorn):
			t.Errorf("Sums(%+v): %v, want one that wraps ErrTorn", want[n], f.Err)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d answers to %d wants", n, len(want))
	}
}

// tornWithin is far more time than it takes.
const tornWithin = 30 * time.Second

// testSumsTorn writes into a file until its sums are ErrTorn.
func testSumsTorn(t *testing.T, open Open) {
	states := [][]byte{bytes.Repeat([]byte{0}, 2<<20), bytes.Repeat([]byte{1}, 2<<20)}
	tree := newTreeOf(t, []node{{path: "f", content: string(states[0])}})
	ctx, src, can := startSums(t, open, tree.dir)
	if !can {
		return
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		file, err := os.OpenFile(filepath.Join(tree.dir, "f"), os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer file.Close()
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// In pieces and in another order than it is read.
			for _, k := range rand.Perm(8) {
				if _, err := file.WriteAt(states[i%2][:256<<10], int64(k)*(256<<10)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	// However the two take turns on a busy host, they meet in the end.
	deadline := time.Now().Add(tornWithin)
	want := func(yield func(rsyncx.SumWant) bool) {
		for time.Now().Before(deadline) && yield(rsyncx.SumWant{Path: "f", Size: 2 << 20, Block: 1 << 17}) {
		}
	}
	torn := 0
	for f, err := range src.Sums(ctx, want) {
		if err != nil {
			t.Fatal(err)
		}
		if errors.Is(f.Err, rsyncx.ErrTorn) {
			torn++
			break
		} else if f.Err != nil {
			t.Errorf("sums of a file that changes: %v, want ErrTorn", f.Err)
		}
	}
	if torn == 0 {
		t.Errorf("for %v no sum of a file that is written all the time was ErrTorn", tornWithin)
	}
}

func testSumsStop(t *testing.T, open Open) {
	tree := newTree(t)
	ctx, src, can := startSums(t, open, tree.dir)
	if !can {
		return
	}
	endless := func(yield func(rsyncx.SumWant) bool) {
		for yield(rsyncx.SumWant{Path: "etc/app.conf", Size: -1}) {
		}
	}
	n := 0
	for f, err := range src.Sums(ctx, endless) {
		if err != nil {
			t.Fatal(err)
		}
		tree.checkSums(t, src.Abilities(), &rsyncx.SumWant{}, f)
		if n++; n == 10 {
			break
		}
	}
	if _, err := src.Lstat(ctx, "etc"); err != nil {
		t.Errorf("after sums that were left early: %v", err)
	}
}

func testSumsCancelled(t *testing.T, open Open) {
	tree := newTreeOf(t, []node{{path: "f", content: strings.Repeat("x", 100)}})
	ctx, src, can := startSums(t, open, tree.dir)
	if !can {
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	endless := func(yield func(rsyncx.SumWant) bool) {
		for yield(rsyncx.SumWant{Path: "f", Size: -1, Block: 4096}) {
		}
	}
	n, last := 0, error(nil)
	for _, err := range src.Sums(ctx, endless) {
		if n++; n == 10 {
			cancel(errTest)
		}
		if last = err; last != nil {
			break
		}
	}
	if !errors.Is(last, errTest) {
		t.Errorf("the cancelled sums ended with %v, want the cause", last)
	}
}
