package remote

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

// TestBandwidthLimit: all channels together stay below the limit, by either way
// of reaching the host, and a limited host is closed at once. The same for a line
// that is narrow itself.
func TestBandwidthLimit(t *testing.T) {
	s := testenv.SSHD(t)
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const limit = 1 << 20
	c := config(t, s, TransportAgent)
	c.BandwidthLimit = limit
	narrow := config(t, s, TransportAgent)
	p := testenv.Proxy(t, s.Addr)
	narrow.KnownHosts, narrow.Port = knownAs(t, s, p), p.Port
	p.SetRate(limit)
	for name, h := range map[string]Host{
		"ssh":  dial(t, c),
		"line": dial(t, narrow),
		"shell": dialCommand(t, CommandConfig{Shell: []string{asShell(t, thisHost)}, Host: "far", RemoteCommand: []string{me}, Roots: []string{"/"},
			BandwidthLimit: limit}),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
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
			if took := time.Since(start); took < 700*time.Millisecond {
				t.Errorf("a second's worth took %v", took)
			}
			within(t, 5*time.Second, func() { h.Close() })
		})
	}
}
