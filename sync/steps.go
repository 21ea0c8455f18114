package sync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/rsyncx"
)

// pass is one run at work: what the steps hand to each other.
type pass struct {
	*Runner
	dryRun   bool
	checking bool // for Check, which also gives advice
	report   Report

	role    role.State
	active  Active
	src     rsyncx.Source
	profile app.Profile
	blobs   *blobPlaces // nil when no blob lives in files
	epoch   uint64      // the epoch that the snapshot belongs to: the source's, or ours

	captured  dbrepl.Captured
	snaps     *snapshot.Store
	draft     *snapshot.Draft
	staged    *rsyncx.Staged
	root      *rsyncx.Root
	committed bool // the publish journal is written
	record    snapshot.Record
	malformed []int64 // of each blob set: names in the database that are no hash
	took      []snapshot.Step
	began     time.Time // of the current step
}

func (p *pass) steps() []Step {
	steps := []Step{
		{"role", "this host must be a standby", p.checkRole},
		{"recover", "finish or undo what an interrupted run left", p.recover},
		{"connect", "open " + p.Source.Host + " by " + p.Source.Transport + " and read its configuration", p.connect},
		{"guard", "refuse what would harm the standby", p.guard},
		{"capture", p.captureDetail(), p.capture},
		{"copy", "fetch the blobs that the captured database names and the standby lacks", p.copyBlobs},
		{"stage", "fetch what changed in the tree, beside its place", p.stage},
		{"verify", "every named blob is there with its length", p.verify},
	}
	if !p.dryRun {
		steps = append(steps,
			Step{"publish", "make database, blobs and tree the standby's state", p.publish},
		)
		if p.VerifyCapture {
			steps = append(steps, Step{"compare", "the published database with the active's, where that was not done before", p.verifyPublished})
		}
		steps = append(steps,
			Step{"prune", "take away what no kept snapshot names", p.prune},
		)
	}
	return steps
}

func (p *pass) checkRole(context.Context) (string, error) {
	s, err := role.Load(p.StateDir)
	if err != nil {
		return "", err
	}
	p.role = s
	if err := role.RequireStandby(s); err != nil {
		return "", err
	}
	return fmt.Sprintf("standby, epoch %d", s.Epoch), nil
}

func (p *pass) captureDetail() string {
	if p.Engine == nil {
		return "note the time: no database"
	}
	return p.Engine.Describe()
}

