package sync

import (
	"testing"
	"time"
)

func TestVerifyDue(t *testing.T) {
	weekly := func(t time.Time) time.Time { return t.Add(7 * 24 * time.Hour) }
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	ago := func(days int) time.Time { return now.Add(-time.Duration(days) * 24 * time.Hour) }
	for name, c := range map[string]struct {
		last *LastVerify
		want bool
	}{
		"never":            {nil, true},
		"yesterday":        {&LastVerify{Time: ago(1), Equal: ago(1)}, false},
		"just due":         {&LastVerify{Time: ago(7), Equal: ago(7)}, true},
		"differs":          {&LastVerify{Time: ago(1), Equal: ago(2), Difference: "x"}, true},
		"differed at once": {&LastVerify{Time: ago(1), Difference: "x"}, true},
	} {
		if got := c.last.Due(weekly, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
