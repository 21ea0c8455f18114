package main

import (
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/event"
)

// The test binary is also drsync: with testMainEnv set it behaves as the
// program. Two more variables let a test act at an exact moment of a run, from
// inside its event sink; the program itself knows nothing of them.
const (
	killEnv = "DRSYNC_TEST_KILL" // "boundary N" or "change N": SIGKILL itself at the N-th such event
	hookEnv = "DRSYNC_TEST_HOOK" // "STEP command": run a shell command when STEP is done, or "change command", "part command": at the first change or part of a publish
)

func TestMain(m *testing.M) {
	if os.Getenv(testMainEnv) == "" {
		os.Exit(m.Run())
	}
	signal.Reset()
	e := env{in: os.Stdin, out: os.Stdout, err: os.Stderr, now: time.Now, version: "test", watch: event.Tee(killer(), hook())}
	os.Exit(run(e, os.Args[1:]))
}

// boundary says whether e lies between two steps of a run or of a publish.
func boundary(e event.Event) bool {
	return e.Kind == event.StepStart || e.Kind == event.StepDone || e.Kind == event.Info && e.Step == "publish"
}

func killer() event.Sink {
	what, number, ok := strings.Cut(os.Getenv(killEnv), " ")
	if !ok {
		return nil
	}
	at, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		panic(err)
	}
	var seen atomic.Int64
	return func(e event.Event) {
		if what == "boundary" && !boundary(e) || what == "change" && e.Kind != event.Change {
			return
		}
		if seen.Add(1) == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way: do nothing more
		}
	}
}

func hook() event.Sink {
	step, command, ok := strings.Cut(os.Getenv(hookEnv), " ")
	if !ok {
		return nil
	}
	var once sync.Once
	return func(e event.Event) {
		if e.Kind == event.StepDone && e.Step == step || e.Kind == event.Change && step == "change" || e.Kind == event.Info && e.Step == "publish" && step == "part" {
			once.Do(func() { shell(command) })
		}
	}
}

func shell(command string) {
	if out, err := exec.Command("/bin/sh", "-c", command).CombinedOutput(); err != nil {
		panic(string(out) + err.Error())
	}
}
