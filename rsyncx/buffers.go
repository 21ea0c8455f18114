package rsyncx

import "sync"

// bufferSizes are the lengths of the buffers that small files are read into, in bytes: a
// tree of a million tiny files shall not take a buffer of the largest for each that waits.
var bufferSizes = [...]int{4 << 10, 32 << 10, smallFile + 1}

// maxBuffered bounds what all buffers take that wait for a lane, in bytes.
const maxBuffered = 8 << 20

// contentBuffers are what small files are read into on their way to a lane. Its
// methods may be called from several goroutines.
type contentBuffers struct {
	free [len(bufferSizes)]sync.Pool

	mu    sync.Mutex
	back  sync.Cond // some were given back
	taken int       // bytes
}

// take returns a buffer of n bytes or more, at most smallFile and one. It waits
// while too much is taken, and so for those who have some to give it back.
func (c *contentBuffers) take(n int) *[]byte {
	class := 0
	for bufferSizes[class] < n {
		class++
	}
	size := bufferSizes[class]
	c.mu.Lock()
	for c.taken > 0 && c.taken+size > maxBuffered {
		c.back.Wait()
	}
	c.taken += size
	c.mu.Unlock()
	if b, ok := c.free[class].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, size)
	return &b
}

// give takes a buffer back.
func (c *contentBuffers) give(b *[]byte) {
	for class, size := range bufferSizes {
		if size == len(*b) {
			c.free[class].Put(b)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken -= len(*b)
	c.back.Signal()
}
