package main

import (
	"context"
	"errors"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
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

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// exitStatus prints err, with what to do about it, and says how the program ends.
func exitStatus(e env, err error) int {
	var status statusError
	var usage usageError
	var locked *role.LockedError
	var invalid *config.Error
	if err == nil {
		return exitDone
	}
	if errors.As(err, &status) {
		return int(status)
	}
	if errors.Is(err, errInterrupted) || errors.Is(err, context.Canceled) {
		show.Error(e.err, errInterrupted)
		return exitInterrupted
	}
	show.Error(e.err, err)
	switch {
	case errors.As(err, &locked):
		return exitLocked
	case errors.Is(err, role.ErrWrongRole):
		return exitWrongRole
	case errors.As(err, &usage), errors.As(err, &invalid):
		return exitUsage
	}
	return exitFailed
}
