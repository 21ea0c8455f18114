package rsyncx

const (
	// behindLeast is the length in bytes from which on a file is written by another
	// goroutine than the one that reads and hashes it.
	behindLeast   = 4 << 20
	behindBuffers = 4
)

// behind writes the pieces of a file while the next ones are read. Its methods
// are for one goroutine.
type behind struct {
	pieces chan laterPiece
	free   chan []byte
	taken  []byte // given by buffer, and not passed on yet
	ended  chan struct{}
	err    error // the first one; after ended
}

type laterPiece struct {
	data []byte
	off  int64
}

// writeBehind starts a goroutine that calls write for every piece, in order.
// finish must be called.
func writeBehind(write func(data []byte, off int64) error) *behind {
	b := &behind{pieces: make(chan laterPiece, behindBuffers), free: make(chan []byte, behindBuffers), ended: make(chan struct{})}
	for range behindBuffers {
		b.free <- make([]byte, copyBuffer)
	}
	go func() {
		defer close(b.ended)
		for p := range b.pieces {
			if b.err == nil {
				b.err = write(p.data, p.off)
			}
			b.free <- p.data[:cap(p.data)]
		}
	}()
	return b
}

// buffer returns a buffer for the next piece. One that was not passed on is given again.
func (b *behind) buffer() []byte {
	if b.taken == nil {
		b.taken = <-b.free
	}
	return b.taken
}

// pass has a piece, which lies in the last buffer, written at off.
func (b *behind) pass(data []byte, off int64) {
	b.taken = nil
	b.pieces <- laterPiece{data, off}
}

// finish waits until everything is written and returns the first error. A nil
// behind has none.
func (b *behind) finish() error {
	if b == nil {
		return nil
	}
	close(b.pieces)
	<-b.ended
	return b.err
}
