package delta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zeebo/xxh3"
)

func sign(data []byte, block int64, weak bool) (Sums, [16]byte) {
	s := NewSummer(block, weak, true)
	s.Write(data)
	return s.Sums(), s.Whole()
}

// find runs all of the search and checks that the plan keeps its promises.
func find(t testing.TB, old, fresh []byte, block int64) (Plan, *searcher) {
	t.Helper()
	sums, _ := sign(fresh, block, true)
	b, err := NewBlocks(sums, int64(len(fresh)), nil)
	if err != nil {
		t.Fatal(err)
	}
	have, _ := sign(old, block, false)
	b.SameSums(have, int64(len(old)))
	r := bytes.NewReader(old)
	if err := b.Same(r, int64(len(old))); err != nil {
		t.Fatal(err)
	}
	s, err := b.search(r, int64(len(old)), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := b.Plan(nil)
	checkPatch(t, old, fresh, &p)
	return p, s
}

func checkPatch(t testing.TB, old, fresh []byte, p *Plan) {
	t.Helper()
	var missing, got bytes.Buffer
	at := int64(0)
	for _, m := range p.Missing() {
		if m.Len <= 0 || m.Off < at {
			t.Fatalf("missing parts %v", p.Missing())
		}
		at = m.Off + m.Len
		missing.Write(fresh[m.Off : m.Off+m.Len])
	}
	if int64(missing.Len())+p.Reused() != int64(len(fresh)) {
		t.Fatalf("%d bytes missing and %d reused, of %d", missing.Len(), p.Reused(), len(fresh))
	}
	if err := Patch(&got, bytes.NewReader(old), p, &missing); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), fresh) {
		t.Fatalf("patched %d bytes, want %d, or they differ; plan %+v", got.Len(), len(fresh), p)
	}
	again, err := ParsePlan(p.Append(nil), int64(len(old)))
	if err != nil || again.Size != p.Size || !slices.Equal(again.Copies, p.Copies) {
		t.Fatalf("the plan %+v became %+v, %v", p, again, err)
	}
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewPCG(seed, 0)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

// edit does what programs do to files.
func edit(r *rand.Rand, data []byte) []byte {
	data = slices.Clone(data)
	for range r.IntN(6) {
		off := 0
		if len(data) > 0 {
			off = r.IntN(len(data))
		}
		n := min(len(data)-off, r.IntN(3000))
		some := random(r.Uint64(), r.IntN(200)*8)
		switch r.IntN(7) {
		case 0:
			data = slices.Insert(data, off, some...)
		case 1:
			data = slices.Delete(data, off, off+n)
		case 2:
			copy(data[off:], some)
		case 3:
			data = append(data, some...)
		case 4:
			data = data[:off]
		case 5: // moved
			part := slices.Clone(data[off : off+n])
			data = slices.Delete(data, off, off+n)
			data = slices.Insert(data, r.IntN(len(data)+1), part...)
		case 6: // repeated
			data = slices.Insert(data, off, slices.Repeat(data[off:off+n], r.IntN(3))...)
		}
	}
	return data
}

func TestPatchMakesTheNewVersion(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 7))
		block := []int64{1, 2, 16, 64, 700, 1024, 4096}[r.IntN(7)]
		sizes := []int{0, 1, int(block) - 1, int(block), int(block) + 1, 3 * int(block), 10*int(block) + 5, r.IntN(40_000)}
		old := random(seed, sizes[r.IntN(len(sizes))])
		if r.IntN(4) == 0 {
			clear(old) // a file of zeros
		}
		find(t, old, edit(r, old), block)
	}
}

func TestSearchFindsWhatMoved(t *testing.T) {
	old := random(1, 4<<20)
	for _, c := range []struct {
		name  string
		fresh []byte
		most  int64 // bytes missing
	}{
		{"nothing changed", old, 0},
		{"one byte in front", append([]byte("x"), old...), 2048},
		{"bytes in the middle", slices.Insert(slices.Clone(old), 2_000_000, random(2, 800)...), 4096},
		{"a part is gone", slices.Delete(slices.Clone(old), 1_000_000, 1_500_001), 4096},
		{"the halves change places", slices.Concat(old[2<<20:], old[:2<<20]), 0},
		{"twice", slices.Concat(old, old), 0},
		{"truncated", old[:3_000_001], 1024},
		{"the end only", old[len(old)-100_001:], 1024},
		{"appended", slices.Concat(old, random(3, 4096)), 4096},
	} {
		p, _ := find(t, old, c.fresh, 1024)
		if missing := p.Size - p.Reused(); missing > c.most {
			t.Errorf("%s: %d bytes are missing, want at most %d", c.name, missing, c.most)
		}
	}
	p, _ := find(t, old, old, 1024)
	if !p.Identity(int64(len(old))) || p.Identity(int64(len(old))+1) {
		t.Errorf("the plan of an equal version is %+v", p)
	}
}

