// Package testenv starts the real servers that tests run against, on loopback
// and private sockets, below the test's temporary directory.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// Require ends the test unless every program is installed: it skips on a
// developer's machine, and fails where DRSYNC_TEST_ALL or CI is set, so that a
// green run there has tested everything.
func Require(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		if os.Getenv("CI") != "" || os.Getenv("DRSYNC_TEST_ALL") != "" {
			t.Fatalf("%s is not installed; `make test` installs it", p)
		}
		t.Skipf("%s is not installed; `make test` installs it", p)
	}
}

// RequireRoot ends the test unless it runs as root, by the same rule as Require.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("DRSYNC_TEST_ALL") != "" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}
