package remote

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx/wire"
)

// TestThrottle: what several readers get together, by a clock of the test's own, is
// the limit, and a tenth of a second's worth before that.
func TestThrottle(t *testing.T) {
	for _, limit := range []int64{1000, 1 << 20, 1 << 30} {
		synctest.Test(t, func(t *testing.T) {
			th := newThrottle(limit)
			const seconds = 10
			over := make(chan struct{})
			var moved atomic.Int64
			var readers sync.WaitGroup
			for range 3 {
				readers.Go(func() {
					buf := make([]byte, 64<<10)
					for {
						n := len(th.share(buf))
						th.spend(n, over)
						select {
						case <-over: // what was cut short was not waited for
							return
						default:
							moved.Add(int64(n))
						}
					}
				})
			}
			time.Sleep(seconds * time.Second)
			got := moved.Load()
			close(over)
			readers.Wait()
			most := limit*seconds + limit/10
			if least := limit*seconds - 3*min(limit/10, 64<<10); got < least || got > most {
				t.Errorf("%d bytes in %d s at %d a second", got, seconds, limit)
			}
		})
	}
}

// TestBandwidthLimit: all channels together stay below the limit, by either way
// of reaching the host, and a limited host is closed at once. So is one at the
// end of a line that is narrow itself.
func TestBandwidthLimit(t *testing.T) {
	s := testenv.SSHD(t)
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const limit = 2 << 20
	c := config(t, s, TransportAgent)
	c.BandwidthLimit = limit
	c.Compress = wire.CompressNever // the limit is on what travels
	narrow := config(t, s, TransportAgent)
	narrow.Compress = wire.CompressNever
	p := testenv.Proxy(t, s.Addr)
	narrow.KnownHosts, narrow.Port = knownAs(t, s, p), p.Port
	p.SetRate(limit)
	for name, begin := range map[string]func(t *testing.T) Host{
		"ssh":  func(t *testing.T) Host { return dial(t, c) },
		"line": func(t *testing.T) Host { return dial(t, narrow) },
		"shell": func(t *testing.T) Host {
			return dialCommand(t, CommandConfig{Shell: []string{asShell(t, thisHost)}, Host: "far", RemoteCommand: []string{me}, Roots: []string{"/"},
				BandwidthLimit: limit, Compress: wire.CompressNever})
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			h := begin(t)
			for range 2 {
				r, err := h.Stream(t.Context(), "endless", "")
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if _, err := io.ReadFull(r, make([]byte, limit/2)); err != nil {
					t.Fatal(err)
				}
			}
			_, got := h.(interface{ Traffic() (sent, received int64) }).Traffic()
			// A slow machine has more time and may have more: this holds on any.
			took := time.Since(start)
			if most := int64(took.Seconds()*limit) + limit/10; name != "line" && got > most || got < limit {
				t.Errorf("%d bytes within %v at %d a second", got, took, limit)
			}
			within(t, 5*time.Second, func() { h.Close() })
		})
	}
}