// TestSearchStaysLinear gives the search sums that a hostile peer could send:
// every place of the old version looks right, by one sum or by all in a chain.
func TestSearchStaysLinear(t *testing.T) {
	const block, n = 1 << 12, 4096
	old := bytes.Repeat([]byte{7}, 4<<20)
	weak := rolling{}
	weak.write(old[:block])
	sums := Sums{Block: block, Size: block * n, Strong: make([]uint64, n), Weak: make([]uint32, n)}
	for i := range n {
		sums.Strong[i], sums.Weak[i] = uint64(i), weak.sum()
	}
	b, err := NewBlocks(sums, sums.Size, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.search(bytes.NewReader(old), int64(len(old)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.compared > int64(len(old))*maxChain || s.hashed > int64(len(old))*creditPerByte+block {
		t.Errorf("%d comparisons and %d bytes hashed over %d bytes", s.compared, s.hashed, len(old))
	}
	if s.compared == 0 || s.hashed == 0 {
		t.Error("nothing was compared: the test tests nothing")
	}
	// Equal blocks are one to the search, and zeros are passed in strides.
	zeros := make([]byte, 4<<20)
	p, s := find(t, zeros, append(zeros, 1), block)
	if p.Reused() != int64(len(zeros)) {
		t.Errorf("%d bytes of zeros were found", p.Reused())
	}
	if s.compared > 10_000 {
		t.Errorf("%d comparisons in zeros", s.compared)
	}
}

func TestBlocksRefuseWrongSums(t *testing.T) {
	sums, _ := sign(random(1, 10_000), 1024, true)
	for name, c := range map[string]struct {
		size  int64
		spans []Span
		alter func(*Sums)
	}{
		"a longer file":        {size: 20_000},
		"one strong too few":   {10_000, nil, func(s *Sums) { s.Strong = s.Strong[1:] }},
		"one weak too few":     {10_000, nil, func(s *Sums) { s.Weak = s.Weak[1:] }},
		"no block":             {10_000, nil, func(s *Sums) { s.Block = 0 }},
		"a negative block":     {10_000, nil, func(s *Sums) { s.Block = -1 }},
		"another size":         {10_000, nil, func(s *Sums) { s.Size = 9_999 }},
		"other spans":          {10_000, []Span{{0, 1024}}, nil},
		"many blocks, no sums": {1 << 60, nil, func(s *Sums) { s.Size, s.Block = 1<<60, 1 }},
	} {
		bad := sums
		if c.alter != nil {
			c.alter(&bad)
		}
		if _, err := NewBlocks(bad, c.size, c.spans); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestPlanOverPlan refines: what is known of large blocks stays, the rest is
// looked at in smaller ones.
func TestPlanOverPlan(t *testing.T) {
	old := random(1, 1<<20+77)
	fresh := slices.Clone(old)
	fresh[5000] ^= 1
	fresh[700_000] ^= 1
	sums, _ := sign(fresh, 1<<16, false)
	b, _ := NewBlocks(sums, int64(len(fresh)), nil)
	have, _ := sign(old, 1<<16, false)
	b.SameSums(have, int64(len(old)))
	coarse := b.Plan(nil)
	checkPatch(t, old, fresh, &coarse)
	spans := coarse.Missing()
	if want := []Span{{0, 1 << 16}, {10 << 16, 1 << 16}}; !slices.Equal(spans, want) {
		t.Fatalf("missing %v, want %v", spans, want)
	}
	fine := NewSummer(4096, false, false)
	for _, s := range spans {
		fine.Write(fresh[s.Off : s.Off+s.Len])
	}
	b, err := NewBlocks(fine.Sums(), int64(len(fresh)), spans)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Same(bytes.NewReader(old), int64(len(old))); err != nil {
		t.Fatal(err)
	}
	p := b.Plan(&coarse)
	checkPatch(t, old, fresh, &p)
	if p.Size-p.Reused() != 8192 {
		t.Errorf("%d bytes are missing, want two blocks of 4096", p.Size-p.Reused())
	}
}

func TestSummerInPieces(t *testing.T) {
	data := random(9, 100_003)
	want, whole := sign(data, 700, true)
	if whole != xxh3.Hash128(data).Bytes() {
		t.Error("the sum of the whole is wrong")
	}
	s := NewSummer(700, true, true)
	r := rand.New(rand.NewPCG(1, 1))
	for rest := data; len(rest) > 0; {
		n := min(len(rest), 1+r.IntN(2000))
		s.Write(rest[:n])
		rest = rest[n:]
	}
	if got := s.Sums(); !slices.Equal(got.Strong, want.Strong) || !slices.Equal(got.Weak, want.Weak) || s.Whole() != whole {
		t.Error("sums depend on how the content comes")
	}
}

func FuzzPatch(f *testing.F) {
	f.Add([]byte("abcdefgh"), []byte("xabcdefgh"), uint16(4))
	f.Add([]byte{}, []byte("a"), uint16(1))
	f.Add(bytes.Repeat([]byte("ab"), 50), bytes.Repeat([]byte("ba"), 70), uint16(3))
	f.Fuzz(func(t *testing.T, old, fresh []byte, block uint16) {
		find(t, old, fresh, int64(block)+1)
	})
}

func FuzzParsePlan(f *testing.F) {
	p := Plan{Size: 100, Copies: []Copy{{0, 5, 10}, {20, 0, 5}, {25, 60, 40}}}
	f.Add(p.Append(nil), int64(100))
	f.Add([]byte{1, 0}, int64(0))
	f.Add(binary.AppendUvarint([]byte{1}, 1<<40), int64(5))
	f.Fuzz(func(t *testing.T, b []byte, oldSize int64) {
		p, err := ParsePlan(b, oldSize)
		if err != nil {
			return
		}
		at := int64(0)
		for _, c := range p.Copies {
			if c.New < at || c.Len <= 0 || c.New+c.Len > p.Size || c.Old < 0 || c.Old+c.Len > oldSize {
				t.Fatalf("the plan %+v of %d old bytes was let through", p, oldSize)
			}
			at = c.New + c.Len
		}
	})
}

func BenchmarkSearch(b *testing.B) {
	for _, block := range []int64{1024, 8192, 65536} {
		b.Run(fmt.Sprint(block), func(b *testing.B) {
			old, fresh := random(1, 32<<20), random(2, 32<<20)
			sums, _ := sign(fresh, block, true)
			r := bytes.NewReader(old)
			b.SetBytes(int64(len(old)))
			for b.Loop() {
				blocks, err := NewBlocks(sums, int64(len(fresh)), nil)
				if err != nil {
					b.Fatal(err)
				}
				if err := blocks.Search(r, int64(len(old)), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSummer(b *testing.B) {
	data := random(1, 16<<20)
	for _, weak := range []bool{false, true} {
		b.Run(fmt.Sprintf("weak=%v", weak), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				sign(data, 1<<17, weak)
			}
		})
	}
}

// TestTreeSum makes the sum of a tree of blocks in one piece, in many, and by its definition.
func TestTreeSum(t *testing.T) {
	for _, size := range []int{0, 1, 240, 241, TreeBlock - 1, TreeBlock, TreeBlock + 100, 3*TreeBlock + 5000} {
		data := random(9, size)
		var leaves, kept []byte
		var strong []uint64
		for block := range slices.Chunk(data, TreeBlock) {
			sum := xxh3.Hash128(block).Bytes()
			leaves, strong = append(leaves, sum[:]...), append(strong, xxh3.Hash(block))
		}
		s := NewSummer(TreeBlock, false, true)
		s.KeepLeaves(&kept)
		r := rand.New(rand.NewPCG(1, 1))
		for rest := data; len(rest) > 0; {
			n := min(len(rest), []int{1, 5000, TreeBlock, 2 * TreeBlock}[r.IntN(4)])
			s.Write(rest[:n])
			rest = rest[n:]
		}
		whole := s.Whole()
		if whole != xxh3.Hash128(leaves).Bytes() || whole != TreeSum(leaves) || whole != s.Whole() || !bytes.Equal(kept, leaves) || !slices.Equal(s.Sums().Strong, strong) {
			t.Errorf("%d bytes have another sum", size)
		}
		if sums, again := sign(data, TreeBlock, false); again != whole || !slices.Equal(sums.Strong, strong) {
			t.Errorf("in one piece %d bytes have another sum", size)
		}
	}
}
