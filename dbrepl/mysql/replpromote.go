package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Visible opens the visible schema, if it is at the point that drsync published.
func (r *Replica) Visible(ctx context.Context) (dbrepl.View, error) {
	defer r.e.settle()
	if _, err := r.whole(ctx); err != nil {
		return nil, fmt.Errorf("open database %s: %w", r.e.opt.Name, err)
	}
	return &visible{r.e}, nil
}

// whole returns what the visible schema is, unless it stands between two snapshots.
func (r *Replica) whole(ctx context.Context) (*generation, error) {
	l, err := r.link(ctx)
	if err != nil {
		return nil, err
	}
	defer l.close()
	s, err := l.standing(ctx)
	switch {
	case err != nil:
		return nil, err
	case s.marker == nil:
		return nil, dbrepl.ErrNoDatabase
	case s.marker.Replicated && s.lost != "":
		return nil, hint.With(errors.New("it is not at a snapshot: "+s.lost), "run drsync now, which finishes what was being published")
	}
	return s.marker, nil
}

// Promote ends replication and lets applications write on the standby's server.
func (r *Replica) Promote(ctx context.Context) (dbrepl.Point, error) {
	defer r.e.settle()
	p, err := r.promote(ctx)
	if err != nil {
		return dbrepl.Point{}, fmt.Errorf("promote database %s: %w", r.e.opt.Name, err)
	}
	return p, nil
}

func (r *Replica) promote(ctx context.Context) (dbrepl.Point, error) {
	if err := r.e.beAlone(ctx); err != nil {
		return dbrepl.Point{}, err
	}
	g, err := r.whole(ctx)
	if err != nil {
		return dbrepl.Point{}, err
	}
	l, err := r.link(ctx)
	if err != nil {
		return dbrepl.Point{}, err
	}
	defer l.close()
	if s, err := l.channel(ctx); err != nil {
		return dbrepl.Point{}, err
	} else if s != nil && s.received != "" && s.received != gtidOf(g.Point.Position) {
		r.e.warn("the standby's server had received up to GTID %s; the snapshot is at %s", s.received, gtidOf(g.Point.Position))
	}
	if err := l.forget(ctx, l.run); err != nil {
		return dbrepl.Point{}, err
	}
	return r.e.promote(ctx)
}
