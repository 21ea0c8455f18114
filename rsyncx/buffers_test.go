package rsyncx

import (
	"testing"
	"testing/synctest"
)

// TestContentBuffersAreBounded takes buffers until there are enough of them.
func TestContentBuffersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c contentBuffers
		c.back.L = &c.mu
		for _, n := range []int{1, 4 << 10, 4<<10 + 1, smallFile, smallFile + 1} {
			b := c.take(n)
			if len(*b) < n || len(*b) > 8*n && n > 4<<10 {
				t.Errorf("for %d bytes a buffer of %d", n, len(*b))
			}
			c.give(b)
		}
		var held []*[]byte
		for range maxBuffered / (smallFile + 1) {
			held = append(held, c.take(smallFile+1))
		}
		got := false
		go func() {
			c.give(c.take(smallFile + 1))
			got = true
		}()
		synctest.Wait()
		if got {
			t.Errorf("one more than the bound of %d bytes was given", maxBuffered)
		}
		for _, b := range held {
			c.give(b)
		}
		synctest.Wait()
		if !got || c.taken != 0 {
			t.Errorf("after all were given back: taken %d bytes, the next one was given: %v", c.taken, got)
		}
	})
}
