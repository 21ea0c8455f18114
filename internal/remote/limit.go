package remote

import (
	"time"

	"golang.org/x/time/rate"
)

// throttle bounds how many bytes per second arrive from a host, on all its
// channels together. The sender notices by the windows of TCP and SSH. A nil one
// is no bound.
type throttle struct{ limiter *rate.Limiter }

func newThrottle(bytesPerSecond int64) *throttle {
	if bytesPerSecond <= 0 {
		return nil
	}
	// A tenth of a second's worth at once: no Read waits for longer.
	burst := max(int(bytesPerSecond/10), 1)
	return &throttle{rate.NewLimiter(rate.Limit(bytesPerSecond), min(burst, 1<<20))}
}

// share shortens a buffer to what may be read at once.
func (t *throttle) share(p []byte) []byte {
	if t == nil {
		return p
	}
	return p[:min(len(p), t.limiter.Burst())]
}

// spend waits until n bytes that were read into a share may have been, or until over is closed.
func (t *throttle) spend(n int, over <-chan struct{}) {
	if t == nil || n <= 0 {
		return
	}
	wait := t.limiter.ReserveN(time.Now(), n).Delay()
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-over:
	}
}
