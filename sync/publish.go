package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/rsyncx"
)

// journal is the intent to publish. Its appearance is the commit point of a
// run: from then on the snapshot is rolled forward, by this process or by the
// next one. It holds all that needs to be known, and no secret.
type journal struct {
	Format   int             `json:"format"`
	Snapshot string          `json:"snapshot"`
	Database dbrepl.Token    `json:"database,omitempty"`
	Tree     bool            `json:"tree"` // a staged tree waits to be placed
	Epoch    uint64          `json:"epoch"`
	Record   snapshot.Record `json:"record"`
}

const journalName = "publish.json"

// Pending is a publish that has begun and not ended.
type Pending struct {
	ID   string
	Time time.Time // T of the snapshot
}

// PublishPending returns the publish that the state directory says has begun
// and not ended, or nil.
func PublishPending(stateDir string) (*Pending, error) {
	j, err := readJournal(stateDir)
	if j == nil || err != nil {
		return nil, err
	}
	return &Pending{ID: j.Snapshot, Time: j.Record.Time}, nil
}

func (p *pass) journalPath() string { return filepath.Join(p.StateDir, journalName) }

func (p *pass) writeJournal(j journal) error {
	j.Format = 1
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(p.journalPath(), append(data, '\n'), 0o600)
}

// readJournal returns nil when no publish had begun.
func readJournal(stateDir string) (*journal, error) {
	path := filepath.Join(stateDir, journalName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the publish journal: %w", err)
	}
	var j journal
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, fmt.Errorf("read the publish journal: %s: %w", path, err)
	}
	if j.Format != 1 {
		return nil, fmt.Errorf("read the publish journal: format %d is newer than this drsync", j.Format)
	}
	return &j, nil
}

// publish makes everything durable, writes the journal and rolls it forward.
func (p *pass) publish(ctx context.Context) (string, error) {
	if err := p.staged.Sync(); err != nil {
		return "", err
	}
	if err := p.syncHome(ctx); err != nil {
		return "", err
	}
	if err := p.draft.Sync(); err != nil {
		return "", err
	}
	p.record.Steps = p.took
	p.record.Complete = complete(p.record)
	j := journal{Snapshot: p.draft.ID, Tree: true, Epoch: p.epoch, Record: p.record}
	if p.captured != nil {
		j.Database = p.captured.Token()
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err := p.writeJournal(j); err != nil {
		return "", err
	}
	// From here on nothing of this run may be thrown away, and an interrupted
	// run would only leave to the next one what takes a moment now.
	p.committed = true
	return p.rollForward(context.WithoutCancel(ctx), j)
}

// rollForward does what the journal intends. Every part is idempotent, so it
// may be repeated from the start after a crash anywhere.
func (p *pass) rollForward(ctx context.Context, j journal) (string, error) {
	part := func(text string) { p.Event.Emit(event.Event{Kind: event.Info, Step: "publish", Text: text}) }
	if j.Tree {
		part("placing the tree")
		if err := p.placeTree(ctx, &j.Record); err != nil {
			return "", err
		}
	}
	if p.Engine != nil {
		part("swapping the database in")
		if len(j.Database) == 0 {
			return "", errors.New("the publish journal is of a run without a database, but one is configured now")
		}
		if err := p.publishDatabase(ctx, j.Database); err != nil {
			return "", fmt.Errorf("publish the database: %w", err)
		}
	}
	part("recording the snapshot")
	if err := p.adoptEpoch(j.Epoch); err != nil {
		return "", err
	}
	snaps, err := snapshot.Open(p.StateDir)
	if err != nil {
		return "", err
	}
	j.Record.Published = p.now().UTC()
	if err := snaps.Draft(j.Snapshot).Commit(j.Record); err != nil {
		return "", err
	}
	if err := durable.Remove(p.journalPath()); err != nil {
		return "", fmt.Errorf("close the publish journal: %w", err)
	}
	part("published")
	record, err := snaps.Get(j.Snapshot)
	if err != nil {
		return "", err
	}
	p.report.Published, p.report.Snapshot = true, &record
	return "snapshot " + record.ID, nil
}

func (p *pass) publishDatabase(ctx context.Context, token dbrepl.Token) error {
	if p.captured != nil {
		return p.captured.Publish(ctx)
	}
	return p.Engine.Recover(ctx, token)
}

// placeTree renames the staged tree into place: that of this run, or the one
// that an interrupted run left. The stage was durable before the journal, and
// goes when all of it is placed, so that a missing one has been placed.
func (p *pass) placeTree(ctx context.Context, record *snapshot.Record) error {
	staged := p.staged
	if staged == nil {
		root, err := p.openHome()
		if err != nil {
			return err
		}
		defer root.Close()
		staged, err = rsyncx.OpenStaged(root)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	if err := staged.Publish(ctx); err != nil {
		return err
	}
	for i, stats := 0, staged.Stats(); i < len(record.Trees); i++ {
		record.Trees[i].Skipped = stats.Skipped + stats.Unreadable
	}
	record.Complete = complete(*record)
	return nil
}

// removeStage throws away a tree that was staged and never committed.
func (p *pass) removeStage() error {
	if _, err := os.Lstat(p.Home); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	root, err := p.openHome()
	if err != nil {
		return err
	}
	defer root.Close()
	staged, err := rsyncx.OpenStaged(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return staged.Discard()
}

// adoptEpoch raises this host's epoch to that of the active it follows.
func (p *pass) adoptEpoch(epoch uint64) error {
	s, err := role.Load(p.StateDir)
	if err != nil || epoch <= s.Epoch {
		return err
	}
	s.Epoch = epoch
	if s.Since.IsZero() {
		s.Since = p.now().UTC()
	}
	return role.Save(p.StateDir, s)
}

// recover rolls an interrupted publish forward, or throws away what an
// interrupted run left before it.
func (p *pass) recover(ctx context.Context) (string, error) {
	j, err := readJournal(p.StateDir)
	if err != nil {
		return "", err
	}
	if j != nil {
		if _, err := p.rollForward(ctx, *j); err != nil {
			return "", fmt.Errorf("finish publishing snapshot %s: %w", j.Snapshot, err)
		}
		p.report.Recovered, p.report.Published, p.report.Snapshot = j.Snapshot, false, nil
		return "finished publishing snapshot " + j.Snapshot, nil
	}
	if p.Engine != nil {
		if err := p.Engine.Recover(ctx, nil); err != nil {
			return "", err
		}
	}
	snaps, err := snapshot.Open(p.StateDir)
	if err != nil {
		return "", err
	}
	if err := snaps.DiscardDrafts(); err != nil {
		return "", err
	}
	if err := p.removeStage(); err != nil {
		return "", err
	}
	return "nothing to finish", nil
}
