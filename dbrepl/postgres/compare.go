package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
)

// Compare compares the visible database with the active's: each table by the sum
// of its rows' hashes, and the definitions of both as the servers word them,
// which is as of the same snapshot but for what a server words as of now. A
// sequence must not be behind the active's, which takes part in no transaction.
func (e *Engine) Compare(ctx context.Context) (dbrepl.Comparison, error) {
	c, err := e.compare(ctx)
	return c, e.failed("compare", err)
}

func (e *Engine) compare(parent context.Context) (dbrepl.Comparison, error) {
	v, err := e.Visible(parent)
	if err != nil {
		return dbrepl.Comparison{}, err
	}
	defer v.Close()
	return e.compareVisible(parent)
}

// compareVisible compares a visible database that is known to be whole.
func (e *Engine) compareVisible(parent context.Context) (dbrepl.Comparison, error) {
	ctx, stop := e.active.guard(parent, e.opt.Name)
	defer stop()
	ctx, stopStandby := e.standby.guard(ctx, e.opt.Maintenance)
	defer stopStandby()
	active, there, point, err := e.lookAtActive(ctx)
	if err != nil {
		return dbrepl.Comparison{}, err
	}
	standby, err := e.look(ctx, e.opt.Name, true, false)
	if err != nil {
		return dbrepl.Comparison{}, err
	}
	here, err := e.lookAtDefinitions(ctx, e.opt.Name)
	if err != nil {
		return dbrepl.Comparison{}, err
	}
	return compared(active, standby, point, definitionDifferences(there, here)), nil
}

// lookAtDefinitions reads those of a database of the standby.
func (e *Engine) lookAtDefinitions(ctx context.Context, database string) ([]part, error) {
	c, err := e.standby.connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer end(c)
	all, err := readDefinitions(ctx, c)
	return all, e.standby.explain(ctx, err)
}

// lookAtActive sums up the active's database, and reads its definitions, in one
// snapshot.
func (e *Engine) lookAtActive(ctx context.Context) (contents, []part, dbrepl.Point, error) {
	none := dbrepl.Point{}
	side, err := e.active.connect(ctx, e.opt.Name)
	if err != nil {
		return nil, nil, none, err
	}
	defer end(side)
	leader, err := e.active.connect(ctx, e.opt.Name)
	if err != nil {
		return nil, nil, none, err
	}
	defer end(leader)
	id, err := e.active.identify(ctx, side)
	if err != nil {
		return nil, nil, none, err
	}
	if err := e.endLost(ctx, side); err != nil {
		return nil, nil, none, err
	}
	t, _, err := e.snapshot(ctx, side, leader)
	if err != nil {
		return nil, nil, none, e.active.explain(ctx, err)
	}
	t.point.Server = id.String()
	definitions, err := readDefinitions(ctx, leader)
	if err != nil {
		return nil, nil, none, e.active.explain(ctx, err)
	}
	found, err := countAll(ctx, []querier{leader}, t.tables, true)
	return found, definitions, t.point, e.active.explain(ctx, err)
}

var _ querier = (*pgx.Conn)(nil)

// compared finds the tables that differ, and adds the definitions that do.
func compared(active, standby contents, point dbrepl.Point, definitions []dbrepl.Difference) dbrepl.Comparison {
	c := dbrepl.Comparison{Active: point, Tables: active.tables(), Rows: active.rows(), Chunks: int64(len(active))}
	add := func(d dbrepl.Difference) {
		c.Different++
		if len(c.Differences) < dbrepl.MaxDifferences {
			c.Differences = append(c.Differences, d)
		}
	}
	for _, name := range names(active, standby) {
		a, onActive := active[name]
		s, onStandby := standby[name]
		d := dbrepl.Difference{Table: name, Active: a.Rows, Standby: s.Rows}
		switch {
		case !onStandby:
			d.Text = "the standby lacks the table"
		case !onActive:
			d.Text = "only the standby has the table"
		case a == s:
			continue
		}
		add(d)
	}
	for _, d := range definitions {
		add(d)
	}
	return c
}
