package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// captures is how often a capture is begun anew because somebody on the active
// had to wait for it, or altered definitions meanwhile.
const captures = 3

// errInTheWay is why a capture was given up that somebody on the active waited for.
var errInTheWay = errors.New("somebody on the active waits for the capture")

// Capture copies the active's database as of one point to the staging database.
func (e *Engine) Capture(ctx context.Context, o dbrepl.CaptureOptions) (dbrepl.Captured, error) {
	g, err := e.capture(ctx, o)
	if err != nil {
		return nil, e.failed("capture", err)
	}
	return &captured{e: e, g: g}, nil
}

func (e *Engine) capture(ctx context.Context, o dbrepl.CaptureOptions) (*generation, error) {
	p, err := e.inspect(ctx)
	if err != nil {
		return nil, err
	}
	if err := dbrepl.Refuse(p.findings); err != nil {
		return nil, err
	}
	if err := e.claim(ctx); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		g, err := e.copyDatabase(ctx, p, o)
		if err == nil {
			return g, nil
		}
		err = e.undo(ctx, err)
		if ctx.Err() != nil || !errors.Is(err, errInTheWay) && !errors.Is(err, errChanged) {
			return nil, err
		}
		if attempt == captures {
			return nil, hint.With(fmt.Errorf("%w, each of %d times", err, captures),
				"capture when no upgrade or maintenance alters tables on the active")
		}
		e.warn("%v; the capture begins anew", err)
	}
}

// undo removes what a capture that failed with err has made, and returns err.
// One that was cancelled leaves its database to Recover, and so does one that
// the server did not survive: that it is gone is no second error.
func (e *Engine) undo(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.Join(err, e.clearScratch())
	}
	cleanup := e.dropStaging(ctx)
	if cleanup != nil && !isServerError(cleanup) || hasCode(cleanup, codeStarting, codeShutdown, codeCrashed) {
		return errors.Join(err, e.clearScratch())
	}
	return errors.Join(err, cleanup)
}

func (e *Engine) dumpDir() string { return filepath.Join(e.opt.Scratch, "dump") }

func (e *Engine) clearScratch() error {
	if err := os.RemoveAll(e.opt.Scratch); err != nil {
		return fmt.Errorf("clear the scratch directory: %w", err)
	}
	return nil
}

func (e *Engine) makeScratch() error {
	if err := e.clearScratch(); err != nil {
		return err
	}
	if err := os.Mkdir(e.opt.Scratch, 0o700); err != nil {
		return fmt.Errorf("make the scratch directory: %w", err)
	}
	return nil
}

func (e *Engine) copyDatabase(ctx context.Context, p *pair, o dbrepl.CaptureOptions) (*generation, error) {
	if err := e.dropStaging(ctx); err != nil {
		return nil, err
	}
	if err := e.makeScratch(); err != nil {
		return nil, err
	}
	t, err := e.take(ctx, p, o)
	if err != nil {
		return nil, err
	}
	if e.during != nil {
		e.during("load")
	}
	g := &generation{
		Format: tokenFormat, Engine: tokenEngine, Name: e.opt.Name, ID: rand.Text(), Point: t.point,
		Counts:   dbrepl.Counts{Tables: t.contents.tables(), Rows: t.contents.rows(), Bytes: t.bytes, Locked: t.locked},
		ReadOnly: t.properties.value(fence),
	}
	if t.locked > 0 {
		g.Counts.Against = "changes of tables' definitions"
	}
	if err := e.load(ctx, p.programs, t.properties, e.stagingName(), true); err != nil {
		return nil, err
	}
	if e.during != nil {
		e.during("loaded")
	}
	guarded, stop := e.standby.guard(ctx, e.opt.Maintenance)
	defer stop()
	loaded, err := e.look(guarded, e.stagingName(), o.Verify, true)
	if err != nil {
		return nil, err
	}
	all := t.contents.differences(loaded)
	if o.Verify {
		here, err := e.lookAtDefinitions(guarded, e.stagingName())
		if err != nil {
			return nil, err
		}
		for _, d := range definitionDifferences(t.parts, here) {
			all = append(all, d.String())
		}
	}
	if all != nil {
		return nil, fmt.Errorf("the copy: %w: %s", dbrepl.ErrDiffers, some(all, ""))
	}
	if o.Dump != "" {
		if err := e.keep(ctx, p, o.Dump, g, t); err != nil {
			return nil, err
		}
	}
	if err := e.finish(ctx, g); err != nil {
		if o.Dump != "" {
			err = errors.Join(err, os.RemoveAll(o.Dump))
		}
		return nil, err
	}
	return g, nil
}

// finish marks the staging database as whole.
func (e *Engine) finish(ctx context.Context, g *generation) error {
	if err := e.clearScratch(); err != nil {
		return err
	}
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return err
	}
	defer end(c)
	return e.standby.explain(ctx, mark(ctx, c, e.stagingName(), g))
}

func (p properties) value(name string) string {
	for _, v := range p.Settings {
		if v.Role == "" && v.Name == name {
			return v.Value
		}
	}
	return ""
}
