package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/hint"
)

// Recover finishes or takes back what a crash left.
func (r *Replica) Recover(ctx context.Context, commit dbrepl.Token) error {
	return r.failed("recover", r.recover(ctx, commit))
}

func (r *Replica) recover(ctx context.Context, commit dbrepl.Token) error {
	if err := interrupted(ctx); err != nil {
		return err
	}
	if commit == nil {
		if err := r.claim(ctx); err != nil {
			return err
		}
		return r.reset()
	}
	p, err := parseReplicaPoint(commit, r.e.opt.Name)
	if err != nil {
		return err
	}
	return r.publish(ctx, p)
}

// step is called before each change of a publish; tests let it fail.
func (r *Replica) step(what string) error {
	if r.e.before != nil {
		return r.e.before(what)
	}
	return nil
}

// publish makes the cluster at p the visible one. How far that came is asked
// from the clusters each time, so it may be begun anew after any crash.
func (r *Replica) publish(ctx context.Context, p *replicaPoint) error {
	if err := r.claim(ctx); err != nil {
		return err
	}
	shown, err := r.visible.point(r.e.opt.Name)
	if err != nil {
		return err
	}
	if shown == nil || shown.ID != p.ID {
		if err := r.bringForward(ctx, p, shown); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx)
	if err := r.step("unmark"); err != nil {
		return err
	}
	// What was visible before must not be taken for a capture.
	if err := r.next().unmark(); err != nil {
		return err
	}
	if err := r.step("start"); err != nil {
		return err
	}
	if err := r.startVisible(ctx); err != nil {
		return err
	}
	if err := r.tidy(ctx); err != nil {
		r.e.warn("what is no longer needed of the active's log could not be removed: %v", err)
	}
	return nil
}

func (r *Replica) bringForward(ctx context.Context, p, shown *replicaPoint) error {
	staged, err := r.next().point(r.e.opt.Name)
	if err != nil {
		return err
	}
	if staged == nil || staged.ID != p.ID || !r.next().follows() {
		return hint.With(fmt.Errorf("%w; the visible one is unchanged", dbrepl.ErrCaptureGone), "run drsync now, which captures anew")
	}
	if err := r.mayReplace(shown); err != nil {
		return err
	}
	if err := r.step("settle"); err != nil {
		return err
	}
	if err := r.settle(ctx, staged); err != nil {
		return err
	}
	if err := interrupted(ctx); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := r.step("stop"); err != nil {
		return err
	}
	if err := r.stopVisible(ctx); err != nil {
		return err
	}
	if err := r.step("exchange"); err != nil {
		return err
	}
	if err := exchange(r.next(), r.visible); err != nil {
		if shown != nil {
			err = errors.Join(err, r.startVisible(ctx)) // as it was
		}
		return err
	}
	return nil
}

// mayReplace refuses to put anything in the place of what drsync did not make, or
// of what somebody may have written to since.
func (r *Replica) mayReplace(shown *replicaPoint) error {
	there, err := r.visible.exists()
	switch {
	case err != nil || !there:
		return err
	case shown == nil:
		return hint.With(fmt.Errorf("%s holds a cluster that drsync did not make", r.visible.dir), "move it away, with its server stopped")
	case !r.visible.follows():
		return hint.With(fmt.Errorf("%s holds a cluster that was promoted, and so may hold what nobody else has", r.visible.dir), "move it away, with its server stopped")
	}
	return nil
}

// settle ends the next cluster's server in order. If it was killed before,
// another one repeats its work.
func (r *Replica) settle(ctx context.Context, p *replicaPoint) error {
	if err := r.endStaging(); err != nil {
		return err
	}
	if err := r.programsOf(ctx, r.next()); err != nil {
		return err
	}
	for range 2 {
		known, err := r.control(ctx, r.next())
		if err != nil {
			return err
		}
		if known.State == stoppedInRecovery && known.Minimum >= p.end {
			return os.RemoveAll(r.socketDir())
		}
		if r.server, err = r.startStaging(r.next(), known.Needs); err != nil {
			return err
		}
		err = r.server.reach(ctx, p.end)
		var lost *lostError
		switch {
		case errors.As(err, &lost):
			return hint.With(fmt.Errorf("%w (%w); the visible one is unchanged", dbrepl.ErrCaptureGone, err), "run drsync now, which captures anew")
		case err != nil && !errors.Is(err, errUnreadable): // which it was not when it was captured; its place is what counts
			return err
		}
		if err := r.endStaging(); err != nil {
			return err
		}
	}
	return r.seeStagingLog(fmt.Errorf("the replica's server was stopped before it was at %v", p.end))
}

// tidy lets the spare copy take the place of a cluster that cannot be brought
// on, and removes what neither cluster needs of the received log.
func (r *Replica) tidy(ctx context.Context) error {
	if there, err := r.spare().exists(); err != nil {
		return err
	} else if there {
		if err := os.RemoveAll(r.next().dir); err != nil {
			return err
		}
		if err := durable.Rename(r.spare().dir, r.next().dir); err != nil {
			return err
		}
	}
	l, err := openLog(r.logDir())
	if err != nil || l == nil {
		return err
	}
	if err := r.programsOf(ctx, r.visible); err != nil {
		return err
	}
	least := l.state.to
	for _, c := range []cluster{r.visible, r.next()} {
		if there, err := c.exists(); err != nil {
			return err
		} else if !there {
			continue
		}
		known, err := r.control(ctx, c)
		if err != nil {
			return err
		}
		begins, err := c.begins(known)
		if err != nil {
			return err
		}
		if known.System == l.state.History.System {
			least = min(least, begins)
		}
	}
	return l.forget(least)
}
