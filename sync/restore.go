package sync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/dump"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
)

// keepDump moves the dump of the capture into the draft.
func (p *pass) keepDump(path string) error {
	m, err := dump.Read(path)
	if err != nil {
		return err
	}
	sum, err := dump.Identity(path)
	if err != nil {
		return err
	}
	p.record.Databases[0].Dump = &snapshot.Dump{Chunks: len(m.Chunks), Bytes: m.Stored(), Sum: sum}
	return p.draft.TakeDump(path)
}

// kept is a snapshot that can be restored.
type kept struct {
	record  snapshot.Record
	dir     string // of its dump
	restore dbrepl.Restorer
}

// findKept looks a snapshot up and reads its dump whole, before anything is changed.
func (r *Runner) findKept(ctx context.Context, id string) (kept, error) {
	restorer, ok := r.Engine.(dbrepl.Restorer)
	if !ok {
		return kept{}, hint.New("no database that is dumped is configured", "restore brings back kept dumps, of which database.engine and database.mode say whether there are any")
	}
	snaps, err := snapshot.Open(r.StateDir)
	if err != nil {
		return kept{}, err
	}
	record, err := snaps.Get(id)
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, hint.New(fmt.Sprintf("there is no snapshot %q", id), "drsync snapshots lists them")
	}
	if err != nil {
		return kept{}, err
	}
	if len(record.Databases) == 0 || record.Databases[0].Dump == nil {
		return kept{}, hint.New("no dump was kept with snapshot "+id, "snapshots.dumps: true keeps one with every snapshot from the next run on")
	}
	k := kept{record: record, dir: snaps.DumpDir(id), restore: restorer}
	if sum, err := dump.Identity(k.dir); err != nil {
		return kept{}, fmt.Errorf("the dump of snapshot %s: %w", id, err)
	} else if want := record.Databases[0].Dump.Sum; want != "" && sum != want {
		return kept{}, hint.New(fmt.Sprintf("the dump of snapshot %s is not the one that was kept with it", id),
			"its directory was exchanged or its manifest altered: put back "+k.dir)
	}
	m, err := dump.Check(ctx, k.dir)
	if err != nil {
		return kept{}, fmt.Errorf("the dump of snapshot %s: %w", id, err)
	}
	if m.Engine != r.EngineName {
		return kept{}, fmt.Errorf("the dump of snapshot %s is of the engine %s, configured is %s", id, m.Engine, r.EngineName)
	}
	return k, nil
}

// checkLists compares the reference lists of a snapshot with its record.
func (r *Runner) checkLists(record snapshot.Record) error {
	snaps, err := snapshot.Open(r.StateDir)
	if err != nil {
		return err
	}
	for _, set := range record.BlobSets {
		if err := snaps.CheckList(record, set.Name); err != nil {
			return err
		}
	}
	return nil
}

// RestoreAs loads the kept dump of a snapshot into a new database beside the
// visible one, which it leaves alone. It needs no active and, since nothing of
// the standby's own state changes, no role.
func (r *Runner) RestoreAs(ctx context.Context, id, name string) (dbrepl.Counts, error) {
	lock, err := role.Acquire(r.StateDir, "restore", r.now())
	if err != nil {
		return dbrepl.Counts{}, err
	}
	defer func() { _ = lock.Release() }()
	k, err := r.findKept(ctx, id)
	if err != nil {
		return dbrepl.Counts{}, err
	}
	return k.restore.RestoreAs(ctx, k.dir, name)
}

