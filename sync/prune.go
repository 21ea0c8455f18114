package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/filestore"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/prune"
)

// prune is the last step of a run. The snapshot is published by then: what goes
// wrong here makes the run incomplete, it does not fail it.
func (p *pass) prune(ctx context.Context) (string, error) {
	removed, rep, err := p.pruneNow(ctx, p.profile, p.store())
	p.report.Removed, p.report.Prune = removed, rep
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		p.report.PruneError = err.Error()
		p.warn("", "not pruned: "+err.Error())
		return "left off", nil
	}
	if rep == nil {
		return fmt.Sprintf("%d snapshots dropped", len(removed)), nil
	}
	return fmt.Sprintf("%d snapshots dropped; %d blobs quarantined, %d deleted, %d restored",
		len(removed), rep.Quarantined.Blobs, rep.Deleted.Blobs+rep.Purged.Blobs, rep.Restored.Blobs), nil
}

func (p *pass) store() filestore.Local {
	if p.blobs == nil {
		return nil
	}
	return p.blobs.store
}

// pruneNow drops the snapshots that the policy does not keep, then the blobs
// that no kept one names. The report is nil when no blob lives in files.
func (r *Runner) pruneNow(ctx context.Context, profile app.Profile, store filestore.Local) ([]string, *prune.Report, error) {
	snaps, err := snapshot.Open(r.StateDir)
	if err != nil {
		return nil, nil, err
	}
	kept, dropped, previous, err := r.retain(snaps)
	if err != nil {
		return nil, nil, err
	}
	var removed []string
	for _, id := range dropped {
		if err := snaps.Remove(id); err != nil {
			return removed, nil, err
		}
		removed = append(removed, id)
	}
	if store == nil {
		return removed, nil, nil
	}
	plan, err := r.planBlobs(ctx, profile, store, snaps, kept, previous, nil)
	if err != nil {
		return removed, nil, err
	}
	defer plan.Close()
	rep, err := prune.Do(ctx, plan, store, r.Event)
	if err == nil {
		err = r.notePrune(plan, rep)
	}
	return removed, &rep, err
}

// retain decides which snapshots stay, newest first, and which go. previous is
// how many blobs the one before the newest names.
func (r *Runner) retain(snaps *snapshot.Store) (kept []snapshot.Record, dropped []string, previous int64, err error) {
	records, err := snaps.List()
	if err != nil {
		return nil, nil, 0, err
	}
	if len(records) > 1 {
		for _, set := range records[1].BlobSets {
			previous += set.Named
		}
	}
	keep := map[string]bool{}
	for _, d := range snapshot.Decide(r.Retention, records, r.now()) {
		keep[d.ID] = d.Keep
		if !d.Keep {
			dropped = append(dropped, d.ID)
		}
	}
	for _, rec := range records {
		if keep[rec.ID] {
			kept = append(kept, rec)
		}
	}
	return kept, dropped, previous, nil
}

func (r *Runner) planBlobs(ctx context.Context, profile app.Profile, store filestore.Local, snaps *snapshot.Store,
	kept []snapshot.Record, previous int64, explain func(prune.Item)) (*prune.Plan, error) {
	in := prune.Input{
		PreviousNamed: previous, Policy: r.Prune, Now: r.now(), Spool: r.StateDir, Explain: explain,
		Stored: store.List(ctx), Quarantined: store.Quarantined(ctx),
	}
	for _, rec := range kept {
		for _, set := range profile.BlobSets {
			in.Kept = append(in.Kept, prune.Names{Snapshot: rec.ID, Refs: refsOf(snaps, rec, set.Name)})
		}
	}
	return prune.Decide(in)
}

// refsOf is a snapshot's list, checked against the count and the sum in its record.
func refsOf(snaps *snapshot.Store, rec snapshot.Record, set string) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) {
		if err := snaps.CheckList(rec, set); err != nil {
			yield(blob.Ref{}, err)
			return
		}
		var n, want int64
		for _, s := range rec.BlobSets {
			if s.Name == set {
				want = s.Named
			}
		}
		for ref, err := range snaps.Refs(rec.ID, set) {
			n++
			if !yield(ref, err) {
				return
			}
		}
		if n != want {
			yield(blob.Ref{}, fmt.Errorf("snapshot %s: its list of %s has %d blobs, its record says %d", rec.ID, set, n, want))
		}
	}
}

// LastPrune is what is known about the last pruning that ended well.
type LastPrune struct {
	Time       time.Time   `json:"time"`
	Quarantine prune.Count `json:"quarantine"` // what lies there
}

const lastPruneName = "prune.json"

func (r *Runner) notePrune(plan *prune.Plan, rep prune.Report) error {
	l := LastPrune{Time: r.now().UTC(), Quarantine: plan.Kept[prune.ReasonRecent]}
	l.Quarantine.Blobs += rep.Quarantined.Blobs
	l.Quarantine.Bytes += rep.Quarantined.Bytes
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(r.StateDir, lastPruneName), append(data, '\n'), 0o644)
}

// ReadLastPrune returns nil when pruning never ended well.
func ReadLastPrune(stateDir string) (*LastPrune, error) {
	data, err := os.ReadFile(filepath.Join(stateDir, lastPruneName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var l LastPrune
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err != nil {
		return nil, fmt.Errorf("read what the last prune did: %w", err)
	}
	return &l, nil
}

// PruneReport is what PruneOnly did, or would do.
type PruneReport struct {
	DryRun  bool          `json:"dry_run"`
	Removed []string      `json:"removed_snapshots,omitempty"`
	Plan    *prune.Plan   `json:"plan,omitempty"` // with DryRun
	Done    *prune.Report `json:"done,omitempty"` // without
}

// PruneOnly prunes without a run. With dryRun it changes nothing and tells
// explain, which may be nil, every decision with its reason.
func (r *Runner) PruneOnly(ctx context.Context, dryRun bool, explain func(prune.Item)) (PruneReport, error) {
	report := PruneReport{DryRun: dryRun}
	lock, err := role.Acquire(r.StateDir, "prune", r.now())
	if err != nil {
		return report, err
	}
	defer func() { _ = lock.Release() }()
	pending, err := PublishPending(r.StateDir)
	if err != nil {
		return report, err
	}
	if pending != nil {
		return report, hint.New("the publish of snapshot "+pending.ID+" was interrupted", "run drsync now, which finishes it first")
	}
	s, err := role.Load(r.StateDir)
	if err != nil {
		return report, err
	}
	if err := role.RequireStandby(s); err != nil {
		return report, err
	}
	profile, store, err := r.local(dryRun)
	if err != nil {
		return report, err
	}
	if store != nil {
		defer store.Close()
	}
	if !dryRun {
		report.Removed, report.Done, err = r.pruneNow(ctx, profile, store)
		return report, err
	}
	snaps, err := snapshot.Open(r.StateDir)
	if err != nil {
		return report, err
	}
	kept, dropped, previous, err := r.retain(snaps)
	report.Removed = dropped
	if err != nil || store == nil {
		return report, err
	}
	plan, err := r.planBlobs(ctx, profile, store, snaps, kept, previous, explain)
	if err != nil {
		return report, err
	}
	report.Plan = plan
	return report, plan.Close()
}
