package program

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Status is an exit status of rsync.
type Status int

const (
	OK             Status = 0
	Usage          Status = 1
	Protocol       Status = 2
	Selection      Status = 3
	Unsupported    Status = 4
	Socket         Status = 10
	FileIO         Status = 11
	Stream         Status = 12
	IPC            Status = 14
	Signal1        Status = 19
	Signal         Status = 20
	Memory         Status = 22
	Partial        Status = 23
	Vanished       Status = 24
	DeleteLimit    Status = 25
	Timeout        Status = 30
	ConnectTimeout Status = 35
	NoCommand      Status = 127
	ShellFailed    Status = 255
)

func (s Status) String() string {
	switch s {
	case OK:
		return "success"
	case Usage:
		return "syntax or usage error"
	case Protocol:
		return "protocol incompatibility"
	case Selection:
		return "errors selecting input/output files, dirs"
	case Unsupported:
		return "requested action not supported"
	case Socket:
		return "error in socket IO"
	case FileIO:
		return "error in file IO"
	case Stream:
		return "error in rsync protocol data stream"
	case IPC:
		return "error in IPC code"
	case Signal1:
		return "received SIGUSR1"
	case Signal:
		return "received SIGINT, SIGTERM, or SIGHUP"
	case Memory:
		return "error allocating core memory buffers"
	case Partial:
		return "some files/attrs were not transferred (see previous errors)"
	case Vanished:
		return "some files vanished before they could be transferred"
	case DeleteLimit:
		return "the --max-delete limit stopped deletions"
	case Timeout:
		return "timeout in data send/receive"
	case ConnectTimeout:
		return "timeout waiting for daemon connection"
	case NoCommand:
		return "remote command not found"
	}
	return "unexplained error"
}

// worse notes what the run will end with although it went on. What was not
// transferred counts more than what vanished, and that more than what was not deleted.
func (r *run) worse(s Status) {
	rank := func(s Status) int {
		switch s {
		case OK:
			return 0
		case DeleteLimit:
			return 1
		case Vanished:
			return 2
		}
		return 3
	}
	if rank(s) > rank(r.io) {
		r.io = s
	}
}

// finish prints what is wrong and returns the exit status.
func (r *run) finish(ctx context.Context, err error) int {
	status := r.io
	if err != nil {
		status = r.statusOf(ctx, err)
		r.explain(err)
	}
	var guard *rsyncx.GuardError
	switch {
	case errors.As(err, &guard):
		r.problem("drsync error: the source was refused and nothing was changed (code %d)", int(status))
	case status != OK:
		r.problem("drsync error: %s (code %d)", status, int(status))
	}
	r.out.flush()
	if r.log != nil {
		if err := r.log.close(); err != nil {
			r.log = nil
			r.problem("drsync: the log file: %v", err)
		}
	}
	return int(status)
}

func (r *run) statusOf(ctx context.Context, err error) Status {
	var known failed
	var guard *rsyncx.GuardError
	switch {
	case errors.As(err, &guard):
		return DeleteLimit
	case errors.As(err, &known):
		return known.Status
	case ctx.Err() != nil && r.Status != nil && Status(r.World.Status(context.Cause(ctx))) == Signal1:
		return Signal1
	case ctx.Err() != nil:
		return Signal
	}
	if r.Status != nil {
		if s := r.World.Status(err); s != 0 {
			return Status(s)
		}
	}
	switch {
	case errors.Is(err, filter.ErrRule):
		return Usage
	case errors.Is(err, rsyncx.ErrNoListing):
		return Stream
	case errors.Is(err, rsyncx.ErrHostile):
		return Protocol
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return Partial
	case errors.Is(err, errors.ErrUnsupported):
		return Unsupported
	case errors.Is(err, rsyncx.ErrBusy), errors.Is(err, rsyncx.ErrStaged):
		return Selection
	case errors.Is(err, unix.ENOMEM):
		return Memory
	}
	return FileIO
}
