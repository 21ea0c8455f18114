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

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/app"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
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
	Epoch    uint64          `json:"epoch"`
	Record   snapshot.Record `json:"record"`
	// Home and Inode are the home that the staged tree lies in: an empty mount
	// point of the same path is another one.
	Home  string `json:"home"`
	Inode uint64 `json:"home_inode"`
	// LockFile is held by the running application; "" if it has none.
	LockFile string `json:"lock_file,omitempty"`
}

const journalName = "publish.json"

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
	if p.staged != nil {
		if err := p.staged.Sync(); err != nil {
			return "", err
		}
	}
	if err := p.syncHome(ctx); err != nil {
		return "", err
	}
	if err := p.draft.Sync(); err != nil {
		return "", err
	}
	p.record.Steps = p.took
	p.record.Complete = complete(p.record)
	j := journal{Snapshot: p.draft.ID, Epoch: p.epoch, Record: p.record, Home: p.Home}
	if p.profile.LockFile != "" {
		j.LockFile = p.inHome(p.profile.LockFile)
	}
	if p.captured != nil {
		j.Database = p.captured.Token()
	}
	var err error
	if j.Inode, err = inode(p.Home); err != nil {
		return "", err
	}
	if err := stopped(j.LockFile); err != nil {
		return "", err
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	// From here on nothing of this run may be thrown away, unless it is certain
	// that the journal is not there.
	p.committed = true
	if err := p.writeJournal(j); err != nil {
		if _, lerr := os.Lstat(p.journalPath()); errors.Is(lerr, fs.ErrNotExist) {
			p.committed = false
		}
		return "", err
	}
	return p.finish(ctx, j)
}

// rollForward does what the journal intends. Every part is idempotent, so it
// may be repeated from the start after a crash anywhere.
//
// The database comes first: it is the part that may have to wait, or to be
// given up, and then nothing has changed. An interrupt ends such a wait after
// publishGrace; what takes only a moment is not interrupted.
func (p *pass) rollForward(ctx context.Context, j journal) (string, error) {
	part := func(text string) { p.Event.Emit(event.Event{Kind: event.Info, Step: "publish", Text: text}) }
	if err := p.checkJournal(j); err != nil {
		return "", err
	}
	if p.Engine != nil {
		part("swapping the database in")
		patient, done := withGrace(ctx, publishGrace)
		err := p.publishDatabase(patient, j.Database)
		done()
		if err != nil {
			return "", fmt.Errorf("publish the database: %w", err)
		}
	}
	ctx = context.WithoutCancel(ctx)
	part("placing the tree")
	if err := p.placeTree(ctx, &j.Record); err != nil {
		return "", fmt.Errorf("place the tree: %w", err)
	}
	part("recording the snapshot")
	if err := p.adoptEpoch(j.Epoch); err != nil {
		return "", err
	}
	snaps, err := snapshot.Open(p.StateDir)
	if err != nil {
		return "", err
	}
	if j.Record.Published, err = p.publishedAt(snaps); err != nil {
		return "", err
	}
	if !p.began.IsZero() {
		j.Record.Steps = append(j.Record.Steps, snapshot.Step{Name: "publish", Seconds: p.now().Sub(p.began).Round(time.Millisecond).Seconds()})
	}
	if err := snaps.Draft(j.Snapshot).Commit(j.Record); err != nil {
		return "", err
	}
	if err := p.closeJournal(); err != nil {
		return "", err
	}
	part("published")
	record, err := snaps.Get(j.Snapshot)
	if err != nil {
		return "", err
	}
	p.report.Published, p.report.Snapshot = true, &record
	return "snapshot " + record.ID, nil
}

// publishGrace is how long an interrupted publish may still wait for whoever
// uses the standby's database.
const publishGrace = time.Second

// publishedAt is now, or just after the snapshot before if this host's clock
// went back: the order of publishing is what says which snapshot is visible.
func (p *pass) publishedAt(snaps *snapshot.Store) (time.Time, error) {
	now := p.now().UTC()
	all, err := snaps.List()
	if err == nil && len(all) > 0 && !now.After(all[0].Published) {
		now = all[0].Published.Add(time.Nanosecond)
	}
	return now, err
}

