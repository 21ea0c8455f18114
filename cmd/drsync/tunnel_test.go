package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/testenv"
)

// TestTunnelIsNamed tells a line that froze from a database that is not there:
// the one is ssh's matter, the other is not.
func TestTunnelIsNamed(t *testing.T) {
	sshd := testenv.SSHD(t)
	proxy := testenv.Proxy(t, sshd.Addr)
	line, err := os.ReadFile(sshd.KnownHosts)
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(line), " ")
	known := filepath.Join(t.TempDir(), "known")
	if err := os.WriteFile(known, fmt.Appendf(nil, "[127.0.0.1]:%d %s", proxy.Port, key), 0o600); err != nil {
		t.Fatal(err)
	}
	s := configured(t, sshd, fmt.Sprintf("port: %d", sshd.Port), fmt.Sprintf("port: %d", proxy.Port), sshd.KnownHosts, known)
	if _, err := s.active.get(t.Context()); err != nil {
		t.Fatal(err)
	}
	closed := testenv.SSHD(t)
	closed.Stop()
	_, err = s.active.DialContext(t.Context(), "tcp", closed.Addr)
	if err == nil || strings.Contains(hint.Of(err), "ssh") {
		t.Errorf("a port that nobody listens at: %v (%s)", err, hint.Of(err))
	}
	shut := testenv.SSHD(t)
	shut.Authorize("restrict")
	_, err = configured(t, shut).active.DialContext(t.Context(), "tcp", sshd.Addr)
	if err == nil || !strings.Contains(hint.Of(err), fmt.Sprintf("permitopen=%q", sshd.Addr)) {
		t.Errorf("a key that may not forward: %v (%s)", err, hint.Of(err))
	}
	proxy.Freeze()
	defer proxy.Thaw()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = s.active.DialContext(ctx, "tcp", sshd.Addr)
	if err == nil || !strings.Contains(hint.Of(err), "leads through ssh") {
		t.Errorf("a frozen line: %v (%s)", err, hint.Of(err))
	}
}
