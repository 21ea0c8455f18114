package main

import "testing"

func TestPercentFor(t *testing.T) {
	for live, want := range map[uint64]int{0: 200, 4 << 20: 200, 24 << 20: 200, 36 << 20: 100, 48 << 20: 50, 72 << 20: 30, 10 << 30: 30} {
		if got := percentFor(live); got != want {
			t.Errorf("with %d MiB alive: %d %%, want %d", live>>20, got, want)
		}
	}
}
