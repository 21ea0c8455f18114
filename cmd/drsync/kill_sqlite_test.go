package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/demo"
)

// TestKillSQLite does what TestKill does with the default engine and a local
// active; the laboratory's own check is what looks at the standby.
func TestKillSQLite(t *testing.T) {
	t.Parallel()
	lab, err := demo.NewLab(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	config, err := lab.WriteConfig("local", demo.SSH{})
	if err != nil {
		t.Fatal(err)
	}
	now := func(kill string) int {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, os.Args[0], "now", "--config", config)
		c.Env = append(os.Environ(), testMainEnv+"=1", raceEnv, killEnv+"="+kill)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := c.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if status := c.ProcessState.ExitCode(); status > 0 {
			t.Fatalf("killed at %s: exit %d\n%s", kill, status, out)
		}
		return c.ProcessState.ExitCode()
	}
	survive := func(kill string) {
		t.Helper()
		check, err := lab.Check(t.Context())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if len(check.Broken) > 0 {
			t.Fatalf("killed at %s, and the promise is broken: %q", kill, check.Broken)
		}
		if status := now(""); status != 0 {
			t.Fatalf("the run after a kill at %s: exit %d", kill, status)
		}
		if check, err = lab.Check(t.Context()); err != nil || !check.OK() {
			t.Fatalf("the run after a kill at %s: %v %q %q", kill, err, check.Broken, check.Behind)
		}
	}
	kills := 0
	for _, what := range []string{"boundary", "change"} {
		for n := 1; ; n++ {
			if _, err := lab.Change(t.Context()); err != nil {
				t.Fatal(err)
			}
			kill := fmt.Sprintf("%s %d", what, n)
			if now(kill) == 0 {
				break
			}
			survive(kill)
			kills++
		}
	}
	if kills < 40 {
		t.Fatalf("only %d kills", kills)
	}
}
