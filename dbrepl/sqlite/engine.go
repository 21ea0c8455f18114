package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// Options says which database is replicated to where. All but Event are required.
type Options struct {
	ActivePath  string // absolute, on the active
	StandbyPath string // absolute, on this host; its directory exists
	// Snapshot opens a stream of the handler on the active. Reading it must fail
	// in bounded time when the peer is gone; it is closed when ctx is cancelled, or
	// before its end, which ends the handler's call. Two are open at once while
	// changes are fetched; where that cannot be, the whole database is.
	Snapshot func(ctx context.Context, arg string) (io.ReadCloser, error)
	// Clock measures the active's clock minus this host's; the true value lies
	// within skew ± bound.
	Clock func(ctx context.Context) (skew, bound time.Duration, err error)
	Event event.Sink
}

// Engine replicates one SQLite file. Its methods are called by one goroutine
// at a time.
type Engine struct {
	o     Options
	f     files
	least int64                   // bytes of a database whose changes alone are fetched
	chunk int64                   // rows of a range that differs, at most; tests have fewer
	step  func(name string) error // tests stop the engine here
	// rowsAlways has tests compare rows also where pages tell enough.
	rowsAlways bool
	token      func() string
}

var (
	_ dbrepl.Engine      = (*Engine)(nil)
	_ dbrepl.ActiveAsker = (*Engine)(nil)
)

