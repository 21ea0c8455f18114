package wire

import (
	"bytes"
	"fmt"
	"testing"
)

// The harder ways to compress make records shorter, and any agent's are understood.
func TestLevels(t *testing.T) {
	var record []byte
	for i := range 6000 {
		record = fmt.Appendf(record, "insert into t values (%d, 'name %d', '%x');\n", i, i*i%977, i*2654435761%65521)
	}
	record = record[:recordSize]
	decoder, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	var lengths []int
	for _, mode := range []Compress{CompressAlways, CompressDefault, CompressBetter, CompressBest} {
		p := press{mode: mode}
		if !p.wanted(len(record)) {
			t.Errorf("mode %d does not compress", mode)
		}
		out, err := p.squeeze(record)
		if err != nil {
			t.Fatal(err)
		}
		back, err := unsqueeze(decoder, out[headerSize:], nil)
		if err != nil || !bytes.Equal(back, record) {
			t.Errorf("mode %d: %d bytes came back of %d, %v", mode, len(back), len(record), err)
		}
		lengths = append(lengths, len(out))
	}
	if lengths[3] >= lengths[0] || lengths[1] >= lengths[0] {
		t.Errorf("it becomes %d bytes long", lengths)
	}
}
