package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
)

// captured is a generation on the standby, published or not.
type captured struct {
	e *Engine
	g *generation
}

var _ dbrepl.Captured = (*captured)(nil)

func (c *captured) Point() dbrepl.Point   { return c.g.Point }
func (c *captured) Counts() dbrepl.Counts { return c.g.Counts }
func (c *captured) Token() dbrepl.Token   { return c.g.token() }
func (c *captured) Close() error          { return nil }

func (c *captured) Publish(ctx context.Context) error {
	if err := interrupted(ctx); err != nil {
		return c.e.failed("publish", err)
	}
	return c.e.failed("publish", c.e.publish(ctx, c.g))
}

func (c *captured) Discard(ctx context.Context) error {
	where, err := c.where(ctx)
	switch {
	case errors.Is(err, errGone) || err == nil && where != c.e.stagingName():
		return nil
	case err == nil:
		if err = c.e.claim(ctx); err == nil {
			err = c.e.dropStaging(ctx)
		}
	}
	return c.e.failed("discard the capture of", err)
}

var errGone = errors.New("the captured database is no longer on the standby")

// where returns the database that holds the generation now.
func (c *captured) where(ctx context.Context) (string, error) {
	conn, err := c.e.standby.connect(ctx, c.e.opt.Maintenance)
	if err != nil {
		return "", err
	}
	defer end(conn)
	found, err := c.e.generations(ctx, conn)
	if err != nil {
		return "", c.e.standby.explain(ctx, err)
	}
	for _, name := range []string{c.e.stagingName(), c.e.opt.Name} {
		if found.holds(name, c.g) {
			return name, nil
		}
	}
	return "", errGone
}

func (c *captured) Refs(ctx context.Context, query string) iter.Seq2[blob.Ref, error] {
	return c.e.refs(ctx, c.where, query)
}

func (c *captured) Strings(ctx context.Context, query, arg string) iter.Seq2[string, error] {
	return c.e.strings(ctx, c.where, query, arg)
}

// Visible opens the visible database, if drsync has published it.
func (e *Engine) Visible(ctx context.Context) (dbrepl.View, error) {
	if err := interrupted(ctx); err != nil {
		return nil, e.failed("open", err)
	}
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return nil, e.failed("open", err)
	}
	defer end(c)
	found, err := e.generations(ctx, c)
	if err == nil && found[e.opt.Name] == nil {
		err = dbrepl.ErrNoDatabase
	}
	if err != nil {
		return nil, e.failed("open", e.standby.explain(ctx, err))
	}
	return &visible{e}, nil
}

type visible struct{ e *Engine }

var _ dbrepl.View = (*visible)(nil)

func (v *visible) Close() error { return nil }

func (v *visible) where(context.Context) (string, error) { return v.e.opt.Name, nil }

func (v *visible) Refs(ctx context.Context, query string) iter.Seq2[blob.Ref, error] {
	return v.e.refs(ctx, v.where, query)
}

func (v *visible) Strings(ctx context.Context, query, arg string) iter.Seq2[string, error] {
	return v.e.strings(ctx, v.where, query, arg)
}

// finder says which database of the standby a question is for.
type finder func(context.Context) (string, error)

// refs runs a query that names blobs. It is wrapped so that the server sorts by
// the bytes of the name, whatever the column's collation.
func (e *Engine) refs(ctx context.Context, where finder, query string) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) {
		fail := func(err error) {
			yield(blob.Ref{}, fmt.Errorf("list blobs of database %s: %w", e.opt.Name, err))
		}
		wrapped := "WITH refs (name, size) AS (\n" + trim(query) + "\n) SELECT name::text, size::text FROM refs ORDER BY name::text COLLATE \"C\" NULLS FIRST"
		q := question{text: query, run: wrapped, columns: 2}
		last := ""
		for row, err := range e.ask(ctx, where, q) {
			if err != nil {
				fail(err)
				return
			}
			ref := blob.Ref{Sum: blob.Sum(row[0])}
			if string(row[0]) < last {
				fail(fmt.Errorf("the server sorts %q after %q", row[0], last))
				return
			}
			last = string(row[0])
			if row[1] != nil {
				if ref.Size, err = strconv.ParseInt(string(row[1]), 10, 64); err != nil {
					fail(fmt.Errorf("blob %q has the length %q", row[0], row[1]))
					return
				}
			}
			if !yield(ref, nil) {
				return
			}
		}
	}
}

