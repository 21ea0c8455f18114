package mysql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// application is the applying of one point.
type application struct {
	*link
	g    *generation
	from string // the position when it was captured
	gtid string // the point
	want position
}

func (a *application) publish(ctx context.Context) error {
	visible, err := readMarker(ctx, a.conn, a.e.opt.Name, a.e.opt.Name)
	if err != nil {
		return a.e.standby.explain(ctx, err)
	}
	s, err := a.channel(ctx)
	if err != nil {
		return err
	}
	if s != nil {
		// A server that was started applies by itself what a publish was applying.
		if err := a.runStep(ctx, a.say.stop()); err != nil {
			return err
		}
	}
	text, at, err := a.applied(ctx)
	if err != nil {
		return err
	}
	if visible == nil || text == "" {
		return a.gone(ctx, visible, "the replica was taken away")
	}
	if visible.ID == a.g.ID && at.equal(a.want) {
		return a.finish(context.WithoutCancel(ctx))
	}
	start, err := a.parse(a.from)
	if err != nil {
		return err
	}
	switch {
	case at.equal(a.want):
		ctx = context.WithoutCancel(ctx)
	case !a.want.covers(at) || !at.covers(start):
		if old, err := a.parse(gtidOf(visible.Point.Position)); err != nil || !at.equal(old) {
			return errors.Join(err, a.stranded(visible, text, errors.New("that is not on the way to the captured point")))
		}
		return a.gone(ctx, visible, "the standby is at another point than when this one was captured")
	default:
		if err := a.apply(ctx, at, at.equal(start)); err != nil {
			if errors.Is(err, dbrepl.ErrCaptureGone) {
				return err
			}
			return a.explainApply(ctx, visible, start, err)
		}
		ctx = context.WithoutCancel(ctx)
	}
	if err := a.advance(ctx); err != nil {
		return err
	}
	if err := a.mark(ctx, a.g); err != nil {
		return err
	}
	return a.finish(ctx)
}

// gone gives the publish up. A schema whose position the server does not know
// any more is no snapshot, so its marker goes.
func (a *application) gone(ctx context.Context, visible *generation, why string) error {
	if visible != nil && why != "" {
		text, _, err := a.applied(ctx)
		if err == nil && text == "" {
			err = a.runStep(ctx, "DROP TABLE "+quote(a.e.opt.Name)+"."+quote(markerTable))
		}
		if err != nil {
			return err
		}
	}
	return hint.With(fmt.Errorf("%w: %s", dbrepl.ErrCaptureGone, why), "run drsync now, which captures anew")
}

// apply brings the server from where it is to the point. untouched says that
// nothing was applied yet, so that the publish can still be given up.
func (a *application) apply(ctx context.Context, at position, untouched bool) error {
	from, to, err := a.places(ctx, at)
	if errors.Is(err, dbrepl.ErrCaptureGone) && !untouched {
		// What is missing is received again, if the active is there.
		if err := a.receiveAgain(ctx); err != nil {
			return err
		}
		if err := a.runStep(ctx, a.say.stop()); err != nil {
			return err
		}
		from, to, err = a.places(ctx, at)
		if errors.Is(err, dbrepl.ErrCaptureGone) {
			return errors.New("the standby's relay logs do not hold what was just received")
		}
	}
	if err != nil {
		return err
	}
	statements := a.say.apply(from, to, a.gtid)
	last := len(statements) - 1
	for _, s := range statements[:last] {
		if err := a.runStep(ctx, s); err != nil {
			return err
		}
	}
	// A server that was restarted has forgotten what it may apply.
	if err := a.runStep(ctx, a.say.only(a.e.opt.Name)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	ctx = context.WithoutCancel(ctx)
	if err := a.runStep(ctx, statements[last]); err != nil {
		return err
	}
	return a.awaitApplied(ctx)
}

// places finds what is to be applied in the relay logs.
func (a *application) places(ctx context.Context, at position) (from, to place, err error) {
	missing := fmt.Errorf("%w: the standby's relay logs do not hold all transactions up to GTID %s", dbrepl.ErrCaptureGone, a.gtid)
	s, err := a.channel(ctx)
	if err != nil {
		return from, to, err
	}
	if s == nil {
		return from, to, missing
	}
	if !a.say.mariaDB {
		there, err := a.has(ctx, s, a.want)
		if err == nil && !there {
			err = missing
		}
		return from, to, err
	}
	found, err := a.relayed(ctx, at, a.want, nil)
	if err == nil && !found.reached {
		err = missing
	}
	return found.from, found.to, err
}

func (a *application) receiveAgain(ctx context.Context) error {
	a.e.warn("the standby's relay logs are not whole; what is missing is received from the active again")
	if err := a.forget(ctx, a.run); err != nil {
		return err
	}
	_, err := a.receive(ctx, a.gtid, a.want, nil)
	return err
}

// awaitApplied waits until the point is applied, for as long as the applier
// works, and makes sure that no more was.
func (a *application) awaitApplied(ctx context.Context) error {
	var idle time.Time // since when the applier has nothing more to read
	for {
		if _, err := a.ask(ctx, "("+a.say.wait(a.gtid, 1)+")"); err != nil {
			return err
		}
		// In this order: the applier may come to the point, and stop, in between.
		s, err := a.channel(ctx)
		if err != nil {
			return err
		}
		_, at, err := a.applied(ctx)
		switch {
		case err != nil:
			return err
		case at.covers(a.want):
			return a.endApplied(ctx)
		case s == nil:
			return errors.New("somebody removed drsync's replication channel")
		case !s.applying && s.applyError != "":
			return fmt.Errorf("apply: %s", s.applyError)
		case !s.applying:
			return errors.New("the server stopped to apply")
		case !s.idle:
			idle = time.Time{}
		case idle.IsZero():
			idle = time.Now()
		case time.Since(idle) > a.e.opt.Quiet:
			// Its workers may still be at a long transaction, whose end this waits for.
			return a.endApplied(ctx)
		}
	}
}

// endApplied stops the applier, which must have come to the point and no further.
func (a *application) endApplied(ctx context.Context) error {
	if err := a.run(ctx, a.say.stop()); err != nil {
		return err
	}
	text, at, err := a.applied(ctx)
	if err == nil && !at.equal(a.want) {
		err = fmt.Errorf("the server applied up to GTID %s instead of %s", text, a.gtid)
	}
	return err
}

// explainApply says where the standby stands after an application that did not
// come to its end.
func (a *application) explainApply(ctx context.Context, visible *generation, start position, cause error) error {
	text, at, err := a.applied(context.WithoutCancel(ctx))
	if err != nil {
		return errors.Join(cause, err)
	}
	if at.equal(start) {
		return fmt.Errorf("%w; the visible database is unchanged", cause)
	}
	return a.stranded(visible, text, cause)
}

// stranded says plainly that the visible database is not a snapshot.
func (a *application) stranded(visible *generation, at string, cause error) error {
	return hint.With(
		fmt.Errorf("the standby's database stands at GTID %s, between the snapshot at %s and the one at %s, which was being published: %w",
			at, gtidOf(visible.Point.Position), a.gtid, cause),
		"run drsync now again when the cause is mended; to give the replica up and copy the whole database anew: "+
			a.say.giveUp()+" on the standby's server, and then drsync now")
}