// capture fixes the point and writes down which blobs it names.
func (p *pass) capture(ctx context.Context) (string, error) {
	point, counts, dumped := dbrepl.Point{}, dbrepl.Counts{}, ""
	var err error
	if p.snaps, err = snapshot.Open(p.StateDir); err != nil {
		return "", err
	}
	if p.Engine == nil {
		point, err = p.clockPoint(ctx)
	} else {
		o := dbrepl.CaptureOptions{Verify: p.VerifyCapture}
		if p.KeepDumps && !p.dryRun {
			if o.Dump, err = p.snaps.Scratch(); err != nil {
				return "", err
			}
		}
		dumped = o.Dump
		p.captured, err = p.Engine.Capture(ctx, o)
		if err != nil && p.VerifyCapture && !p.dryRun {
			p.noteVerify(err)
		}
		if err == nil {
			point, counts = p.captured.Point(), p.captured.Counts()
		}
	}
	if err != nil {
		return "", err
	}
	if _, later := p.captured.(dbrepl.Verifier); later && p.dryRun {
		p.warn("", "the database is not compared: with replication it arrives with the publish")
	}
	if p.draft, err = p.snaps.Begin(snapshot.IDFor(point.Time)); err != nil {
		return "", err
	}
	p.record = snapshot.Record{
		ID: p.draft.ID, Time: point.Time.UTC(), Epoch: p.epoch, Source: p.Source, Version: p.Version,
		Clock: snapshot.Clock{Measured: point.SkewError > 0, Skew: point.Skew.Seconds(), Error: point.SkewError.Seconds()},
	}
	if p.Engine == nil {
		return "T = " + point.Time.UTC().Format(time.RFC3339Nano), nil
	}
	p.record.Databases = []snapshot.Database{{
		Engine: p.EngineName, Mode: p.EngineMode, Name: p.DatabaseName, Server: point.Server,
		Time: point.Time.UTC(), Position: point.Position, Tables: counts.Tables, Rows: counts.Rows, Bytes: counts.Bytes,
		Locked: counts.Locked.Seconds(), LockedAgainst: counts.Against,
	}}
	if dumped != "" {
		if err := p.keepDump(dumped); err != nil {
			return "", err
		}
	}
	for _, set := range p.profile.BlobSets {
		if err := p.writeRefs(ctx, set); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d tables, %d rows, %d bytes; T = %s%s", counts.Tables, counts.Rows, counts.Bytes, point.Time.UTC().Format(time.RFC3339Nano), lockedFor(counts)), nil
}

// verifyPublished compares a database that only its publish brought to the
// standby. The snapshot stands; after a difference nothing is taken away.
func (p *pass) verifyPublished(ctx context.Context) (string, error) {
	v, ok := p.captured.(dbrepl.Verifier)
	if !ok {
		p.noteVerify(nil)
		return "done before the publish", nil
	}
	err := v.Verify(ctx)
	p.noteVerify(err)
	if err != nil {
		return "", fmt.Errorf("snapshot %s is published, but: %w", p.draft.ID, err)
	}
	return "no differences", nil
}

// lockedFor says what the active had to wait with for the capture, and how long.
func lockedFor(c dbrepl.Counts) string {
	if c.Locked == 0 {
		return ""
	}
	return fmt.Sprintf("; the active's %s waited for %v at most", c.Against, c.Locked.Round(100*time.Microsecond))
}

// clockPoint is the point of a home without a database: the active's time
// before the first file is looked at, so that nothing later is missed.
func (p *pass) clockPoint(ctx context.Context) (dbrepl.Point, error) {
	skew, bound, err := p.active.Clock(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		p.warn("", "the transport cannot tell the active's time: the snapshot carries this host's")
		return dbrepl.Point{Time: p.now()}, nil
	}
	if err != nil {
		return dbrepl.Point{}, fmt.Errorf("ask the active's clock: %w", err)
	}
	// The earliest time that it can have been there.
	return dbrepl.Point{Time: p.now().Add(skew - bound), Skew: skew, SkewError: max(bound, 1)}, nil
}

// stage fetches what changed in the tree into the staging directory.
func (p *pass) stage(ctx context.Context) (string, error) {
	rules, err := p.treeRules()
	if err != nil {
		return "", err
	}
	o := p.treeOptions()
	o.Filter, o.DryRun, o.Reserve = rules, p.dryRun, p.Reserve
	o.Event = func(e event.Event) {
		if e.Kind == event.Progress {
			e.Step = "stage"
		}
		p.Event.Emit(e)
	}
	if p.staged, err = rsyncx.Stage(ctx, p.src, p.root, o); err != nil {
		return "", err
	}
	s := p.staged.Stats()
	p.record.Trees = []snapshot.Tree{{
		Path: p.Home, Files: s.Entries, Bytes: s.Bytes, Transferred: s.Transferred, TransferredBytes: s.TransferredBytes,
		Deleted: s.Deleted, Torn: s.Torn, Skipped: s.Skipped + s.Unreadable,
	}}
	for _, note := range s.Notes {
		p.warn("", note)
	}
	if !o.SameSource {
		p.warn("", "whether the active's home is the same directory as the last time was not checked: the transport cannot tell")
	}
	return fmt.Sprintf("%d entries; %d files to place (%d bytes), %d to delete", s.Entries, s.Transferred, s.TransferredBytes, s.Deleted), nil
}

// treeOptions adds to what is configured what every run does, as far as the source can tell.
func (p *pass) treeOptions() rsyncx.Options {
	o, can := p.Tree, p.src.Abilities()
	o.Resume, o.Racy = !o.Append, true
	o.Renames = can.Sums && !o.WholeFile
	o.SameSource = can.HardLinks
	// After a failover another host is the active, and its home is another directory.
	o.NewSource = can.HardLinks && (p.NewSource || p.epoch > p.role.Epoch)
	return o
}

func (p *pass) warn(name, text string) {
	p.Event.Emit(event.Event{Kind: event.Warning, Name: name, Text: text})
	if name != "" {
		text = rsyncx.Printable(name) + ": " + text
	}
	if len(p.record.Warnings) < 100 {
		p.record.Warnings = append(p.record.Warnings, text)
	}
}

// complete says whether the record may claim that nothing is missing.
func complete(r snapshot.Record) bool {
	for _, b := range r.BlobSets {
		if b.Missing > 0 {
			return false
		}
	}
	for _, t := range r.Trees {
		if t.Torn > 0 || t.Skipped > 0 {
			return false
		}
	}
	return true
}

// discard throws away what was captured and staged, unless it is committed:
// then it belongs to whoever rolls the journal forward. What cannot be thrown
// away now is removed by the next run's recover.
func (p *pass) discard() {
	if p.committed {
		return
	}
	ctx, cancel := cleanupContext(context.Background())
	defer cancel()
	if p.captured != nil {
		_ = p.captured.Discard(ctx)
	}
	if p.staged != nil {
		_ = p.staged.Discard()
	}
	if p.draft != nil {
		_ = p.draft.Discard()
	}
}

// close gives back what the pass still holds.
func (p *pass) close() {
	p.discard()
	if p.captured != nil {
		_ = p.captured.Close()
	}
	if p.root != nil {
		_ = p.root.Close()
	}
	if p.src != nil {
		_ = p.src.Close()
	}
	if p.blobs != nil {
		p.blobs.close()
	}
}

// syncHome makes blobs and staged files durable before anything names them.
func (p *pass) syncHome(ctx context.Context) error {
	if p.blobs != nil {
		if err := p.blobs.store.Sync(ctx); err != nil {
			return err
		}
	}
	return durable.SyncFS(p.Home)
}

// exists asks whether the active's home has a path.
func (p *pass) exists(ctx context.Context) func(string) (bool, error) {
	return func(path string) (bool, error) {
		_, err := p.src.Lstat(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
}