// strings runs a query with one parameter and yields each row as one string.
func (e *Engine) strings(ctx context.Context, where finder, query, arg string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		fail := func(err error) { yield("", fmt.Errorf("ask database %s: %w", e.opt.Name, err)) }
		numbered, err := numberParameter(trim(query), 1)
		if err != nil {
			fail(err)
			return
		}
		for row, err := range e.ask(ctx, where, question{text: query, run: numbered, args: []any{arg}}) {
			if err != nil {
				fail(err)
				return
			}
			parts := make([]string, len(row))
			for i, v := range row {
				parts[i] = string(v)
			}
			if !yield(strings.Join(parts, "/"), nil) {
				return
			}
		}
	}
}

// asks is how a query that only asks begins.
var asks = regexp.MustCompile(`(?i)^[\s(]*(SELECT|WITH)\b`)

func trim(query string) string { return strings.TrimRight(strings.TrimSpace(query), "; \t\n") }

// question is a configured query and how it is run.
type question struct {
	text    string // as configured
	run     string
	args    []any
	columns int // that text must have; 0 is any number
}

// ask runs a configured query on the standby, in a transaction that can write
// nothing, and yields its rows as texts, which are only good until the next.
func (e *Engine) ask(parent context.Context, where finder, q question) iter.Seq2[[][]byte, error] {
	return func(yield func([][]byte, error) bool) {
		ctx, cancel := context.WithCancel(parent) // a list that is not read to its end must not be sent to its end
		defer cancel()
		fail := func(err error) { yield(nil, e.standby.explain(parent, err)) }
		if !asks.MatchString(q.text) {
			fail(errors.New("the query does not begin with SELECT or WITH"))
			return
		}
		database, err := where(ctx)
		if err != nil {
			fail(err)
			return
		}
		ctx, stop := e.standby.guard(ctx, e.opt.Maintenance)
		defer stop()
		c, err := e.standby.connect(ctx, database)
		if err != nil {
			fail(err)
			return
		}
		defer end(c)
		rows, err := begin(ctx, c, q)
		if err != nil {
			fail(err)
			return
		}
		defer cancel() // before the session ends, which would read what is left
		for rows.Next() {
			if parent.Err() != nil {
				break
			}
			if !yield(rows.RawValues(), nil) {
				return
			}
		}
		if err := cmp.Or(rows.Err(), ctx.Err()); err != nil {
			yield(nil, e.standby.explain(ctx, err))
		}
	}
}

// begin starts a question in a transaction that is read only.
func begin(ctx context.Context, c *pgx.Conn, q question) (pgx.Rows, error) {
	if err := usePath(ctx, c, q.text); err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, "BEGIN READ ONLY"); err != nil {
		return nil, err
	}
	if q.columns > 0 {
		described, err := c.Prepare(ctx, "question", trim(q.text))
		if err != nil {
			return nil, err
		}
		if n := len(described.Fields); n != q.columns {
			return nil, fmt.Errorf("the query has %d columns, not %d", n, q.columns)
		}
	}
	return c.Query(ctx, q.run, append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, q.args...)...)
}

// askAtOnce is how many blobs one statement asks the active about.
const askAtOnce = 64

// StillNamed asks the active which blobs it names now.
func (e *Engine) StillNamed(ctx context.Context, query string, sums []blob.Sum) (map[blob.Sum]bool, error) {
	named := make(map[blob.Sum]bool, len(sums))
	if len(sums) == 0 {
		return named, nil
	}
	err := e.stillNamed(ctx, query, sums, named)
	if err != nil {
		return nil, e.failed("ask the active", e.active.explain(ctx, err))
	}
	return named, nil
}

func (e *Engine) stillNamed(parent context.Context, query string, sums []blob.Sum, named map[blob.Sum]bool) error {
	if err := interrupted(parent); err != nil {
		return err
	}
	if !asks.MatchString(query) {
		return errors.New("the query does not begin with SELECT or WITH")
	}
	ctx, stop := e.active.guard(parent, e.opt.Name)
	defer stop()
	c, err := e.active.connect(ctx, e.opt.Name)
	if err != nil {
		return err
	}
	defer end(c)
	if err := e.endLost(ctx, c); err != nil {
		return err
	}
	if err := usePath(ctx, c, query); err != nil {
		return err
	}
	for len(sums) > 0 {
		some := sums[:min(askAtOnce, len(sums))]
		sums = sums[len(some):]
		exists := make([]string, len(some))
		args := make([]any, len(some))
		answers := make([]bool, len(some))
		dest := make([]any, len(some))
		for i, s := range some {
			numbered, err := numberParameter(trim(query), i+1)
			if err != nil {
				return err
			}
			exists[i] = "EXISTS (\n" + numbered + "\n)"
			args[i], dest[i] = string(s), &answers[i]
		}
		if err := c.QueryRow(ctx, "SELECT "+strings.Join(exists, ", "), args...).Scan(dest...); err != nil {
			return err
		}
		for i, s := range some {
			named[s] = answers[i]
		}
	}
	return nil
}
