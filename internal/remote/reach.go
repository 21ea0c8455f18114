package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
)

var (
	// ErrUnreachable is wrapped when the host gave no sign of life: it refused
	// the connection, no route led to it, nothing came back in time, or the
	// connection ended before a single byte of the SSH banner.
	ErrUnreachable = errors.New("the host does not answer")
	// ErrAnswered is wrapped when the host answered and there was no login all
	// the same: its key is not the known one, it let nobody in, it fell silent
	// after its banner, or it does not speak SSH.
	ErrAnswered = errors.New("the host answers")
)

// verdict adds what an error says about the host, without a word in its text.
type verdict struct {
	error
	is error
}

func (v verdict) Unwrap() []error { return []error{v.error, v.is} }

// Knock connects to an address as this host sees it and hangs up. A nil error
// means that somebody accepted; one that wraps ErrUnreachable that nobody did;
// any other that it could not be found out. It waits as long as ctx lasts.
func Knock(ctx context.Context, network, addr string) error {
	c, err := reach(ctx, network, addr)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", addr, err)
	}
	return c.Close()
}

// reach opens a connection. Its error wraps ErrUnreachable if addr was tried and
// nobody answered.
func reach(ctx context.Context, network, addr string) (net.Conn, error) {
	if ctx.Err() != nil { // what came before used the time up: nothing was tried
		return nil, context.Cause(ctx)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err == nil {
		return c, nil
	}
	unreachable := nobody(err) || network == "unix" && errors.Is(err, fs.ErrNotExist)
	var name *net.DNSError
	if errors.As(err, &name) {
		unreachable = false // a server of names did not answer, or the name is wrong
	} else if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		unreachable = true
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if unreachable {
		return nil, verdict{err, ErrUnreachable}
	}
	return nil, err
}

// nobody says whether an error of the network means that nobody is there.
func nobody(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// failedHandshake says what the end of a handshake tells about the host; nil
// stays nil. inTime is false if ctx ended first, heard is true if the host sent
// anything.
func failedHandshake(ctx context.Context, inTime, heard bool, err error) error {
	if !inTime {
		err = context.Cause(ctx)
	}
	switch {
	case err == nil:
		return nil
	case heard:
		return verdict{err, ErrAnswered}
	case !inTime && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return err // the caller gave up
	case !inTime, nobody(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return verdict{err, ErrUnreachable}
	}
	return err
}
