package wire

import (
	"context"
	"sync"
)

type frame struct {
	kind    byte
	payload []byte
}

// inbox queues what the client sent, so that its end is seen while a request
// is being answered. A client that sends more than it may ahead is cut off.
type inbox struct {
	mu     sync.Mutex
	queue  []frame
	bytes  int
	err    error         // set when the input ended
	signal chan struct{} // has room for one: something changed
}

func newInbox() *inbox { return &inbox{signal: make(chan struct{}, 1)} }

func (b *inbox) put(f frame) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) >= maxFrames || b.bytes+len(f.payload) > maxQueued {
		return hostile("more requests than it may send ahead")
	}
	b.queue = append(b.queue, f)
	b.bytes += len(f.payload)
	b.wake()
	return nil
}

func (b *inbox) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	b.wake()
}

func (b *inbox) wake() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// take returns the oldest frame. One goroutine at a time may call it.
func (b *inbox) take(ctx context.Context) (frame, error) {
	for {
		b.mu.Lock()
		if len(b.queue) > 0 {
			f := b.queue[0]
			b.queue[0] = frame{}
			b.queue = b.queue[1:]
			b.bytes -= len(f.payload)
			b.mu.Unlock()
			return f, nil
		}
		err := b.err
		b.mu.Unlock()
		if err != nil {
			return frame{}, err
		}
		select {
		case <-b.signal:
		case <-ctx.Done():
			// The end of the input cancels ctx too; it says more.
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.err != nil {
				return frame{}, b.err
			}
			return frame{}, context.Cause(ctx)
		}
	}
}

// more reports whether a frame is waiting.
func (b *inbox) more() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) > 0
}
