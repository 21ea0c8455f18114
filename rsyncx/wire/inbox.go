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
// is being answered. A client that sends much ahead has to wait.
type inbox struct {
	mu     sync.Mutex
	queue  []frame
	bytes  int
	err    error         // set when the input ended
	signal chan struct{} // has room for one: something changed
	room   chan struct{} // has room for one: something was taken
}

func newInbox() *inbox {
	return &inbox{signal: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put adds a frame when there is room, and gives up when quit is closed. One
// goroutine may call it.
func (b *inbox) put(f frame, quit <-chan struct{}) error {
	for !b.tryPut(f) {
		select {
		case <-b.room:
		case <-quit:
			return errStopped
		}
	}
	return nil
}

func (b *inbox) tryPut(f frame) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 && (len(b.queue) >= maxFrames || b.bytes+len(f.payload) > maxQueued) {
		return false
	}
	b.queue = append(b.queue, f)
	b.bytes += len(f.payload)
	b.wake()
	return true
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
			select {
			case b.room <- struct{}{}:
			default:
			}
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
