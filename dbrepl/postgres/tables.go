package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// table is one that holds rows of its own: not a parent of partitions, not a
// view, and nothing that an extension makes by itself.
type table struct {
	OID    uint32
	Schema string
	Name   string
	Size   int64 // bytes, of the table without its indexes
}

func (t table) String() string { return t.Schema + "." + t.Name }
func (t table) quoted() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

// readTables lists the tables of the session's database that a dump holds rows
// of, the biggest first. A replica has nothing of unlogged ones.
func readTables(ctx context.Context, c querier) ([]table, error) {
	rows, err := c.Query(ctx, `SELECT c.oid, n.nspname::text, c.relname::text, pg_table_size(c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
			AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
		ORDER BY 4 DESC, 2, 3`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[table])
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// content is how many rows a table has and, where sums were asked for, the sum
// of a 64-bit hash of each.
type content struct {
	Rows int64
	Sum  string
}

// contents are those of a database's tables by name.
type contents map[string]content

// largeObjects is the name under which large objects are counted. No table has
// it: a table's has a dot.
const largeObjects = "large objects"

// count looks at one table.
func (t table) count(ctx context.Context, c querier, sums bool) (n content, err error) {
	what := "count(*), ''"
	if sums {
		// The text of a whole row, which tells NULL from the empty string and where
		// a column ends.
		what = `count(*), coalesce(sum(hashtextextended((t.*)::text COLLATE "C", 0)), 0)::text`
	}
	err = c.QueryRow(ctx, "SELECT "+what+" FROM ONLY "+t.quoted()+" t").Scan(&n.Rows, &n.Sum)
	if err != nil {
		return n, fmt.Errorf("count table %s: %w", t, err)
	}
	return n, nil
}

// countLargeObjects counts the large objects; sums are of their contents, by the
// function that an ordinary account may use, which takes up to 1 GB for each.
func countLargeObjects(ctx context.Context, c querier, sums bool) (n content, err error) {
	query := "SELECT count(*), '' FROM pg_largeobject_metadata"
	if sums {
		query = `SELECT count(*), coalesce(sum(hashtextextended(oid || '.' || encode(sha256(lo_get(oid)), 'hex'), 0)), 0)::text FROM pg_largeobject_metadata`
	}
	if err = c.QueryRow(ctx, query).Scan(&n.Rows, &n.Sum); err != nil {
		return n, fmt.Errorf("count large objects: %w", err)
	}
	return n, nil
}

// countAll looks at tables and large objects over several sessions.
func countAll(ctx context.Context, sessions []querier, tables []table, sums bool) (contents, error) {
	queue := make(chan table, len(tables))
	for _, t := range tables {
		queue <- t
	}
	close(queue)
	parts := make([]contents, len(sessions))
	work, ctx := errgroup.WithContext(ctx)
	for i, c := range sessions {
		parts[i] = make(contents)
		work.Go(func() error {
			if i == 0 {
				n, err := countLargeObjects(ctx, c, sums)
				if err != nil {
					return err
				}
				parts[i][largeObjects] = n
			}
			for t := range queue {
				n, err := t.count(ctx, c, sums)
				if err != nil {
					return err
				}
				parts[i][t.String()] = n
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	all := make(contents)
	for _, p := range parts {
		maps.Copy(all, p)
	}
	return all, nil
}

// rows is how many rows the tables have together.
func (c contents) rows() (n int64) {
	for name, t := range c {
		if name != largeObjects {
			n += t.Rows
		}
	}
	return n
}

// tables is how many tables there are.
func (c contents) tables() int { return len(c) - 1 }

// names are those of all tables of two databases, in order.
func names(a, b contents) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

// differences says in which tables the standby's contents are not the active's.
func (c contents) differences(standby contents) []string {
	var all []string
	for _, name := range names(c, standby) {
		a, onActive := c[name]
		s, onStandby := standby[name]
		switch {
		case !onStandby:
			all = append(all, name+" is missing on the standby")
		case !onActive:
			all = append(all, name+" is only on the standby")
		case a.Rows != s.Rows:
			all = append(all, fmt.Sprintf("%s has %d rows on the active and %d on the standby", name, a.Rows, s.Rows))
		case a.Sum != s.Sum:
			all = append(all, fmt.Sprintf("%s has other contents on the standby, in %d rows", name, a.Rows))
		}
	}
	return all
}

// sessions opens up to n sessions in a database of a server: fewer where the
// server or the database admits no more, but one. done ends them.
func (s *server) sessions(ctx context.Context, database string, n int) (all []*pgx.Conn, done func(), err error) {
	done = func() {
		for _, c := range all {
			end(c)
		}
	}
	for range n {
		c, err := s.connect(ctx, database)
		if hasCode(err, codeTooMany) && len(all) > 0 {
			break
		}
		if err != nil {
			done()
			return nil, nil, err
		}
		all = append(all, c)
	}
	return all, done, nil
}

func queriers(all []*pgx.Conn) []querier {
	out := make([]querier, len(all))
	for i, c := range all {
		out[i] = c
	}
	return out
}

// look counts and, if sums is set, sums up a database of the standby, and
// brings its statistics up to date if analyze is set.
func (e *Engine) look(ctx context.Context, database string, sums, analyze bool) (contents, error) {
	all, done, err := e.standby.sessions(ctx, database, e.opt.Jobs)
	if err != nil {
		return nil, err
	}
	defer done()
	tables, err := readTables(ctx, all[0])
	if err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	found, err := countAll(ctx, queriers(all), tables, sums)
	if err == nil && analyze {
		err = analyzeAll(ctx, all, tables)
	}
	return found, e.standby.explain(ctx, err)
}

// analyzeAll makes the statistics without which an application that has just
// been switched over is slow. A table that the server itself is cleaning all the
// while is left to it.
func analyzeAll(ctx context.Context, sessions []*pgx.Conn, tables []table) error {
	queue := make(chan table, len(tables))
	for _, t := range tables {
		queue <- t
	}
	close(queue)
	work, ctx := errgroup.WithContext(ctx)
	for _, c := range sessions {
		work.Go(func() error {
			for t := range queue {
				if _, err := c.Exec(ctx, "ANALYZE "+t.quoted()); err != nil && !hasCode(err, codeLockNotAvailable) {
					return fmt.Errorf("analyze table %s: %w", t, err)
				}
			}
			return nil
		})
	}
	return work.Wait()
}
