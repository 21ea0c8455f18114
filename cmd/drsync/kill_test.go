package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killed starts a run that is to die by SIGKILL. It returns false when the run
// ended by itself first.
func (p *pair) killed(extra ...string) bool {
	p.t.Helper()
	_, stderr, status := p.drsyncEnv(extra, "now")
	switch status {
	case -1:
		return true
	case 0:
		return false
	}
	p.t.Fatalf("drsync now %v: exit %d before it was killed\n%s", extra, status, stderr)
	return false
}

// TestKill ends drsync by SIGKILL at every step boundary and at random moments,
// and after each asks for the promise; then the next run has to complete.
func TestKill(t *testing.T) {
	p := newPair(t, "agent")
	kills := 0
	survive := func(how string) {
		t.Helper()
		kills++
		named := p.checkPromise()
		t.Logf("kill %d, %s: the visible database names %d blobs", kills, how, named)
		p.must(0, "now")
		p.checkEqual()
		p.change()
	}

	for n := 1; ; n++ {
		if !p.killed(fmt.Sprintf("%s=boundary %d", killEnv, n)) {
			if n < 20 {
				t.Fatalf("only %d boundaries: the steps were not seen", n-1)
			}
			break
		}
		survive(fmt.Sprintf("boundary %d", n))
	}
	for n := 1; n <= 8; n++ {
		if p.killed(fmt.Sprintf("%s=change %d", killEnv, n)) {
			survive(fmt.Sprintf("change %d", n))
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	p.must(0, "now")
	longest := p.timeOfRun()
	for tries := 0; kills < 64 && tries < 120; tries++ {
		after := time.Duration(random.Int64N(int64(longest)))
		p.change()
		c := p.command(t.Context(), "now")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(after, func() { _ = c.Process.Signal(syscall.SIGKILL) })
		err := c.Wait()
		timer.Stop()
		if err == nil {
			continue // it was faster this time
		}
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("%v before it was killed", err)
		}
		survive("after " + after.Round(time.Millisecond).String())
	}
	if kills < 60 {
		t.Fatalf("only %d kills", kills)
	}
}

// timeOfRun measures a run with a few changes, so that random kills fall into it.
func (p *pair) timeOfRun() time.Duration {
	p.t.Helper()
	p.change()
	began := time.Now()
	p.must(0, "now")
	return time.Since(began)
}

// TestServerKilledInPublish ends the standby's database server instead.
func TestServerKilledInPublish(t *testing.T) {
	p := newPair(t, "local")
	p.must(0, "now")
	for _, when := range []string{"stage", "verify"} {
		p.change()
		_, stderr, status := p.during(when, p.standby.Kill, "now")
		if status != 1 || !strings.Contains(stderr, "error:") {
			t.Fatalf("exit %d, want 1\n%s", status, stderr)
		}
		p.standby.Start()
		p.checkPromise()
		p.must(0, "now")
		p.checkEqual()
	}
}