// New returns an engine. It touches nothing yet.
func New(o Options) (*Engine, error) {
	var errs []error
	for what, path := range map[string]string{"active": o.ActivePath, "standby": o.StandbyPath} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
			errs = append(errs, fmt.Errorf("the %s's database %q is not an absolute path of a file", what, path))
		}
	}
	if o.Snapshot == nil || o.Clock == nil {
		errs = append(errs, errors.New("internal error: sqlite engine without Snapshot or Clock"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Engine{
		o: o, f: filesOf(o.StandbyPath),
		least: leastDelta,
		step:  func(string) error { return nil },
		token: randomName,
	}, nil
}

// Describe implements dbrepl.Engine.
func (e *Engine) Describe() string {
	return fmt.Sprintf("SQLite %s to %s", e.o.ActivePath, e.o.StandbyPath)
}

// Close implements dbrepl.Engine. Views and captures are closed on their own.
func (e *Engine) Close() error { return nil }

// Capture implements dbrepl.Engine.
func (e *Engine) Capture(ctx context.Context, o dbrepl.CaptureOptions) (_ dbrepl.Captured, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("capture %s: %w", e.o.ActivePath, err)
		}
	}()
	skew, bound, err := e.o.Clock(ctx)
	if err != nil {
		return nil, fmt.Errorf("compare the clocks: %w", err)
	}
	// The hash that the active made of the whole copy travels with it, and is compared
	// in every capture, also when only changes were fetched.
	got, err := e.fetch(ctx, e.f.staged, e.f.live)
	if o.Verify && errors.Is(err, errOther) {
		err = fmt.Errorf("%w: %w", dbrepl.ErrDiffers, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.Remove(e.f.staged)
		}
	}()
	c, err := e.inspect(ctx, generation{
		Format: 1, Generation: e.token(), Time: got.Time, SQLite: got.SQLite, JournalMode: got.JournalMode,
		Length: got.Length, SHA256: got.hash, Skew: skew, SkewError: bound,
	})
	if err == nil {
		c.counts.Bytes = got.moved
		if c.counts.Locked = time.Duration(got.Held); got.Held > 0 {
			c.counts.Against = "writes"
		}
	}
	if err == nil && o.Verify {
		if err = e.verifyIndexes(ctx, c); err != nil {
			c.view.Close()
		}
	}
	if err == nil && o.Dump != "" {
		if err = e.keep(ctx, o.Dump, c); err != nil {
			c.view.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// verifyIndexes looks whether the indexes have what their tables have. The bytes are
// known to be the active's, so damage is the active's own.
func (e *Engine) verifyIndexes(ctx context.Context, c *captured) error {
	err := integrityCheck(ctx, c.view.pin)
	if unchecked := (*uncheckable)(nil); errors.As(err, &unchecked) {
		e.o.Event.Emit(event.Event{Kind: event.Warning, Name: e.o.ActivePath, Text: err.Error()})
		return nil
	}
	if damaged := (*damage)(nil); errors.As(err, &damaged) {
		return hint.With(fmt.Errorf("the active's database: %w", err), "REINDEX there mends an index; of a damaged table bring back an older snapshot (drsync snapshots)")
	}
	return err
}

// inspect opens what lies staged as generation g, proves that it is whole, and
// makes it durable.
func (e *Engine) inspect(ctx context.Context, g generation) (_ *captured, err error) {
	if err := e.dressLike(e.f.staged); err != nil {
		return nil, err
	}
	if err := refuseLog(e.f.staged); err != nil {
		return nil, fmt.Errorf("the received database: %w", err)
	}
	c := &captured{e: e, g: g}
	c.view, err = openView(ctx, candidate{e.f.staged, readStaged}, candidate{e.f.live, readLive})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.view.Close()
		}
	}()
	if err = c.quickCheck(ctx); err != nil {
		return nil, fmt.Errorf("the received database: %w", err)
	}
	c.counts.Bytes = g.Length
	if c.counts.Tables, c.counts.Rows, err = c.count(ctx); err != nil {
		return nil, err
	}
	if err = syncFile(e.f.staged); err == nil {
		err = durable.SyncDir(e.f.dir)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Visible implements dbrepl.Engine.
func (e *Engine) Visible(ctx context.Context) (dbrepl.View, error) {
	if _, err := e.published(); err != nil {
		return nil, err
	}
	v, err := openView(ctx, candidate{e.f.live, readLive})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.With(fmt.Errorf("the published database is gone: %w", err), "a new run brings it again; the generation before it is "+e.f.prev)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", e.f.live, err)
	}
	return v, nil
}

// Promote implements dbrepl.Engine: the file is already what the application
// opens, so it only brings back the active's journal mode, and proves that the
// file can be written. A database that the application uses already is left alone.
func (e *Engine) Promote(ctx context.Context) (dbrepl.Point, error) {
	g, err := e.published()
	if err != nil {
		return dbrepl.Point{}, err
	}
	if err := e.makeWritable(ctx, g.JournalMode); err != nil {
		return dbrepl.Point{}, fmt.Errorf("make %s writable: %w", e.f.live, because(ctx, err))
	}
	return g.point(), nil
}

func (e *Engine) makeWritable(ctx context.Context, journalMode string) (err error) {
	db, err := open(e.f.live, writeLive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, "BEGIN IMMEDIATE")
	if isBusy(err) {
		return nil
	}
	if err != nil {
		return hint.With(err, "run drsync as root or as the application's account, and look whether the file system is mounted read only")
	}
	if _, err := db.ExecContext(ctx, "ROLLBACK"); err != nil {
		return err
	}
	if !strings.EqualFold(journalMode, "wal") {
		return nil
	}
	var mode string
	err = db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
	if isBusy(err) {
		return nil
	}
	if err == nil && mode != "wal" {
		err = fmt.Errorf("the journal mode stays %q", mode)
	}
	return err
}

// StillNamed implements dbrepl.ActiveAsker. It brings a second snapshot of the
// active beside the first, for the time of the questions: SQLite has no server
// that could be asked.
func (e *Engine) StillNamed(ctx context.Context, query string, sums []blob.Sum) (_ map[blob.Sum]bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("ask %s again: %w", e.o.ActivePath, err)
		}
	}()
	if err := os.Remove(e.f.asked); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	base := e.f.staged // the younger one, in the middle of a run
	if _, err := os.Lstat(base); err != nil {
		base = e.f.live
	}
	if _, err := e.fetch(ctx, e.f.asked, base); err != nil {
		return nil, err
	}
	defer os.Remove(e.f.asked)
	v, err := openView(ctx, candidate{e.f.asked, readStaged})
	if err != nil {
		return nil, err
	}
	defer v.Close()
	named := make(map[blob.Sum]bool, len(sums))
	for _, sum := range sums {
		named[sum] = false
		for _, err := range v.Strings(ctx, query, string(sum)) {
			if err != nil {
				return nil, err
			}
			named[sum] = true
			break
		}
	}
	return named, nil
}
