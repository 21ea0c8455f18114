package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shell is a host behind a remote shell.
type shell struct {
	argv   []string
	name   string
	stderr io.Writer // or nil
	limit  *throttle

	mu       sync.Mutex
	children map[*child]bool
	closed   bool
}

var _ far = (*shell)(nil)

func (s *shell) String() string { return s.name }

// run starts one process of the remote shell. The words are what the far
// side's shell gets, with spaces in between.
func (s *shell) run(ctx context.Context, words ...string) (program, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	c, err := startChild(slices.Concat(s.argv, words), s.stderr, s.limit)
	if err != nil {
		return nil, err
	}
	s.children[c] = true
	go func() {
		<-c.reaped
		s.mu.Lock()
		delete(s.children, c)
		s.mu.Unlock()
	}()
	return c, nil
}

// close ends every process and waits until all are reaped.
func (s *shell) close() error {
	s.mu.Lock()
	s.closed = true
	all := make([]*child, 0, len(s.children))
	for c := range s.children {
		all = append(all, c)
	}
	s.mu.Unlock()
	var group sync.WaitGroup
	for _, c := range all {
		group.Go(func() { c.Close() })
	}
	group.Wait()
	return nil
}

func (*shell) lost() error { return nil }

// child is one process of the remote shell: its input and output as one stream.
type child struct {
	in     *os.File // what it reads
	out    *os.File // what it wrote
	cmd    *exec.Cmd
	group  bool // it leads a process group of its own
	stderr capped
	limit  *throttle

	closing chan struct{} // closed by Close
	reaped  chan struct{} // closed when it has ended and was waited for
	status  error         // of cmd.Wait
	end     sync.Once
}

var _ program = (*child)(nil)

// patience is how long a process may take to end by itself once its input has
// ended, and again after it was asked to.
const patience = time.Second

func startChild(argv []string, stderr io.Writer, limit *throttle) (*child, error) {
	wrap := func(err error) error {
		return &ShellError{Status: -1, err: fmt.Errorf("start the remote shell %s: %w", argv[0], err)}
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, wrap(err)
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, wrap(err)
	}
	defer theirOut.Close()
	c := &child{in: in, out: out, limit: limit, closing: make(chan struct{}), group: !hasTerminal(), reaped: make(chan struct{})}
	c.stderr.copyTo = stderr
	c.cmd = exec.Command(argv[0], argv[1:]...)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = theirIn, theirOut, &c.stderr
	c.cmd.WaitDelay = patience // for a grandchild that keeps stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: c.group}
	if err := c.cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, wrap(err)
	}
	go func() {
		if c.group {
			c.killLeftovers()
		}
		c.status = c.cmd.Wait()
		if errors.Is(c.status, exec.ErrWaitDelay) {
			c.status = nil // it ended well; only its stderr was left open
		}
		close(c.reaped)
	}()
	return c, nil
}

// killLeftovers waits for the end of the process and then ends what it started
// and left behind. The group keeps its number until the process is waited for.
func (c *child) killLeftovers() {
	for {
		err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
			return
		}
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// hasTerminal says whether there is a terminal that ssh may ask for a password
// on. A process outside the terminal's foreground group would be stopped when it does.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

func (c *child) Read(p []byte) (int, error) {
	n, err := c.out.Read(c.limit.share(p))
	c.limit.spend(n, c.closing)
	return n, err
}

func (c *child) Write(p []byte) (int, error) { return c.in.Write(p) }
func (c *child) CloseWrite() error           { return c.in.Close() }

// Close ends the process and whatever it started, and returns when it is reaped.
func (c *child) Close() error {
	c.end.Do(func() {
		close(c.closing)
		c.in.Close()
		c.out.Close()
		if c.gone(patience) {
			return
		}
		c.signal(syscall.SIGTERM)
		if c.gone(patience) {
			return
		}
		c.signal(syscall.SIGKILL)
	})
	<-c.reaped
	return nil
}

func (c *child) gone(wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-c.reaped:
		return true
	case <-t.C:
		return false
	}
}

// signal sends to the process and to those it started.
func (c *child) signal(s syscall.Signal) {
	pid := c.cmd.Process.Pid
	if c.group {
		_ = syscall.Kill(-pid, s) // the group keeps its number while anyone is in it
		return
	}
	for _, p := range append(descendants(pid), pid) {
		_ = syscall.Kill(p, s)
	}
}

// descendants returns the processes that a process has started, and those that they have.
func descendants(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all) && len(all) < 1000; i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, list := range lists { // each thread has its own
			text, err := os.ReadFile(list)
			if err != nil {
				continue
			}
			for word := range strings.FieldsSeq(string(text)) {
				if n, err := strconv.Atoi(word); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all[1:]
}

// wait returns when the process has ended: nil if it did so well, else a *ShellError.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.reaped:
		return c.ended(errors.New("it ended"))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ended returns how the process ended, or nil if it did well. err is what is known besides.
func (c *child) ended(err error) error {
	var exit *exec.ExitError
	switch {
	case c.status == nil:
		return nil
	case !errors.As(c.status, &exit):
		return &ShellError{Status: -1, err: fmt.Errorf("%w: %w", err, c.status)}
	}
	status := exit.ExitCode() // -1 after a signal
	return shellError(err, status, exit.String(), c.stderr.text())
}

func (c *child) explain(err error) error {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-c.reaped:
		if failed := c.ended(err); failed != nil {
			return failed
		}
	case <-t.C:
	}
	return withStderr(err, c.stderr.text())
}

func (c *child) said() string    { return c.stderr.text() }
func (c *child) lines() []string { return c.stderr.lines() }
