// Package room watches how much room there is where the standby's database
// server keeps its databases, while one is loaded there.
//
// Its invariant: a load is given up while the server can still undo it. InnoDB
// ends the whole server when a rollback finds no room, and PostgreSQL when its
// log does; then the visible database is away as well.
package room

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/hint"
)

// Reserve is the room that a load leaves, in bytes.
const Reserve = 64 << 20

// often is how often the room is looked at: at 500 MB/s less than Reserve is
// written in between.
const often = 100 * time.Millisecond

// ErrShort is why a load was given up.
var ErrShort = errors.New("the disk of the standby database server is nearly full")

// Free returns how much an ordinary user may still write in dir, in bytes, and
// whether that can be seen from here.
func Free(dir string) (bytes int64, ok bool) {
	var fs unix.Statfs_t
	if dir == "" || unix.Statfs(dir, &fs) != nil {
		return 0, false
	}
	return int64(fs.Bavail) * fs.Bsize, true
}

// Watch returns a context that ends with ErrShort when less than Reserve is free
// in dir, which free tells as Free does. Where it cannot be seen nothing is
// watched. stop ends the watch and the context, and waits for it.
func Watch(parent context.Context, dir string, free func(dir string) (bytes int64, ok bool)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(often)
		defer tick.Stop()
		for {
			left, ok := free(dir)
			if !ok {
				return
			}
			if left < Reserve {
				cancel(short(dir, left))
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return ctx, func() {
		cancel(errors.New("internal error: the load is over"))
		<-done
	}
}

func short(dir string, left int64) error {
	return hint.With(fmt.Errorf("%w: %s has %d MB free, and %d MB stay free so that the server can undo what it began", ErrShort, dir, left>>20, Reserve>>20),
		Advice)
}

// Advice is what to do when there is no room.
const Advice = "make room on the standby where its database server keeps its data, then run drsync again"
