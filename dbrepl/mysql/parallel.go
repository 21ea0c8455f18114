package mysql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drsync/drsync/dbrepl/dump"
	"github.com/drsync/drsync/internal/event"
)

// workers is how many tables, or parts of tables, are copied at once: each has
// a session on either server.
func workers() int { return min(8, max(2, runtime.GOMAXPROCS(0))) }

// origin is where the rows of tables come from: the active, or a kept dump.
type origin interface {
	// workers is how many parts may be read at once.
	workers() int
	// state returns the columns of a sequence's only row.
	state(ctx context.Context, t table) ([]int64, error)
	// divide returns the parts that a table is copied in, of which n are worth
	// while. There is at least one.
	divide(ctx context.Context, t table, n int) ([]part, error)
	// read hands the rows of a part to load. i is the worker that wants them.
	read(ctx context.Context, i int, p part, load func(rowReader) error) error
}

// part is what one worker copies at a time: a table, the rows of one that meet a
// condition, or a chunk of a dump.
type part struct {
	*filling
	where string
	chunk *dump.Chunk
}

// filling is a table on its way.
type filling struct {
	table
	plan    plan
	keys    []string // indexes that it gets when its rows are there
	foreign []string
	parts   int   // that are not copied yet
	rows    int64 // that were copied
}

// crew copies the tables of one capture. Its workers share what follows mu.
type crew struct {
	*copier
	from    origin
	loaders []*loader

	mu    sync.Mutex
	parts []part
}

// copyTables copies all rows, the largest table first, and then adds what the
// tables lack.
func (k *copier) copyTables(ctx context.Context, from origin, tables []table) error {
	ctx, stop, err := k.watchRoom(ctx)
	if err != nil {
		return err
	}
	defer stop()
	return adviseRoom(k.fillTables(ctx, from, tables))
}

func (k *copier) fillTables(ctx context.Context, from origin, tables []table) error {
	c := &crew{copier: k, from: from}
	all, err := c.divide(ctx, tables)
	if err != nil {
		return err
	}
	for range from.workers() {
		l, err := k.openLoader(ctx)
		if err != nil {
			return err
		}
		defer l.conn.Close()
		c.loaders = append(c.loaders, l)
	}
	g, working := errgroup.WithContext(ctx)
	for i := range c.loaders {
		g.Go(func() error { return c.work(working, i) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return k.tieTables(ctx, all)
}

// divide makes the list of parts. Sequences, which take no part in
// transactions, are copied at once.
func (c *crew) divide(ctx context.Context, tables []table) (all []*filling, err error) {
	shares := share(tables, c.from.workers(), cmp.Or(c.chunkBytes, chunkBytes))
	for _, t := range tables {
		if t.sequence {
			if err := c.copySequence(ctx, c.from, t); err != nil {
				return nil, fmt.Errorf("copy sequence %s: %w", t.name, err)
			}
			continue
		}
		f := &filling{table: t}
		if f.plan, err = planOf(t); err != nil {
			return nil, err
		}
		_, f.keys, f.foreign = bare(t.ddl)
		parts, err := c.from.divide(ctx, t, shares[t.name])
		if err != nil {
			return nil, fmt.Errorf("divide table %s: %w", t.name, err)
		}
		f.parts = len(parts)
		for _, p := range parts {
			p.filling = f
			c.parts = append(c.parts, p)
		}
		all = append(all, f)
	}
	slices.SortStableFunc(c.parts, func(a, b part) int { return cmp.Compare(b.size, a.size) })
	return all, nil
}

func (c *crew) next() (part, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.parts) == 0 {
		return part{}, false
	}
	p := c.parts[0]
	c.parts = c.parts[1:]
	return p, true
}

func (c *crew) work(ctx context.Context, i int) error {
	for {
		p, ok := c.next()
		if !ok {
			return nil
		}
		rows, err := c.copyPart(ctx, i, p)
		last := false
		if err == nil {
			c.mu.Lock()
			p.rows += rows
			p.parts--
			last = p.parts == 0
			c.mu.Unlock()
		}
		if last {
			err = c.finish(ctx, c.loaders[i], p.filling)
		}
		if err != nil {
			if ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
				err = errors.Join(context.Cause(ctx), err)
			}
			return fmt.Errorf("copy table %s: %w", p.name, err)
		}
	}
}

// moved counts what was read, and says so.
func (c *crew) moved(name string, rows, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.during != nil {
		c.during(name)
	}
	n := &c.g.Counts
	n.Rows += rows
	n.Bytes += bytes
	c.opt.Event.Emit(event.Event{Kind: event.Progress, Step: c.step, Name: c.opt.Name, Items: n.Rows, Bytes: n.Bytes})
}

// copyPart copies the rows of one part, into the dump too, and returns how many
// they are.
func (c *crew) copyPart(ctx context.Context, i int, p part) (rows int64, err error) {
	kept := c.keep.part(p.name)
	defer kept.abort()
	err = c.from.read(ctx, i, p, func(r rowReader) error {
		src := newRowSource(r, p.plan, func(rows, bytes int64) { c.moved(p.name, rows, bytes) })
		src.kept = kept
		if err := c.loaders[i].load(ctx, p.plan, src); err != nil {
			return err
		}
		rows = src.count
		return nil
	})
	if err != nil {
		return 0, err
	}
	return rows, kept.close(rows)
}

// finish counts a table whose rows are all there, and gives it its indexes.
func (c *crew) finish(ctx context.Context, l *loader, f *filling) error {
	if err := l.count(ctx, f.name, f.rows); err != nil {
		return err
	}
	for _, s := range addKeys(f.name, f.keys) {
		if _, err := l.conn.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("add its indexes: %w", l.server.explain(ctx, err))
		}
	}
	if len(f.keys) > 0 {
		if err := requireKeys(ctx, l.conn, f.table, f.keys); err != nil {
			return l.server.explain(ctx, err)
		}
	}
	c.mu.Lock()
	c.g.Counts.Tables++
	c.mu.Unlock()
	return nil
}

// tieTables adds the foreign keys, when all tables are there. The rows come
// from one consistent point and are not looked at again.
func (k *copier) tieTables(ctx context.Context, all []*filling) error {
	for _, f := range all {
		if len(f.foreign) == 0 {
			continue
		}
		_, err := k.staging.ExecContext(ctx, addForeign(f.name, f.foreign))
		if err == nil {
			err = requireKeys(ctx, k.staging, f.table, f.foreign)
		}
		if err != nil {
			return fmt.Errorf("foreign keys of table %s: %w", f.name, k.standby.explain(ctx, err))
		}
	}
	return nil
}
