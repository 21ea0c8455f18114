package mysql

import (
	"context"
	"fmt"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// verifiable is a captured point whose snapshot stays open over the publish: only
// then does the standby have it.
type verifiable struct{ *followed }

var _ dbrepl.Verifier = (*verifiable)(nil)

// definitions reads how the active defines its schema now.
func (r *Replica) definitions(ctx context.Context) (*schema, error) {
	c, err := r.e.active.session(ctx, r.e.opt.Name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s, err := readSchema(ctx, c, r.e.opt.Name)
	return &s, r.e.active.explain(ctx, err)
}

// Verify compares the published schema with the active's snapshot.
func (v *verifiable) Verify(ctx context.Context) error {
	defer v.r.e.settle()
	if err := v.verify(ctx); err != nil {
		return fmt.Errorf("verify database %s: %w", v.r.e.opt.Name, err)
	}
	return nil
}

func (v *verifiable) verify(ctx context.Context) error {
	if _, err := v.r.whole(ctx); err != nil {
		return err
	}
	l, err := v.r.link(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	c, err := v.compare(ctx, l.id)
	if err != nil {
		return err
	}
	for _, what := range c.Uncompared {
		v.r.e.warn("not verified: %s", what)
	}
	if c.Different == 0 {
		return nil
	}
	var what []string
	for _, d := range c.Differences {
		what = append(what, d.String())
	}
	return hint.With(fmt.Errorf("%w at the point that was replicated: %s", dbrepl.ErrDiffers, someOf(what)),
		"look for who can write on the standby's server, and after the memory and disks of both hosts; to copy the whole database anew: "+l.say.giveUp()+" on the standby's server, and then drsync now")
}

func (v *verifiable) compare(ctx context.Context, standby identity) (dbrepl.Comparison, error) {
	none := dbrepl.Comparison{}
	e := v.r.e
	a, err := e.active.session(ctx, e.opt.Name)
	if err != nil {
		return none, err
	}
	defer a.Close()
	s, err := e.standby.session(ctx, e.opt.Name)
	if err != nil {
		return none, err
	}
	defer s.Close()
	now, err := readSchema(ctx, a, e.opt.Name)
	if err != nil {
		return none, e.active.explain(ctx, err)
	}
	if what := v.there.difference(now); what != "" {
		return none, fmt.Errorf("%w since the captured point, so it cannot be compared: %s", errChanged, what)
	}
	snap := v.snap.all()
	if snap == nil {
		return none, errSnapshotOver
	}
	return e.compareWith(ctx, snap, *v.there, v.g.Sequences, standby, a, s)
}

// all returns the snapshot, or nil when some of it is in use or gone: nobody
// asks it any more.
func (v *snapshotView) all() *snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.snap == nil || v.lost > 0 || len(v.free) != cap(v.free) {
		return nil
	}
	return v.snap
}
