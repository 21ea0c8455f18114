// Command drsync keeps a standby host at a published snapshot of an active one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
	_ "time/tzdata" // a schedule may name a zone on a host without zone files

	"github.com/drsync/drsync/internal/event"
)

// version is set by the linker.
var version = "dev"

func main() {
	if os.Getenv("GOGC") == "" {
		tuneHeap()
	}
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "rsyncx" {
		args = append([]string{"rsync"}, args...)
	}
	os.Exit(run(env{in: os.Stdin, out: os.Stdout, err: os.Stderr, now: time.Now, version: version}, args))
}

// env is what the commands use of the world.
type env struct {
	in       io.Reader
	out, err io.Writer
	now      func() time.Time
	version  string
	// watch receives every event beside the terminal and the log file; nil for none.
	watch event.Sink
}

var (
	// errInterrupted is the cause of a context that a signal cancelled.
	errInterrupted = errors.New("interrupted")
	// errToldToEnd is it after SIGUSR1, for which rsync has a status of its own.
	errToldToEnd = fmt.Errorf("%w by SIGUSR1", errInterrupted)
)

// run is main without its globals: it returns the exit status.
func run(e env, args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	// Output that nobody reads any more ends nothing: writing it gives an error then.
	// The signal is caught, not ignored, for what is started here would ignore it too.
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	defer signal.Stop(unread)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1)
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			if s == syscall.SIGUSR1 {
				cancel(errToldToEnd)
			} else {
				cancel(errInterrupted)
			}
			signal.Stop(signals) // a second one ends the program at once, which every step survives
		case <-ctx.Done():
		}
	}()
	return execute(ctx, e, args)
}
