package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// activeRows is the active as an origin: each worker has a session that sees
// its schema as of one point.
type activeRows struct {
	*copier
	readers []*sql.Conn

	asking sync.Mutex // of the session that sees the active as it is now
}

var _ origin = (*activeRows)(nil)

func (a *activeRows) workers() int { return len(a.readers) }

// state returns where a sequence is now: it takes no part in transactions, and
// one that is further never gives a number twice.
func (a *activeRows) state(ctx context.Context, t table) ([]int64, error) {
	r, err := one(ctx, a.look, "SELECT next_not_cached_value a, minimum_value b, maximum_value c, start_value d, `increment` e, cache_size f, cycle_option g, cycle_count h FROM "+quote(t.name))
	if err != nil {
		return nil, a.active.explain(ctx, err)
	}
	var values []int64
	for _, name := range strings.Split("abcdefgh", "") {
		n, err := strconv.ParseInt(r.get(name), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("its state: %w", err)
		}
		values = append(values, n)
	}
	return values, nil
}

func (a *activeRows) divide(ctx context.Context, t table, n int) ([]part, error) {
	conditions := []string{""}
	if n > 1 {
		err := execAll(ctx, a.readers[0], "SAVEPOINT tables")
		if err == nil {
			conditions, err = chunks(ctx, a.readers[0], t, n)
		}
		if err == nil { // or the table would not be let go of until the end
			err = execAll(ctx, a.readers[0], "ROLLBACK TO SAVEPOINT tables")
		}
		if err != nil {
			return nil, a.active.explain(ctx, err)
		}
	}
	parts := make([]part, len(conditions))
	for i, where := range conditions {
		parts[i].where = where
	}
	return parts, nil
}

func (a *activeRows) read(ctx context.Context, i int, p part, load func(rowReader) error) error {
	err := a.readPart(ctx, a.readers[i], p, load)
	if hasNumber(err, errTableChanged, errNoSuchTable) {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	return err
}

func (a *activeRows) readPart(ctx context.Context, reader *sql.Conn, p part, load func(rowReader) error) error {
	// Returning to a savepoint lets go of the table. Otherwise whoever alters it
	// on the active would wait for the end of the capture, and everybody else
	// for him.
	if err := execAll(ctx, reader, "SAVEPOINT tables"); err != nil {
		return a.active.explain(ctx, err)
	}
	where := ""
	if p.where != "" {
		where = " WHERE " + p.where
	}
	rows, err := reader.QueryContext(ctx, p.plan.query+where)
	if err != nil {
		return a.active.explain(ctx, err)
	}
	defer rows.Close()
	selected := newSelected(rows, len(p.plan.send))
	if err := load(selected); err != nil {
		var read *readError
		if errors.As(err, &read) {
			return a.active.explain(ctx, read.err)
		}
		return err
	}
	if err := rows.Close(); err != nil {
		return a.active.explain(ctx, err)
	}
	if err := remarks(ctx, reader, "the active", 0); err != nil {
		return a.active.explain(ctx, err)
	}
	// An answer can end early without a word: by a limit that the session was given,
	// or at a proxy. Sums are not cut.
	if r, err := one(ctx, reader, "SELECT COUNT(*) n FROM "+quote(p.name)+where); err != nil {
		return a.active.explain(ctx, err)
	} else if r.get("n") != strconv.FormatInt(selected.count, 10) {
		return fmt.Errorf("%d rows were read, but the active has %s: something between drsync and its server leaves rows out", selected.count, r.get("n"))
	}
	if a.full != nil {
		now, err := lookFor(ctx, reader, []table{p.table})
		if err == nil {
			err = a.full.still(now)
		}
		if err != nil {
			return a.active.explain(ctx, err)
		}
	}
	if err := a.sameTable(ctx, p.table); err != nil {
		return err
	}
	if err := execAll(ctx, reader, "ROLLBACK TO SAVEPOINT tables"); err != nil {
		return a.active.explain(ctx, err)
	}
	return a.unchanged(ctx, p.table)
}

// sameTable says whether the table that was read is the one that had its name in
// the snapshot. It is asked before the reader lets go of it.
func (a *activeRows) sameTable(ctx context.Context, t table) error {
	a.asking.Lock()
	defer a.asking.Unlock()
	now, _, err := a.lookUpNames(ctx, []table{t})
	if err != nil {
		return err
	}
	return a.names.same(now, t.name)
}

// unchanged says whether a table is still defined as it was in the snapshot.
// Not every change of one makes reading it fail.
func (a *activeRows) unchanged(ctx context.Context, t table) error {
	a.asking.Lock()
	defer a.asking.Unlock()
	ddl, err := readDDL(ctx, a.look, t)
	if err != nil {
		return a.active.explain(ctx, err)
	}
	if shape(ddl) != shape(t.ddl) {
		return fmt.Errorf("%w: table %s", errChanged, t.name)
	}
	return nil
}

// selected is the answer to a query as a rowReader.
type selected struct {
	rows  *sql.Rows
	raw   []sql.RawBytes
	dest  []any
	count int64 // of rows so far
}

func newSelected(rows *sql.Rows, columns int) *selected {
	s := &selected{rows: rows, raw: make([]sql.RawBytes, columns)}
	for i := range s.raw {
		s.dest = append(s.dest, &s.raw[i])
	}
	return s
}

func (s *selected) next() ([]sql.RawBytes, error) {
	if !s.rows.Next() {
		if err := s.rows.Err(); err != nil {
			return nil, err
		}
		return nil, io.EOF
	}
	s.count++
	return s.raw, s.rows.Scan(s.dest...)
}