// Restore makes the database of a kept snapshot the standby's visible one again,
// as a new snapshot of the same point, without the active. Its blobs are there
// still, since no kept snapshot's are pruned; the ordinary tree stays that of
// the latest run, of which no older one is kept.
//
// It fails like Run, and until its publish begins nothing has changed.
func (r *Runner) Restore(ctx context.Context, id string) (Report, error) {
	lock, err := role.Acquire(r.StateDir, "restore", r.now())
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = lock.Release() }()
	p := &pass{Runner: r}
	defer p.close()
	var k kept
	err = p.walk(ctx, []Step{
		{"role", "this host must be a standby", p.checkRole},
		{"recover", "finish or undo what an interrupted run left", p.recover},
		{"dump", "compare the kept dump with its manifest", func(ctx context.Context) (text string, err error) {
			if k, err = r.findKept(ctx, id); err == nil {
				err = r.checkLists(k.record)
			}
			return "as it was written", err
		}},
		{"load", "load the kept dump, unseen", func(ctx context.Context) (string, error) { return p.load(ctx, k) }},
		{"verify", "every blob that it names is there with its length", p.verifyKept},
		{"publish", "make it the standby's state", p.publish},
	})
	return p.report, err
}

// load stages the kept database and drafts the snapshot that it becomes.
func (p *pass) load(ctx context.Context, k kept) (string, error) {
	if err := p.guardHome(ctx); err != nil {
		return "", err
	}
	profile, store, err := p.local(true)
	if err != nil {
		return "", err
	}
	p.profile = profile
	if store != nil {
		if err := store.Close(); err != nil {
			return "", err
		}
	}
	if p.profile.LockFile != "" {
		if err := stopped(p.inHome(p.profile.LockFile)); err != nil {
			return "", err
		}
	}
	if p.captured, err = k.restore.Restore(ctx, k.dir); err != nil {
		return "", err
	}
	if p.snaps, err = snapshot.Open(p.StateDir); err != nil {
		return "", err
	}
	latest, err := p.snaps.List()
	if err != nil {
		return "", err
	}
	if p.draft, err = p.snaps.Begin(snapshot.IDFor(k.record.Time)); err != nil {
		return "", err
	}
	if err := p.draft.TakeOver(k.record.ID); err != nil {
		return "", err
	}
	p.epoch = p.role.Epoch
	p.record = k.record
	p.record.ID, p.record.RestoredFrom, p.record.Version = p.draft.ID, k.record.ID, p.Version
	p.record.Trees = latest[0].Trees // no older tree is kept
	p.record.Warnings = nil
	counts := p.captured.Counts()
	if d := p.record.Databases[0]; counts.Rows != d.Rows || counts.Tables != d.Tables {
		return "", fmt.Errorf("the dump has %d tables and %d rows, the snapshot had %d and %d", counts.Tables, counts.Rows, d.Tables, d.Rows)
	}
	return fmt.Sprintf("%d tables, %d rows; T = %s", counts.Tables, counts.Rows, k.record.ID), nil
}

// verifyKept counts the blobs of the restored snapshot that are absent now.
// They do not stop it: what is there is the best there is, and it is said.
func (p *pass) verifyKept(ctx context.Context) (string, error) {
	_, store, err := p.local(true)
	if err != nil || store == nil {
		return "no blobs live in files", err
	}
	defer store.Close()
	malformed := make(map[string]int64)
	var stay []snapshot.Missing
	for _, m := range p.record.Missing {
		if m.Reason == snapshot.ReasonMalformed {
			malformed[m.Set]++
			stay = append(stay, m)
		}
	}
	p.record.Missing = stay
	var present, absent int64
	for i := range p.record.BlobSets {
		set := &p.record.BlobSets[i]
		set.Copied, set.CopiedBytes, set.Missing = 0, 0, malformed[set.Name]
		for problem, err := range filestore.Verify(ctx, p.draft.Refs(set.Name), store, false) {
			if err != nil {
				return "", err
			}
			set.Missing++
			absent++
			p.addMissing(snapshot.Missing{Set: set.Name, Sum: problem.Ref.Sum, Size: problem.Ref.Size, Reason: snapshot.ReasonUnknown})
		}
		present += set.Named
	}
	present -= absent
	if absent > 0 {
		p.warn("", fmt.Sprintf("%d blobs that the restored database names are not here", absent))
	}
	return fmt.Sprintf("%d blobs present, %d absent", present, absent), nil
}
