package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// ownedByUs says whether a file belongs to the account of this process.
func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// seed copies the active's whole server, twice: once for the cluster that will
// be published, and once for the one that will be brought on behind it. It
// returns the log that goes on from there, empty yet.
func (r *Replica) seed(ctx context.Context, f *facts) (*receivedLog, error) {
	for _, dir := range []string{r.next().dir, r.spare().dir, r.logDir()} {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(r.seedDir(), 0o700); err != nil {
		return nil, err
	}
	if err := r.reserve(ctx, f); err != nil {
		return nil, err
	}
	base := cluster{filepath.Join(r.seedDir(), "base")}
	if err := r.copyBase(ctx, base); err != nil {
		return nil, err
	}
	from, err := r.makeReplica(ctx, base, f)
	if err != nil {
		return nil, fmt.Errorf("make a replica of the copy: %w", err)
	}
	again := filepath.Join(r.seedDir(), "again")
	if _, err := run(ctx, append(plainEnvironment(), "LC_ALL=C"), "cp", "-a", "--reflink=auto", "--", base.dir, again); err != nil {
		return nil, fmt.Errorf("copy the copy: %w", err)
	}
	if f.copied, err = sizeOf(base.dir); err != nil {
		return nil, err
	}
	if !r.careless {
		if err := durable.SyncFS(r.seedDir()); err != nil {
			return nil, err
		}
	}
	l, err := newLog(r.logDir(), f.history, from)
	if err != nil {
		return nil, err
	}
	if r.e.during != nil {
		r.e.during("copied")
	}
	if err := os.Rename(again, r.spare().dir); err != nil {
		return nil, err
	}
	if err := os.Rename(base.dir, r.next().dir); err != nil {
		return nil, err
	}
	if err := os.Remove(r.seedDir()); err != nil {
		return nil, err
	}
	return l, durable.SyncDir(r.work)
}

// reserve lets the active keep its log from now on. A slot that it has given up,
// or may give up before the copy has ended, is made anew.
func (r *Replica) reserve(ctx context.Context, f *facts) error {
	w, err := r.e.active.connectLog(ctx)
	if err != nil {
		return r.e.active.connectError(ctx, err)
	}
	defer w.close()
	if f.slot.exists && (f.slot.status == "lost" || f.slot.status == "unreserved" || !f.slot.reserves) {
		err = w.dropSlot(ctx, r.opt.Slot)
	}
	if err == nil {
		err = w.makeSlot(ctx, r.opt.Slot)
	}
	if err != nil {
		return fmt.Errorf("make the replication slot %s on the active: %w", r.opt.Slot, err)
	}
	return nil
}

// copyBase runs pg_basebackup.
func (r *Replica) copyBase(parent context.Context, base cluster) error {
	ctx, stop := r.e.active.guard(parent, r.e.opt.Name)
	defer stop()
	a, err := r.e.active.access(ctx)
	if err != nil {
		return err
	}
	defer a.close()
	ctx, finished := r.watchSize(ctx, base.dir)
	defer finished()
	// With its log, although that is received anew: without it the active would
	// wait until its archive has it.
	_, err = run(ctx, a.env, filepath.Join(r.bin, "pg_basebackup"),
		"--pgdata="+base.dir, "--format=plain", "--wal-method=stream", "--no-slot", "--checkpoint=fast", "--no-password", "--no-sync", "--label=drsync")
	if err != nil {
		if err = r.advise(fmt.Errorf("copy the active's server: %w", err)); hint.Of(err) == "" && ctx.Err() == nil {
			err = hint.With(err, "see the active's log; nothing on this host has changed, and the next run begins the copy anew")
		}
		return err
	}
	return nil
}

// watchSize tells how much there is in a directory, until finished is called.
func (r *Replica) watchSize(parent context.Context, dir string) (ctx context.Context, finished func()) {
	ctx, cancel := context.WithCancel(parent)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if n, err := sizeOf(dir); err == nil { // files come and go
				r.e.opt.Event.Emit(event.Event{Kind: event.Progress, Step: "capture", Name: r.e.opt.Name, Bytes: n})
			}
		}
	}()
	return ctx, func() {
		cancel()
		<-done
	}
}

// makeReplica turns a copy into a cluster of this host that follows nobody,
// and returns from where on it needs the log.
func (r *Replica) makeReplica(ctx context.Context, base cluster, f *facts) (lsn, error) {
	known, err := r.control(ctx, base)
	if err != nil {
		return 0, err
	}
	if known.System != f.history.System {
		return 0, hint.New("it is of another server than the one that was asked before", "database.active.address leads to several servers; set that of one")
	}
	from, err := base.begins(known)
	if err != nil {
		return 0, err
	}
	segments, err := os.ReadDir(base.path("pg_wal"))
	if err != nil {
		return 0, err
	}
	for _, s := range segments {
		if segmentName.MatchString(s.Name()) {
			if err := os.Remove(filepath.Join(base.path("pg_wal"), s.Name())); err != nil {
				return 0, err
			}
		}
	}
	if err := base.unmark(); err != nil { // the active's, if that was a standby once
		return 0, err
	}
	if err := base.configure(r.owner, r.visible, greatest(known.Needs, f.needs)); err != nil {
		return 0, err
	}
	return from, filepath.WalkDir(base.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return r.owner.own(path)
	})
}
