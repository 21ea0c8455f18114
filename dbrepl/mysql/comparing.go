package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

// comparing is one comparison. What follows mu is shared by its workers.
type comparing struct {
	*Engine
	step            string // that progress is told of
	active, standby []*sql.Conn

	mu     sync.Mutex
	todo   []*compared
	tables int
	rows   int64
	chunks int64
	more   int64 // differences that are not in found
	found  []found
}

// compared is a table on both sides.
type compared struct {
	there, here sumPlan
	lo          bound // where the next range begins
	begun       int   // ranges
	listed      int   // differences
}

// found is a difference, with the order in which they are told.
type found struct {
	dbrepl.Difference
	chunk int
}

// plan decides how each table is summed. One whose columns are not the same on
// both sides differs by its definition, and its rows are not looked at.
func (c *comparing) plan(ctx context.Context, a, s *sql.Conn, there, here []table) error {
	theirs, err := sumPlans(ctx, a, there)
	if err != nil {
		return c.Engine.active.explain(ctx, err)
	}
	ours, err := sumPlans(ctx, s, here)
	if err != nil {
		return c.Engine.standby.explain(ctx, err)
	}
	for _, t := range there {
		i := slices.IndexFunc(here, func(h table) bool { return h.name == t.name })
		if t.sequence || i < 0 || here[i].sequence {
			continue
		}
		sameName := func(a, b column) bool { return a.name == b.name }
		if !slices.EqualFunc(t.columns, here[i].columns, sameName) || !slices.EqualFunc(t.stored, here[i].stored, sameName) {
			continue
		}
		p := &compared{there: theirs[t.name], here: ours[t.name]}
		if len(p.here.key) == 0 || p.here.index != p.there.index {
			p.here.index = ""
		}
		p.here.key = p.there.key // the same bounds on both sides
		c.todo = append(c.todo, p)
	}
	c.tables = len(c.todo)
	return nil
}

// sumPlans decides how the tables of the session's own schema are summed.
func sumPlans(ctx context.Context, c *sql.Conn, tables []table) (map[string]sumPlan, error) {
	r, err := one(ctx, c, "SELECT DATABASE() d")
	if err != nil {
		return nil, err
	}
	columns := make(map[string][]column)
	for _, t := range tables {
		columns[t.name] = t.columns
	}
	keys, err := orderKeys(ctx, c, r.get("d"), columns)
	if err != nil {
		return nil, err
	}
	plans := make(map[string]sumPlan)
	for _, t := range tables {
		if t.sequence {
			continue
		}
		p := sumPlan{name: t.name, key: keys[t.name]}
		if len(p.key) > 0 {
			p.index = p.key[0].index
		}
		if p.row, err = rowHash(slices.Concat(t.columns, t.stored)); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.name, err)
		}
		plans[t.name] = p
	}
	return plans, nil
}

// run compares all ranges, as many at once as there are sessions.
func (c *comparing) run(ctx context.Context) error {
	g, working := errgroup.WithContext(ctx)
	for i := range c.active {
		w := &comparer{c, c.active[i], c.standby[i]}
		g.Go(func() error { return w.work(working) })
	}
	err := g.Wait()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// comparer is one worker with its two sessions.
type comparer struct {
	*comparing
	there, here *sql.Conn
}

func (w *comparer) work(ctx context.Context) error {
	for {
		t, lo, hi, chunk, err := w.next(ctx)
		if err != nil || t == nil {
			return err
		}
		if err := w.compareRange(ctx, t, lo, hi, chunk); err != nil {
			if hasNumber(err, errTableChanged, errNoSuchTable, errUnknownColumn) {
				err = fmt.Errorf("%w: %w", errChanged, err)
			}
			return fmt.Errorf("table %s: %w", t.there.name, err)
		}
	}
}

// next returns the next range. Its end is found in the index of the active.
func (w *comparer) next(ctx context.Context) (t *compared, lo, hi bound, chunk int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.todo) == 0 || ctx.Err() != nil {
		return nil, nil, nil, 0, context.Cause(ctx)
	}
	t = w.todo[0]
	lo, chunk = t.lo, t.begun
	if len(t.there.key) > 0 {
		err = released(ctx, w.there, func() (err error) {
			hi, err = t.there.walk(ctx, w.there, lo, nil, w.chunkRows())
			return err
		})
		if err != nil {
			return nil, nil, nil, 0, fmt.Errorf("table %s: %w", t.there.name, w.Engine.active.explain(ctx, err))
		}
	}
	t.begun, t.lo = t.begun+1, hi
	if hi == nil {
		w.todo = w.todo[1:]
	}
	return t, lo, hi, chunk, nil
}

// chunkRows is how many rows a range has; tests have fewer.
func (c *comparing) chunkRows() int64 {
	if c.Engine.chunk > 0 {
		return c.Engine.chunk
	}
	return chunkRows
}

func (w *comparer) compareRange(ctx context.Context, t *compared, lo, hi bound, chunk int) error {
	there, here, err := w.sums(ctx, t, lo, hi)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.chunks++
	w.rows += there.rows
	rows := w.rows
	w.mu.Unlock()
	w.opt.Event.Emit(event.Event{Kind: event.Progress, Step: w.step, Name: w.opt.Name, Items: rows})
	if there == here {
		return nil
	}
	return w.narrow(ctx, t, lo, hi, chunk, there, here)
}

