package main

import (
	"strings"
	"testing"
)

// TestQuietRunIsQuiet follows the README's statements: what drsync would do
// better with is said by check, and never mailed by cron.
func TestQuietRunIsQuiet(t *testing.T) {
	p := newPair(t, "local")
	for range 2 {
		if out, said, status := p.drsync("now", "--quiet"); status != 0 || out+said != "" {
			t.Errorf("exit %d: %s%s", status, out, said)
		}
	}
	out, said, status := p.drsync("check")
	if status != 0 || !strings.Contains(out+said, "GRANT BINLOG ADMIN") {
		t.Errorf("check: exit %d: %s%s", status, out, said)
	}
}
