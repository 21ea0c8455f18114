package delta

import (
	"testing"
)

// The sums are those of the algorithm's own tools, however the content comes.
func TestXXH64(t *testing.T) {
	for text, want := range map[string]uint64{
		"": 0xef46db3751d8e999, "a": 0xd24ec4f1a98c6e5b, "abc": 0x44bc2cf5ad770999,
		"The quick brown fox jumps over the lazy dog": 0x0b242d361fda71bc,
	} {
		for step := 1; step <= len(text)+1; step++ {
			h := NewXXH64()
			for at := 0; at < len(text); at += step {
				_, _ = h.Write([]byte(text[at:min(at+step, len(text))]))
			}
			if got := h.Sum64(); got != want {
				t.Errorf("%q in steps of %d: %x, want %x", text, step, got, want)
			}
		}
	}
}
