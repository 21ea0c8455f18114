package remote

import (
	"errors"
	"fmt"

	"github.com/drsync/drsync/internal/hint"
)

var (
	// ErrRemoteNotFound is wrapped when the host's shell did not find the program
	// that was to be started there (status 127).
	ErrRemoteNotFound = errors.New("the program was not found on the host")
	// ErrShellFailed is wrapped when a program on the host, or the remote shell that
	// leads there, ended with an error or could not be started. The error is a
	// *ShellError too.
	ErrShellFailed = errors.New("the remote shell ended with an error")
	// ErrTimeout is wrapped when a host that had answered said nothing for too long.
	ErrTimeout = errors.New("the host fell silent")
	// ErrConnectTimeout is wrapped when there was no login, or no greeting, in time.
	ErrConnectTimeout = errors.New("no connection in time")
)

// ShellError says how a program on the host, or the remote shell, ended.
type ShellError struct {
	// Status is what it ended with: 127 not found, 126 not to be run, 255 what
	// ssh gives when it cannot connect; -1 when it could not be started or a signal ended it.
	Status int
	err    error
}

func (e *ShellError) Error() string { return e.err.Error() }
func (e *ShellError) Unwrap() error { return e.err }

// Is makes errors.Is find the kind of failure.
func (e *ShellError) Is(target error) bool {
	return target == ErrShellFailed || target == ErrRemoteNotFound && e.Status == 127
}

// shellError adds to err how a program ended and what it said.
func shellError(err error, status int, how, said string) error {
	if status >= 0 {
		how = fmt.Sprintf("it ended with status %d", status)
	}
	err = &ShellError{status, withStderr(fmt.Errorf("%w: %s", err, how), said)}
	switch status {
	case 126, 127:
		return hint.With(err, "install the same drsync on the active, where the login shell finds it, or use transport: exec or sftp")
	}
	return err
}

func withStderr(err error, said string) error {
	if said == "" {
		return err
	}
	return fmt.Errorf("%w: it said: %s", err, said)
}
