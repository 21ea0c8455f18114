package wire

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/drsync/drsync/rsyncx"
)

// TestOneAgentServesManyRequests: each agent costs a login shell and a process
// on the active, so what is left early must not cost a new one.
func TestOneAgentServesManyRequests(t *testing.T) {
	dir := t.TempDir()
	for i := range 60 {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for k := range 5 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%d", k)), []byte("text"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	dials := 0
	p := NewPool(4, func(ctx context.Context) (*Conn, error) {
		dials++
		rwc, _ := serve(t, Server{Roots: []string{dir}})
		return Dial(ctx, rwc, quick())
	})
	defer p.Close()
	src, err := p.Source(t.Context(), dir, rsyncx.View{})
	if err != nil {
		t.Fatal(err)
	}
	for _, stopAfter := range []int{1, 2, 30, 60, 61} { // 61 is all of them
		seen := 0
		for _, err := range src.Walk(t.Context(), rsyncx.WalkOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if seen++; seen == stopAfter {
				break
			}
		}
		if seen != stopAfter {
			t.Errorf("%d directories, want %d", seen, stopAfter)
		}
		content, err := rsyncx.ReadFile(t.Context(), src, "d001/f1", 100)
		if err != nil || string(content) != "text" {
			t.Errorf("after a walk left at %d: %q, %v", stopAfter, content, err)
		}
		if _, err := rsyncx.ReadFile(t.Context(), src, "missing", 100); err == nil {
			t.Error("a missing file was read")
		}
		if _, err := rsyncx.ReadFile(t.Context(), src, "d001/f1", 3); err == nil {
			t.Error("a file that is too long was read")
		}
	}
	if dials != 1 {
		t.Errorf("%d agents were started", dials)
	}
}

// TestEndlessListingIsCutOff: an agent that goes on though its listing was
// called off loses the connection.
func TestEndlessListingIsCutOff(t *testing.T) {
	var sent atomic.Int64
	rwc := peer(t, func(rw io.ReadWriter) {
		hello(rw)
		if request(rw, frameOpen) != nil {
			return
		}
		rw.Write(appendFrame(nil, frameAbilities, appendAbilities(nil, rsyncx.Abilities{})))
		if request(rw, frameWalk) != nil {
			return
		}
		for path := ""; ; path = "d" {
			n, err := rw.Write(append(dirFrame(path), appendFrame(entriesFrame("d"), frameDirEnd, nil)...))
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	c, err := Dial(t.Context(), rwc, quick())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range c.Walk(t.Context(), Tree{Root: "/srv"}, rsyncx.WalkOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if c.usable() {
		t.Error("the connection is still in use")
	}
	if n := sent.Load(); n > 2*maxSkipped {
		t.Errorf("%d bytes were read", n)
	}
}
