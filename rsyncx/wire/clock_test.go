package wire

import (
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// TestSourceTellsItsTime: not after it is that late there, and not long before.
func TestSourceTellsItsTime(t *testing.T) {
	clock, ok := openInPool(t, t.TempDir()).(rsyncx.Clock)
	if !ok {
		t.Fatal("the source has no clock")
	}
	now, err := clock.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if past := time.Since(time.Unix(now.Sec, int64(now.Nsec))); past < 0 || past > time.Minute {
		t.Errorf("it is %v behind", past)
	}
}
