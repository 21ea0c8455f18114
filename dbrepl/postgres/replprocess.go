package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/drsync/drsync/internal/hint"
)

// running returns the process of the server that has the cluster, or 0. What
// cannot be told counts as running.
func (c cluster) running() (int, error) {
	pid := 0
	// A server that begins makes the file first and writes it then.
	told, err := until(context.Background(), time.Second, func() (bool, error) {
		data, err := c.read("postmaster.pid")
		if errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		first, _, whole := strings.Cut(string(data), "\n")
		pid, err = strconv.Atoi(strings.TrimSpace(first))
		return whole && err == nil, nil
	})
	switch {
	case err != nil:
		return 0, err
	case pid < 0:
		pid = -pid // of a server that was started for maintenance
	case !told:
		return 0, hint.With(fmt.Errorf("%s names no process", c.path("postmaster.pid")), "if no server runs there, remove it")
	case pid == 0:
		return 0, nil
	}
	if isServer(pid) {
		return pid, nil
	}
	return 0, nil
}

// isServer says whether a process lives that may be a PostgreSQL server.
func isServer(pid int) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return syscall.Kill(pid, 0) == nil // it may be hidden
	}
	begin, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	if err != nil || begin < 0 || end+2 >= len(stat) {
		return true
	}
	if strings.ContainsRune("ZX", rune(stat[end+2])) {
		return false
	}
	name := string(stat[begin+1 : end])
	return strings.Contains(name, "postgres") || strings.Contains(name, "postmaster")
}

// until asks again and again until done says yes, or the time is over.
func until(parent context.Context, limit time.Duration, done func() (bool, error)) (bool, error) {
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return ok, err
		}
		select {
		case <-parent.Done():
			return false, context.Cause(parent)
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
}

// progress watches whether a server that is asked again and again gets on.
type progress struct {
	patience time.Duration
	last     activity
	moved    time.Time
}

// activity is what a server's process that replays is doing.
type activity struct {
	what string // "" if there is no such process
	work int    // time on a processor, in hundredths of a second
}

// idle is how much a process does that looks now and then whether there is more to do.
const idle = 5

type gait int

const (
	moving gait = iota
	closed      // it has replayed all it has, and lets nobody in
	stuck
)

// see takes what the server is doing now.
func (p *progress) see(now activity) gait {
	if now.what != p.last.what || now.work-p.last.work > idle || p.moved.IsZero() {
		p.last, p.moved = now, time.Now()
	}
	switch since := time.Since(p.moved); {
	case now.what != "" && since > p.patience:
		return closed
	case since > 12*p.patience:
		return stuck
	}
	return moving
}

// doing finds the process of a server that replays, and what that does.
func doing(server int) activity {
	pid := strconv.Itoa(server)
	children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil {
		return activity{}
	}
	for _, child := range strings.Fields(string(children)) {
		title, err := os.ReadFile("/proc/" + child + "/cmdline")
		text := strings.TrimRight(string(title), "\x00 ")
		if err != nil || !strings.Contains(text, ": startup ") {
			continue
		}
		stat, err := os.ReadFile("/proc/" + child + "/stat")
		_, rest, ok := strings.Cut(string(stat), ") ")
		// The 14th and 15th fields, of which the first two are before the bracket.
		if all := strings.Fields(rest); err == nil && ok && len(all) > 12 {
			user, uerr := strconv.Atoi(all[11])
			system, serr := strconv.Atoi(all[12])
			if uerr == nil && serr == nil {
				return activity{text, user + system}
			}
		}
	}
	return activity{}
}
