package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// Recover implements dbrepl.Engine.
func (e *Engine) Recover(ctx context.Context, commit dbrepl.Token) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := e.sweepTemporary(); err != nil {
		return fmt.Errorf("recover %s: %w", e.f.live, err)
	}
	if commit == nil {
		if err := durable.Remove(e.f.staged); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an unpublished capture: %w", err)
		}
		return nil
	}
	g, err := parseGeneration(commit)
	if err != nil {
		return fmt.Errorf("recover %s: the journal's token: %w", e.f.live, err)
	}
	if err := e.rollForward(ctx, g, false); err != nil {
		return fmt.Errorf("finish the publish of %s: %w", e.f.live, err)
	}
	return nil
}

// sweepTemporary removes what a killed process may have left half written.
func (e *Engine) sweepTemporary() error {
	entries, err := os.ReadDir(e.f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	prefix := "." + filepath.Base(e.f.sidecar) + "."
	for _, entry := range entries {
		if name := entry.Name(); name == filepath.Base(e.f.asked) || len(name) > len(prefix) && name[:len(prefix)] == prefix {
			if err := os.Remove(filepath.Join(e.f.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// rollForward makes generation g the visible one, from wherever an earlier
// attempt stopped. The rename in the middle is the publish; until then the old
// generation is whole, from then on the new one. verified says that the staged
// file is known to be g's.
func (e *Engine) rollForward(ctx context.Context, g generation, verified bool) error {
	if now, err := e.published(); err == nil && now.Generation == g.Generation {
		// A staged file beside it is a later capture whose publish had not begun.
		if !verified {
			return durable.Remove(e.f.staged)
		}
		return nil
	}
	_, err := os.Lstat(e.f.staged)
	staged := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	type step struct {
		name string
		do   func() error
	}
	var steps []step
	if staged {
		if !verified {
			steps = append(steps, step{"verify", func() error { return verifyFile(ctx, e.f.staged, g) }})
		}
		steps = append(steps,
			step{"refuse", e.refuseInUse},
			step{"settle", func() error { return e.settle(ctx) }},
			step{"clear", e.clearLeftovers},
			step{"keep", e.keepPrevious},
			step{"rename", func() error { return os.Rename(e.f.staged, e.f.live) }},
			step{"sync", func() error { return durable.SyncDir(e.f.dir) }})
	} else {
		steps = append(steps,
			step{"verify", func() error { return e.verifyVisible(ctx, g) }},
			step{"sync", func() error { return durable.SyncDir(e.f.dir) }})
	}
	steps = append(steps, step{"mark", func() error { return e.mark(g) }})
	for _, s := range steps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := e.step(s.name); err != nil {
			return err
		}
		if err := s.do(); err != nil {
			return err
		}
	}
	return e.step("done")
}

func (e *Engine) verifyVisible(ctx context.Context, g generation) error {
	err := verifyFile(ctx, e.f.live, g)
	if errors.Is(err, errOther) || errors.Is(err, fs.ErrNotExist) {
		return hint.With(fmt.Errorf("%w: %w", dbrepl.ErrCaptureGone, err),
			"somebody removed "+e.f.staged+" during a publish; run drsync now, which captures anew")
	}
	return err
}

// mark writes down which generation is visible.
func (e *Engine) mark(g generation) error {
	data, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(e.f.sidecar, append(data, '\n'), 0o644)
}

// keepPrevious gives the visible generation a second name. The visible name
// never goes away for it: the following rename replaces it in one step.
func (e *Engine) keepPrevious() error {
	live, err := os.Lstat(e.f.live)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if prev, err := os.Lstat(e.f.prev); err == nil && os.SameFile(live, prev) {
		return nil
	}
	if err := os.Remove(e.f.prev); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Link(e.f.live, e.f.prev)
}

// settle brings the visible database's write-ahead log or journal back into
// the file. Otherwise the new generation would inherit a log that is not its own.
func (e *Engine) settle(ctx context.Context) (err error) {
	fi, err := os.Lstat(e.f.live)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return hint.With(fmt.Errorf("%s is not a regular file", e.f.live), "name the database itself, not a link to it")
	}
	err = e.checkpoint(ctx)
	switch {
	case isBusy(err):
		return inUse(e.f.live, err)
	case isDamaged(err):
		// There is nothing to lose: the new generation replaces a file that nobody can read.
		e.o.Event.Emit(event.Event{Kind: event.Warning, Name: e.f.live, Text: "the database that is replaced is damaged: " + err.Error()})
		return nil
	}
	return because(ctx, err)
}

func (e *Engine) checkpoint(ctx context.Context) (err error) {
	db, err := open(e.f.live, writeLive)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// Rolls a hot journal back, and fails when somebody else is writing.
	for _, statement := range []string{"BEGIN IMMEDIATE", "ROLLBACK"} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		return err
	}
	// Leaving write-ahead mode checkpoints the log and removes it; it needs every other connection gone.
	return db.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode)
}

// clearLeftovers removes the empty companions that settle left. Their absence
// is durable before the rename, or a power cut could bring one back beside the
// new generation.
func (e *Engine) clearLeftovers() error {
	for _, path := range leftovers(e.f.live) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := durable.Remove(path); err != nil {
			return err
		}
	}
	return durable.SyncDir(e.f.dir)
}

// verifyFile compares length and hash of path with g's.
func verifyFile(ctx context.Context, path string, g generation) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := verifyContent(ctx, f, g.Length, g.SHA256); err != nil {
		return fmt.Errorf("%s is %w", path, err)
	}
	return nil
}

// errOther says that a file is not the generation it was compared with.
var errOther = errors.New("another database")
