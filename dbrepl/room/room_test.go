package room

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drsync/drsync/internal/hint"
)

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left atomic.Int64
		left.Store(Reserve)
		ctx, stop := Watch(t.Context(), "/data", func(dir string) (int64, bool) { return left.Load(), dir == "/data" })
		defer stop()
		time.Sleep(time.Hour)
		if ctx.Err() != nil {
			t.Fatal(context.Cause(ctx))
		}
		left.Store(Reserve - 1)
		time.Sleep(2 * often)
		if err := context.Cause(ctx); !errors.Is(err, ErrShort) || hint.Of(err) == "" || !strings.Contains(err.Error(), "/data has 63 MB free") {
			t.Errorf("%v", err)
		}
	})
}

// What cannot be seen is not watched, and who waits for the load is told its own cause.
func TestWatchNothing(t *testing.T) {
	if _, ok := Free(""); ok {
		t.Error("no directory has room")
	}
	if n, ok := Free(t.TempDir()); !ok || n <= 0 {
		t.Errorf("%d %v", n, ok)
	}
	cause := errors.New("stop")
	parent, cancel := context.WithCancelCause(t.Context())
	ctx, stop := Watch(parent, "/nowhere", Free)
	if ctx.Err() != nil {
		t.Error(context.Cause(ctx))
	}
	cancel(cause)
	if !errors.Is(context.Cause(ctx), cause) {
		t.Error(context.Cause(ctx))
	}
	stop()
}
