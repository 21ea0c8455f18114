package mysql

import (
	"context"
	"fmt"

	"github.com/drsync/drsync/dbrepl"
)

// Recover finishes or removes what a crash left.
func (r *Replica) Recover(ctx context.Context, commit dbrepl.Token) error {
	defer r.e.settle()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.recover(ctx, commit); err != nil {
		return fmt.Errorf("recover database %s: %w", r.e.opt.Name, err)
	}
	return nil
}

func (r *Replica) recover(ctx context.Context, commit dbrepl.Token) error {
	if commit == nil {
		if err := r.e.beAlone(ctx); err != nil {
			return err
		}
		if err := r.e.dropStaging(ctx); err != nil {
			return err
		}
		return r.discard(ctx)
	}
	t, g, err := parseReplicaToken(commit, r.e.opt.Name)
	if err != nil {
		return err
	}
	if t.Seed {
		return r.publishSeed(ctx, g)
	}
	return r.publishPoint(ctx, t.From, g)
}

// discard ends a receiving that nobody waits for any more.
func (r *Replica) discard(ctx context.Context) error {
	if err := r.e.beAlone(ctx); err != nil {
		return err
	}
	l, err := r.link(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	s, err := l.channel(ctx)
	if err != nil || s == nil || r.continuous && l.receives(s) {
		return err
	}
	return l.forget(ctx, l.run)
}

// publishSeed swaps a copied schema in and makes its GTID the one from which
// replication goes on.
func (r *Replica) publishSeed(ctx context.Context, g *generation) error {
	if err := r.e.beAlone(ctx); err != nil {
		return err
	}
	l, err := r.link(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	gtid := gtidOf(g.Point.Position)
	want, err := l.parse(gtid)
	if err != nil {
		return err
	}
	visible, err := readMarker(ctx, l.conn, r.e.opt.Name, r.e.opt.Name)
	if err != nil {
		return r.e.standby.explain(ctx, err)
	}
	_, at, err := l.applied(ctx)
	if err != nil {
		return err
	}
	if visible == nil || visible.ID != g.ID || !visible.Replicated || !at.equal(want) {
		// What was received belongs to the schema that goes.
		if err := l.forget(ctx, l.runStep); err != nil {
			return err
		}
		if err := r.e.publish(ctx, g); err != nil {
			return err
		}
		ctx = context.WithoutCancel(ctx)
		for _, s := range l.say.begin(gtid) {
			if err := l.runStep(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		replicated := *g
		replicated.Replicated = true
		if err := l.mark(ctx, &replicated); err != nil {
			return err
		}
	}
	return l.finish(context.WithoutCancel(ctx))
}

// publishPoint applies what was received, up to the point of g and no further,
// and then lets the marker say so.
func (r *Replica) publishPoint(ctx context.Context, from string, g *generation) error {
	if err := r.e.beAlone(ctx); err != nil {
		return err
	}
	l, err := r.link(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	a := &application{link: l, g: g, from: from, gtid: gtidOf(g.Point.Position)}
	if a.want, err = l.parse(a.gtid); err != nil {
		return err
	}
	return a.publish(ctx)
}

// mark lets the marker say which point the schema shows.
func (l *link) mark(ctx context.Context, g *generation) error {
	return l.runStep(ctx, fmt.Sprintf("UPDATE %s.%s SET id=%s, format=%d, generation=%s",
		quote(l.e.opt.Name), quote(markerTable), text(g.ID), g.Format, text(string(g.token()))))
}

// finish leaves the server as it is to be between runs: read only, and either
// without a channel or receiving.
func (l *link) finish(ctx context.Context) error {
	s, err := l.channel(ctx)
	if err != nil {
		return err
	}
	if !l.continuous || !l.receives(s) {
		if err := l.forget(ctx, l.runStep); err != nil {
			return err
		}
		if l.continuous {
			if err := l.runContinuously(ctx); err != nil {
				// The snapshot is whole all the same, and the next run tries again.
				l.e.warn("the standby's server does not receive between runs: %v", err)
			}
		}
	}
	if ro, err := l.ask(ctx, "@@GLOBAL.read_only"); err != nil || ro != "0" {
		return err
	}
	return l.runStep(ctx, "SET GLOBAL read_only=1")
}

func (l *link) runContinuously(ctx context.Context) error {
	if err := l.configure(ctx); err != nil {
		return err
	}
	return l.run(ctx, l.say.receive("", true))
}
