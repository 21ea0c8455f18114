package postgres

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Promote ends the visible cluster's recovery where its log ends, which is at
// the published point, and so lets applications write.
func (r *Replica) Promote(ctx context.Context) (dbrepl.Point, error) {
	p, err := r.promote(ctx)
	return p, r.failed("promote", err)
}

func (r *Replica) promote(ctx context.Context) (dbrepl.Point, error) {
	if err := interrupted(ctx); err != nil {
		return dbrepl.Point{}, err
	}
	p, err := r.visible.point(r.e.opt.Name)
	if err == nil && p == nil {
		err = dbrepl.ErrNoDatabase
	}
	if err != nil {
		return dbrepl.Point{}, err
	}
	if err := r.claim(ctx); err != nil {
		return dbrepl.Point{}, err
	}
	if err := r.endStaging(); err != nil {
		return dbrepl.Point{}, err
	}
	if err := r.programsOf(ctx, r.visible); err != nil {
		return dbrepl.Point{}, err
	}
	if err := r.startVisible(ctx); err != nil {
		return dbrepl.Point{}, err
	}
	if r.visible.follows() {
		_, err := runAs(ctx, r.owner.credential(), append(plainEnvironment(), "LC_ALL=C"), filepath.Join(r.bin, "pg_ctl"),
			"promote", "--pgdata="+r.visible.dir, "--wait", fmt.Sprintf("--timeout=%d", int(startTime.Seconds())))
		if err != nil {
			return dbrepl.Point{}, hint.With(err, "the log of the standby's server says why")
		}
	}
	return p.Point, r.writable(ctx)
}

// writable waits until the visible cluster's server takes writes.
func (r *Replica) writable(ctx context.Context) error {
	var last error
	done, err := until(ctx, startTime, func() (bool, error) {
		c, err := r.e.standby.open(ctx, r.e.opt.Maintenance)
		if last = err; err != nil {
			return false, nil
		}
		defer end(c)
		id, err := r.e.standby.identify(ctx, c)
		last = err
		return err == nil && !id.InRecovery, nil
	})
	switch {
	case err != nil || done:
		return err
	case last != nil:
		return r.e.standby.connectError(ctx, last)
	}
	return hint.New("the standby's server is still in recovery", "the log of the standby's server says why")
}