// withGrace returns a context that ends some time after ctx does. done must be called.
func withGrace(ctx context.Context, grace time.Duration) (patient context.Context, done func()) {
	patient, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
		context.AfterFunc(patient, func() { timer.Stop() })
	})
	return patient, func() { stop(); cancel(nil) }
}

// checkJournal refuses to roll a journal forward over something else than what
// it was written for, or under a running application.
func (p *pass) checkJournal(j journal) error {
	switch {
	case p.Engine == nil && len(j.Database) > 0:
		return hint.New("the interrupted publish is of a database, but none is configured now", "configure the database as it was, and run drsync now")
	case p.Engine != nil && len(j.Database) == 0:
		return hint.New("the interrupted publish is of a home without a database, but one is configured now", "set database.engine: none as it was, and run drsync now")
	}
	const where = "is its disk mounted? is standby.home as it was?"
	if j.Home != p.Home {
		return hint.New(fmt.Sprintf("the interrupted publish is of the home %s, not %s", j.Home, p.Home), where)
	}
	there, err := inode(p.Home)
	if err != nil {
		return hint.With(err, where)
	}
	if there != j.Inode {
		return hint.New(fmt.Sprintf("the home %s is not the directory that the interrupted publish was staged in", p.Home), where)
	}
	return stopped(j.LockFile)
}

// abandon gives up a committed publish whose capture is gone. Nothing of it is
// visible, since the database is the first part.
func (p *pass) abandon(j journal) error {
	if err := p.removeStage(); err != nil {
		return err
	}
	if err := p.closeJournal(); err != nil {
		return err
	}
	p.warn("", fmt.Sprintf("the publish of snapshot %s was given up: what was captured is no longer there; the snapshot before it stands", j.Snapshot))
	return nil
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("the standby's home %s: %w", path, err)
	}
	return st.Ino, nil
}

// stopped returns an error while the application holds its lock file.
func stopped(lockFile string) error {
	if lockFile == "" {
		return nil
	}
	held, err := app.LockHeld(lockFile)
	if err == nil && held {
		err = hint.New("the application is running on this standby: "+lockFile+" is held", "stop its service, and disable it at boot")
	}
	return err
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
		var err error
		staged, err = rsyncx.OpenStaged(p.root)
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
	if p.root == nil {
		return nil
	}
	staged, err := rsyncx.OpenStaged(p.root)
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
	if err := p.takeHome(); err != nil {
		return "", err
	}
	j, err := readJournal(p.StateDir)
	if err != nil {
		return "", err
	}
	text := "nothing to finish"
	if j != nil {
		if p.dryRun {
			return "", hint.New("the publish of snapshot "+j.Snapshot+" was interrupted, and a dry run does not finish it", "run drsync now")
		}
		_, err := p.finish(ctx, *j)
		switch {
		case err == nil:
			p.report.Recovered, p.report.Published, p.report.Snapshot = j.Snapshot, false, nil
			return "finished publishing snapshot " + j.Snapshot, nil
		case !errors.Is(err, dbrepl.ErrCaptureGone):
			return "", fmt.Errorf("finish publishing snapshot %s: %w", j.Snapshot, err)
		}
		if err := p.abandon(*j); err != nil {
			return "", fmt.Errorf("give up publishing snapshot %s: %w", j.Snapshot, err)
		}
		text = "gave up publishing snapshot " + j.Snapshot
	}
	if p.Engine != nil {
		if err := p.Engine.Recover(ctx, nil); err != nil {
			return "", err
		}
	}
	if err := p.discardDrafts(); err != nil {
		return "", err
	}
	return text, p.removeStage()
}

func (p *pass) discardDrafts() error {
	if _, err := os.Lstat(p.StateDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	snaps, err := snapshot.Open(p.StateDir)
	if err != nil {
		return err
	}
	return snaps.DiscardDrafts()
}

// takeHome locks the standby's home against every other run, also one with
// another state directory. A home that does not exist yet is taken once it does.
func (p *pass) takeHome() error {
	if p.root != nil {
		return nil
	}
	root, err := rsyncx.OpenRoot(p.Home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the standby's home: %w", err)
	}
	if err := root.Lock(); err != nil {
		return errors.Join(hint.With(err, "another drsync, with another state directory, works on the same home"), root.Close())
	}
	p.root = root
	return nil
}
