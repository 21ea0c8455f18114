package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The heap, which is small whatever the tree, may grow to three times what lives in it
// between two collections: of a million unchanged files they took a tenth of the time. When more
// lives in it, it grows by less, so that memory stays about heapTarget as long as that
// is possible without collecting all the time.
const (
	heapTarget     = 72 << 20 // bytes
	gcPercent      = 200
	gcPercentLeast = 30
)

// tuneHeap keeps to that from now on.
func tuneHeap() {
	debug.SetGCPercent(gcPercent)
	again(gcPercent)
}

// again has the heap looked at after the next collection, when the percentage in force is percent.
func again(percent int) {
	runtime.SetFinalizer(&struct{ at *int }{new(int)}, func(*struct{ at *int }) {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		next := percentFor(sample[0].Value.Uint64())
		if next != percent {
			debug.SetGCPercent(next)
		}
		again(next)
	})
}

// percentFor returns by how much a heap may grow in which so many bytes live.
func percentFor(live uint64) int {
	room := (int64(heapTarget) - int64(live)) * 100 / int64(max(live, 1))
	return int(min(max(room, gcPercentLeast), gcPercent))
}
