package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"strings"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/filter"
)

// Code is the kind of an error that crossed the wire.
type Code uint8

// The codes, each with the error that it stands for.
const (
	CodeOther       Code = iota
	CodeNotExist         // fs.ErrNotExist
	CodePermission       // fs.ErrPermission
	CodeTorn             // rsyncx.ErrTorn
	CodeTooMany          // rsyncx.ErrTooMany
	CodeUnsupported      // errors.ErrUnsupported
	CodeRefused          // ErrRefused
	CodeCancelled        // the server is shutting down
	CodeNotRegular       // rsyncx.ErrNotRegular
	CodeRule             // filter.ErrRule
	codes
)

var (
	// ErrRefused says that the agent may not serve the root that was asked for.
	ErrRefused = errors.New("refused by the agent")
	// ErrDamaged says that what arrived is not what the agent read.
	ErrDamaged = errors.New("damaged on the way")
	// ErrSilent says that the agent sent nothing for too long while an answer was due.
	ErrSilent = errors.New("the agent was silent")
	// ErrLost says that the line broke, or the agent ended, while an answer was due.
	ErrLost = errors.New("the line to the agent broke")
	// ErrVersion says that the two sides share no version of the protocol.
	ErrVersion = errors.New("the versions do not fit")
	// ErrMute says that the other side ended before it said a word.
	ErrMute = errors.New("it ended without a word")
	// ErrNoise says that the other side is no agent.
	ErrNoise = errors.New("instead of an agent's greeting")
)

// Error is an error that the agent reported. Its text is safe to print.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return e.Text }

// Is makes errors.Is find the error that the code stands for.
func (e *Error) Is(target error) bool {
	s := sentinel(e.Code)
	return s != nil && target == s
}

func sentinel(c Code) error {
	switch c {
	case CodeNotExist:
		return fs.ErrNotExist
	case CodePermission:
		return fs.ErrPermission
	case CodeTorn:
		return rsyncx.ErrTorn
	case CodeTooMany:
		return rsyncx.ErrTooMany
	case CodeUnsupported:
		return errors.ErrUnsupported
	case CodeRefused:
		return ErrRefused
	case CodeNotRegular:
		return rsyncx.ErrNotRegular
	case CodeRule:
		return filter.ErrRule
	}
	return nil
}

func codeOf(err error) Code {
	for c := CodeNotExist; c < codes; c++ {
		if s := sentinel(c); s != nil && errors.Is(err, s) {
			return c
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return CodeCancelled
	}
	return CodeOther
}

// appendError encodes err: its code, its text and its hint.
func appendError(b []byte, err error) []byte {
	b = binary.AppendUvarint(b, uint64(codeOf(err)))
	b = appendString(b, clip(err.Error(), maxText))
	return appendString(b, clip(hint.Of(err), maxText))
}

// remoteError decodes what appendError wrote. A code that this version does not
// know is CodeOther.
func (d *decoder) remoteError() error {
	code := Code(d.uint("error code", 255))
	if code >= codes {
		code = CodeOther
	}
	text := Clean(d.bytes("error text", maxText))
	advice := Clean(d.bytes("error hint", maxText))
	if d.err != nil {
		return d.err
	}
	if text == "" {
		text = "an error without text"
	}
	var err error = &Error{code, text}
	if advice != "" {
		err = hint.With(err, advice)
	}
	return err
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// Clean makes text of a peer safe to print on a terminal or in a log: control
// and invalid bytes are escaped, and lines become one.
func Clean(text []byte) string {
	lines := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' || r == '\r' })
	for i, l := range lines {
		lines[i] = rsyncx.Printable(strings.TrimSpace(l))
	}
	return strings.Join(lines, "; ")
}
