package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/drsync/drsync/internal/hint"
)

// stopVisible stops the standby's own server, if it runs.
func (r *Replica) stopVisible(ctx context.Context) error {
	pid, err := r.visible.running()
	if err != nil || pid == 0 {
		return err
	}
	if err := r.opt.Stop(ctx); err != nil {
		return hint.With(fmt.Errorf("stop the standby's server: %w", err), "see database.replication.stop; the database is at the snapshot before")
	}
	stopped, err := until(ctx, endTime, func() (bool, error) {
		pid, err := r.visible.running()
		return pid == 0, err
	})
	if err == nil && !stopped {
		err = hint.With(fmt.Errorf("process %d, the standby's server, still runs after its stop command", pid), "see database.replication.stop")
	}
	return err
}

// startVisible starts the standby's own server, if it does not run, and waits
// until it answers.
func (r *Replica) startVisible(ctx context.Context) error {
	pid, err := r.visible.running()
	if err != nil {
		return err
	}
	if pid == 0 {
		if err := r.opt.Start(ctx); err != nil {
			return hint.With(fmt.Errorf("start the standby's server: %w", err), "its log says why; the database is at its snapshot and whole")
		}
	}
	return r.await(ctx)
}

// await waits until the standby's server answers. One that lives and has
// replayed its log is where it should be, whether it lets anybody read or not.
func (r *Replica) await(ctx context.Context) error {
	p := progress{patience: r.patience}
	for {
		c, err := r.e.standby.open(ctx, r.e.opt.Maintenance)
		if err == nil {
			end(c)
			return nil
		}
		err = r.e.standby.connectError(ctx, err)
		if ctx.Err() != nil || hasCode(err, codeWrongPassword, codeNotAllowed, codeNoDatabase, codeNoPrivilege) {
			return err
		}
		pid, rerr := r.visible.running()
		if rerr != nil {
			return rerr
		}
		var now activity
		if pid != 0 {
			now = doing(pid)
		}
		switch p.see(now) {
		case closed:
			r.e.warn("the standby's server runs and is at its snapshot, but lets nobody read: %v", err)
			return nil
		case stuck:
			return hint.With(fmt.Errorf("the standby's server does not answer after its start command: %w", err), "its log says why; the database is at its snapshot and whole")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(look):
		}
	}
}
