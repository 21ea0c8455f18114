package program_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/program"
	"github.com/drsync/drsync/rsyncx/wire"
)

// patience is how long one command may take before it is taken for stuck.
const patience = time.Minute

// oraclePatience is the same for the real rsync, which hangs now and then.
const oraclePatience = 20 * time.Second

// runProgram runs this program inside the test; a host is an agent in the same
// process, at the other end of a pipe.
func runProgram(ctx context.Context, dir string, args []string) (string, string, int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the program is stuck"))
	defer cancel()
	var stdout, stderr bytes.Buffer
	env := map[string]string{"LC_ALL": "C.UTF-8", "HOME": dir}
	exit := program.Run(ctx, program.World{
		In: bytes.NewReader(nil), Out: &stdout, Err: &stderr, Dir: dir,
		Env:     func(name string) string { return env[name] },
		Now:     time.Now,
		Version: "test",
		Dial:    dialInside,
	}, args)
	if ctx.Err() != nil {
		return "", "", 0, context.Cause(ctx)
	}
	return stdout.String(), stderr.String(), exit, nil
}

// insideHost is an agent in this process.
type insideHost struct {
	pool   *wire.Pool
	cancel context.CancelFunc
	agents *sync.WaitGroup
}

func dialInside(_ context.Context, to program.Remote) (program.Host, error) {
	return agentAt(to.Roots...)
}

// agentAt is an agent that serves what is below roots.
func agentAt(roots ...string) (program.Host, error) {
	ctx, cancel := context.WithCancel(context.Background())
	h := &insideHost{cancel: cancel, agents: new(sync.WaitGroup)}
	h.pool = wire.NewPool(4, func(dialCtx context.Context) (*wire.Conn, error) {
		here, there := net.Pipe()
		h.agents.Go(func() {
			defer there.Close()
			_ = wire.Serve(ctx, there, there, wire.Server{Roots: roots, Version: "test"})
		})
		return wire.Dial(dialCtx, here, wire.ClientOptions{Version: "test", Silence: patience})
	})
	return h, nil
}

func (h *insideHost) Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error) {
	return h.pool.Source(ctx, root, v)
}

func (h *insideHost) Close() error {
	err := h.pool.Close()
	h.cancel()
	h.agents.Wait()
	return err
}

// errHung says that rsync itself did not come to an end.
var errHung = errors.New("rsync hangs")

// unsupported is what is said when an option is not carried out.
var unsupported = regexp.MustCompile(`cannot honour|unsupported operation|does not carry out`)

// runCommand runs a program of this host.
func runCommand(name string, before ...string) runner {
	return func(ctx context.Context, dir string, args []string) (string, string, int, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, oraclePatience, errHung)
		defer cancel()
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, name, append(append([]string{}, before...), args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "RSYNC_RSH="+filepath.Join(filepath.Dir(dir), "shell"), "CVSIGNORE=", "HOME="+dir)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Stdin = io.NopCloser(bytes.NewReader(nil))
		err := cmd.Run()
		if ctx.Err() != nil {
			return "", "", 0, context.Cause(ctx)
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = nil
		}
		if err != nil {
			return "", "", 0, fmt.Errorf("run %s: %w", name, err)
		}
		return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), nil
	}
}
