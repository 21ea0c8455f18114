package rsyncx

import (
	"context"
	"errors"
	"io/fs"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"golang.org/x/sys/unix"
)

// UnwritableError says that nothing can be staged in a destination: its root, or what
// drsync has there, cannot be written. Nothing was changed.
type UnwritableError struct{ err error }

func (e *UnwritableError) Error() string { return e.err.Error() }
func (e *UnwritableError) Unwrap() error { return e.err }

// unwritable makes an UnwritableError of an error that says so.
func unwritable(err error) error {
	if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EROFS) || hint.Of(err) != "" {
		return err
	}
	return hint.With(&UnwritableError{err}, "all that changes is staged in "+stateDir+" of the destination first, also with a directory for temporary files: "+
		"let this user write to its top directory, or copy into one below it that he can write to")
}

// asItIs stages nothing into a destination that cannot be written, when there is
// nothing to do; else it returns why, once the first change is found.
func asItIs(ctx context.Context, src Source, dst *Root, o Options, why error) (*Staged, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o.DryRun = true
	sink := o.Event
	o.Event = func(e event.Event) {
		if e.Kind == event.Change {
			cancel(why)
			return
		}
		sink.Emit(e)
	}
	s, err := stage(ctx, src, dst, o)
	if errors.Is(context.Cause(ctx), why) {
		err = why
	}
	for i := range parts {
		if err == nil && s.parts[i].count > 0 {
			err = why
		}
	}
	if err != nil {
		if s != nil {
			s.close()
		}
		return nil, err
	}
	s.dry, s.done = false, true
	return s, nil
}