// sums asks both servers at once.
func (w *comparer) sums(ctx context.Context, t *compared, lo, hi bound) (there, here fingerprint, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		there, err = summed(ctx, w.there, t.there, lo, hi, "the active")
		return w.Engine.active.explain(ctx, err)
	})
	g.Go(func() (err error) {
		here, err = summed(ctx, w.here, t.here, lo, hi, "the standby")
		return w.Engine.standby.explain(ctx, err)
	})
	err = g.Wait()
	return there, here, err
}

func summed(ctx context.Context, c *sql.Conn, p sumPlan, lo, hi bound, who string) (f fingerprint, err error) {
	err = released(ctx, c, func() error {
		if f, err = p.sum(ctx, c, lo, hi); err != nil {
			return err
		}
		return remarks(ctx, c, who, 0) // a value that is too long for a packet is only remarked upon
	})
	return f, err
}

// released lets go of the tables that do has read: otherwise whoever alters one
// waits for the end of the snapshot, and everybody else for him.
func released(ctx context.Context, c *sql.Conn, do func() error) error {
	if err := execAll(ctx, c, "SAVEPOINT tables"); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return execAll(ctx, c, "ROLLBACK TO SAVEPOINT tables")
}

// narrow divides a range that differs until few rows are left, and lists it.
func (w *comparer) narrow(ctx context.Context, t *compared, lo, hi bound, chunk int, there, here fingerprint) error {
	most := max(there.rows, here.rows)
	if most > fewRows && len(t.there.key) > 0 && w.room(t) {
		plan, conn, server := t.there, w.there, w.Engine.active
		if here.rows > there.rows {
			plan, conn, server = t.here, w.here, w.Engine.standby
		}
		// Sixteen parts at a time cost as many questions as four halvings, one
		// after the other, and read the rows half as often.
		size := max(most/16, fewRows) - 1 // a part that begins at a key has one row more
		var bounds []bound
		for at := lo; ; {
			var next bound
			err := released(ctx, conn, func() (err error) {
				next, err = plan.walk(ctx, conn, at, hi, size)
				return err
			})
			if err != nil {
				return server.explain(ctx, err)
			}
			if next == nil {
				break
			}
			bounds = append(bounds, next)
			at = next
		}
		if bounds != nil {
			return w.divide(ctx, t, lo, hi, chunk, bounds)
		}
	}
	w.list(t, chunk, dbrepl.Difference{Table: t.there.name, From: t.there.shown(lo), To: t.there.shown(hi), Active: there.rows, Standby: here.rows})
	return nil
}

// divide compares the parts of a range that lie between bounds.
func (w *comparer) divide(ctx context.Context, t *compared, lo, hi bound, chunk int, bounds []bound) error {
	for i := range len(bounds) + 1 {
		from, to := lo, hi
		if i > 0 {
			from = bounds[i-1]
		}
		if i < len(bounds) {
			to = bounds[i]
		}
		there, here, err := w.sums(ctx, t, from, to)
		if err != nil {
			return err
		}
		if there != here {
			if err := w.narrow(ctx, t, from, to, chunk, there, here); err != nil {
				return err
			}
		}
	}
	return nil
}

// room says whether a further difference of the table would be listed.
func (w *comparer) room(t *compared) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return t.listed < perTable
}

func (w *comparer) list(t *compared, chunk int, d dbrepl.Difference) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.listed >= perTable {
		w.more++
		return
	}
	t.listed++
	w.found = append(w.found, found{d, chunk})
}

// lone finds tables that only one side has.
func (c *comparing) lone(ctx context.Context, there, here schema) (lone []found, err error) {
	add := func(t table, conn *sql.Conn, active bool) error {
		var n int64
		if err := conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+quote(t.name)).Scan(&n); err != nil {
			return fmt.Errorf("count table %s: %w", t.name, err)
		}
		d := dbrepl.Difference{Table: t.name, Standby: n, Text: "only the standby has it"}
		if active {
			d = dbrepl.Difference{Table: t.name, Active: n, Text: "only the active has it"}
		}
		lone = append(lone, found{d, -1})
		return nil
	}
	has := func(all []table, name string) bool {
		return slices.ContainsFunc(all, func(t table) bool { return t.name == name })
	}
	for _, t := range there.tables {
		if !has(here.tables, t.name) {
			if err := released(ctx, c.active[0], func() error { return add(t, c.active[0], true) }); err != nil {
				return nil, c.Engine.active.explain(ctx, err)
			}
		}
	}
	for _, t := range here.tables {
		if !has(there.tables, t.name) {
			if err := released(ctx, c.standby[0], func() error { return add(t, c.standby[0], false) }); err != nil {
				return nil, c.Engine.standby.explain(ctx, err)
			}
		}
	}
	return lone, nil
}

// result puts the differences in order, those of one table together.
func (c *comparing) result() dbrepl.Comparison {
	slices.SortStableFunc(c.found, func(a, b found) int {
		if a.Table != b.Table {
			return strings.Compare(a.Table, b.Table)
		}
		return a.chunk - b.chunk
	})
	r := dbrepl.Comparison{Tables: c.tables, Rows: c.rows, Chunks: c.chunks, Different: c.more + int64(len(c.found))}
	for _, f := range fair(c.found, dbrepl.MaxDifferences) {
		r.Differences = append(r.Differences, f.Difference)
	}
	return r
}

// fair takes most of all, which are sorted by table, so that no table is left
// out for the sake of another's many.
func fair(all []found, most int) []found {
	each := most
	for {
		var some []found
		n := 0
		for i, f := range all {
			if i == 0 || all[i-1].Table != f.Table {
				n = 0
			}
			if n++; n <= each {
				some = append(some, f)
			}
		}
		if len(some) <= most || each == 1 {
			return some[:min(most, len(some))]
		}
		each /= 2
	}
}
