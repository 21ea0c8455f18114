package failover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Command is a program that starts the service. It is run without a shell.
type Command struct {
	Argv    []string // program and arguments; empty when the operator starts the service
	Dir     string   // working directory, "" for this process's
	Timeout time.Duration
}

// DefaultTimeout is Command.Timeout's value when that is 0.
const DefaultTimeout = 5 * time.Minute

// MaxOutput bounds how much of a command's output is kept.
const MaxOutput = 64 << 10

// String says for a person what is run.
func (c Command) String() string {
	if len(c.Argv) == 0 {
		return "tell the operator to start the service: no command is configured"
	}
	return "run " + strings.Join(c.Argv, " ")
}

// Run runs the command to its end and returns the end of its output. A command
// that takes too long, or whose ctx is cancelled, is killed with everything that
// it started. A daemon that a successful command leaves behind lives on.
func (c Command) Run(ctx context.Context) (output string, err error) {
	if len(c.Argv) == 0 {
		return "", errors.New("internal error: no command")
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it took longer than %s", timeout))
	defer cancel()

	// A file and not a pipe: a daemon that keeps its output open would keep a pipe's reader waiting.
	out, err := os.CreateTemp("", "drsync-start-*")
	if err != nil {
		return "", err
	}
	defer out.Close()
	if err := os.Remove(out.Name()); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(limited, c.Argv[0], c.Argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.Dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	if err != nil && limited.Err() != nil {
		err = context.Cause(limited)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", c.Argv[0], err)
	}
	return tail(out), err
}

// tail returns the last MaxOutput bytes of f.
func tail(f *os.File) string {
	fi, err := f.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, min(fi.Size(), MaxOutput))
	n, _ := f.ReadAt(buf, fi.Size()-int64(len(buf)))
	return strings.ToValidUTF8(string(buf[:n]), "\uFFFD")
}
