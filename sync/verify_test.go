package sync

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
)

// comparingEngine answers Compare by a function.
type comparingEngine struct {
	dbrepl.Engine
	compare func(context.Context) (dbrepl.Comparison, error)
}

func (e comparingEngine) Compare(ctx context.Context) (dbrepl.Comparison, error) {
	return e.compare(ctx)
}

func TestVerifyDatabase(t *testing.T) {
	l := newLab(t)
	inner := l.runner.Engine
	l.runner.Engine = comparingEngine{inner, func(context.Context) (dbrepl.Comparison, error) {
		var locked *role.LockedError
		if lock, err := role.Acquire(l.runner.StateDir, "now", l.runner.now()); !errors.As(err, &locked) {
			_ = lock.Release()
			t.Errorf("the lock is free during a comparison: %v", err)
		}
		return dbrepl.Comparison{Tables: 7}, nil
	}}
	if c, err := l.runner.VerifyDatabase(t.Context()); err != nil || c.Tables != 7 {
		t.Errorf("compared %+v, %v", c, err)
	}
	lock, err := role.Acquire(l.runner.StateDir, "now", l.runner.now())
	if err != nil {
		t.Fatalf("the lock stays: %v", err)
	}
	var locked *role.LockedError
	if _, err := l.runner.VerifyDatabase(t.Context()); !errors.As(err, &locked) {
		t.Errorf("compared beside another command: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	l.runner.Engine = comparingEngine{inner, func(ctx context.Context) (dbrepl.Comparison, error) {
		cancel(why)
		return dbrepl.Comparison{}, context.Cause(ctx)
	}}
	if _, err := l.runner.VerifyDatabase(ctx); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}

	l.runner.EngineName = "plain"
	for want, engine := range map[string]dbrepl.Engine{
		"the database engine plain cannot be compared": struct{ dbrepl.Engine }{inner},
		"no database is configured":                    nil,
	} {
		l.runner.Engine = engine
		if _, err := l.runner.VerifyDatabase(t.Context()); err == nil || !strings.Contains(err.Error(), want) || hint.Of(err) == "" {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
