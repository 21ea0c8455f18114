package postgres

import (
	"context"

	"github.com/drsync/drsync/dbrepl"
)

// Promote lets applications write to the visible database.
func (e *Engine) Promote(ctx context.Context) (dbrepl.Point, error) {
	p, err := e.promote(ctx)
	return p, e.failed("promote", err)
}

func (e *Engine) promote(ctx context.Context) (dbrepl.Point, error) {
	if err := interrupted(ctx); err != nil {
		return dbrepl.Point{}, err
	}
	if err := e.claim(ctx); err != nil {
		return dbrepl.Point{}, err
	}
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return dbrepl.Point{}, err
	}
	defer end(c)
	found, err := e.generations(ctx, c)
	if err != nil {
		return dbrepl.Point{}, e.standby.explain(ctx, err)
	}
	g := found[e.opt.Name]
	if g == nil {
		return dbrepl.Point{}, dbrepl.ErrNoDatabase
	}
	statement := "ALTER DATABASE " + quote(e.opt.Name) + " RESET " + fence
	if g.ReadOnly != "" {
		statement = "ALTER DATABASE " + quote(e.opt.Name) + " SET " + fence + " = " + literal(g.ReadOnly)
	}
	if _, err := c.Exec(ctx, statement); err != nil {
		return dbrepl.Point{}, e.standby.explain(ctx, err)
	}
	return g.Point, nil
}
