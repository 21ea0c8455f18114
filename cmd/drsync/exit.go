package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/rsyncx"
)

// Exit statuses, which scripts rely on.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitIncomplete  = 3
	exitWrongRole   = 10
	exitLocked      = 11
	exitInterrupted = 130
)

// statusError ends the program with a status of its own and prints nothing more.
type statusError int

func (s statusError) Error() string { return "exit status" }

// usageError is a command line, or a configuration, that cannot be used.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// reportedError is an error of a command that has something to report all the same.
type reportedError struct {
	error
	report any
}

func (r reportedError) Unwrap() error { return r.error }

// exitStatus prints err, with what to do about it, and says how the program ends.
func exitStatus(e env, err error) int {
	status := statusOf(err)
	var said statusError
	switch {
	case err == nil || errors.As(err, &said):
	case status == exitInterrupted:
		show.Error(e.err, errInterrupted)
	default:
		show.Error(e.err, err)
	}
	return status
}

func statusOf(err error) int {
	var status statusError
	var usage usageError
	var locked *role.LockedError
	var invalid *config.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &locked), errors.Is(err, rsyncx.ErrBusy), errors.Is(err, dbrepl.ErrBusy):
		return exitLocked
	case errors.Is(err, role.ErrWrongRole):
		return exitWrongRole
	case errors.As(err, &usage), errors.As(err, &invalid):
		return exitUsage
	}
	return exitFailed
}

// failure is what --json prints for an error: the fields of its report, if it
// has one, and error, hint and exit.
func failure(err error, status int) map[string]any {
	all := map[string]any{}
	var reported reportedError
	if errors.As(err, &reported) {
		// A report that cannot be written leaves the error, which matters more.
		if text, merr := json.Marshal(reported.report); merr == nil {
			_ = json.Unmarshal(text, &all)
		}
	}
	all["error"], all["exit"] = err.Error(), status
	if status == exitInterrupted {
		all["error"] = errInterrupted.Error()
	}
	if h := hint.Of(err); h != "" {
		all["hint"] = h
	}
	return all
}
