package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drsync/drsync/internal/event"
)

// workers is how many tables, or parts of tables, are copied at once: each has
// a session on either server.
func workers() int { return min(8, max(2, runtime.GOMAXPROCS(0))) }

// part is what one worker copies at a time: a table, or the rows of one that
// meet a condition.
type part struct {
	*filling
	where string
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
	readers []*sql.Conn
	loaders []*loader

	mu    sync.Mutex
	look  *sql.Conn
	parts []part
}

// copyTables copies all rows, the largest table first, and then adds what the
// tables lack.
func (k *copier) copyTables(ctx context.Context, readers []*sql.Conn, tables []table) error {
	c := &crew{copier: k, readers: readers, look: k.look}
	all, err := c.divide(ctx, tables)
	if err != nil {
		return err
	}
	for range readers {
		l, err := k.openLoader(ctx)
		if err != nil {
			return err
		}
		defer l.conn.Close()
		c.loaders = append(c.loaders, l)
	}
	g, working := errgroup.WithContext(ctx)
	for i := range readers {
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
	shares := share(tables, len(c.readers), cmp.Or(c.chunkBytes, chunkBytes))
	for _, t := range tables {
		if t.sequence {
			if err := c.copySequence(ctx, t); err != nil {
				return nil, fmt.Errorf("copy sequence %s: %w", t.name, err)
			}
			continue
		}
		f := &filling{table: t}
		if f.plan, err = planOf(t); err != nil {
			return nil, err
		}
		_, f.keys, f.foreign = bare(t.ddl)
		conditions := []string{""}
		if n := shares[t.name]; n > 1 {
			if conditions, err = chunks(ctx, c.readers[0], t, n); err != nil {
				return nil, fmt.Errorf("divide table %s: %w", t.name, c.active.explain(ctx, err))
			}
		}
		f.parts = len(conditions)
		for _, where := range conditions {
			c.parts = append(c.parts, part{f, where})
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
		rows, err := c.copyPart(ctx, c.readers[i], c.loaders[i], p)
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
			if hasNumber(err, errTableChanged, errNoSuchTable) {
				err = fmt.Errorf("%w: %w", errChanged, err)
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
	c.opt.Event.Emit(event.Event{Kind: event.Progress, Step: "capture", Name: c.opt.Name, Items: n.Rows, Bytes: n.Bytes})
}

// copyPart copies the rows of one part and returns how many they are.
func (c *crew) copyPart(ctx context.Context, reader *sql.Conn, l *loader, p part) (int64, error) {
	// Returning to a savepoint lets go of the table. Otherwise whoever alters it
	// on the active would wait for the end of the capture, and everybody else
	// for him.
	if err := execAll(ctx, reader, "SAVEPOINT tables"); err != nil {
		return 0, c.active.explain(ctx, err)
	}
	query := p.plan.query
	if p.where != "" {
		query += " WHERE " + p.where
	}
	rows, err := reader.QueryContext(ctx, query)
	if err != nil {
		return 0, c.active.explain(ctx, err)
	}
	defer rows.Close()
	src := newRowSource(rows, p.plan, func(rows, bytes int64) { c.moved(p.name, rows, bytes) })
	if err := l.load(ctx, p.plan, src); err != nil {
		var read *readError
		if errors.As(err, &read) {
			return 0, c.active.explain(ctx, read.err)
		}
		return 0, err
	}
	if err := rows.Close(); err != nil {
		return 0, c.active.explain(ctx, err)
	}
	if err := remarks(ctx, reader, "the active", 0); err != nil {
		return 0, c.active.explain(ctx, err)
	}
	if err := execAll(ctx, reader, "ROLLBACK TO SAVEPOINT tables"); err != nil {
		return 0, c.active.explain(ctx, err)
	}
	return src.count, c.unchanged(ctx, p.table)
}

// unchanged says whether a table is still defined as it was in the snapshot.
// Not every change of one makes reading it fail.
func (c *crew) unchanged(ctx context.Context, t table) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ddl, err := readDDL(ctx, c.look, t)
	if err != nil {
		return c.active.explain(ctx, err)
	}
	if shape(ddl) != shape(t.ddl) {
		return fmt.Errorf("%w: table %s", errChanged, t.name)
	}
	return nil
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
