package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strconv"
	"strings"

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
	defer c.e.settle()
	if err := c.e.publish(ctx, c.g); err != nil {
		return fmt.Errorf("publish database %s: %w", c.e.opt.Name, err)
	}
	return nil
}

func (c *captured) Discard(ctx context.Context) error {
	defer c.e.settle()
	where, err := "", c.e.beAlone(ctx)
	if err == nil {
		where, err = c.where(ctx)
	}
	if errors.Is(err, errGone) || err == nil && where != c.e.stagingName() {
		return nil
	}
	if err == nil {
		err = c.e.dropStaging(ctx)
	}
	if err != nil {
		return fmt.Errorf("discard the capture of database %s: %w", c.e.opt.Name, err)
	}
	return nil
}

var errGone = errors.New("the captured database is no longer on the standby")

// where returns the schema that holds the generation's tables now.
func (c *captured) where(ctx context.Context) (string, error) {
	conn, err := c.e.standby.session(ctx, "")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	for _, name := range []string{c.e.stagingName(), c.e.opt.Name} {
		g, err := readMarker(ctx, conn, name, c.e.opt.Name)
		if err != nil {
			return "", c.e.standby.explain(ctx, err)
		}
		if g != nil && g.ID == c.g.ID {
			return name, nil
		}
	}
	return "", errGone
}

func (c *captured) Refs(ctx context.Context, query string) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) {
		where, err := c.where(ctx)
		if err != nil {
			yield(blob.Ref{}, err)
			return
		}
		refs(ctx, c.e, c.e.askIn(where), query, yield)
	}
}

func (c *captured) Strings(ctx context.Context, query, arg string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		where, err := c.where(ctx)
		if err != nil {
			yield("", err)
			return
		}
		joined(ctx, c.e, c.e.askIn(where), query, arg, yield)
	}
}

// Visible opens the visible schema, if drsync has published it.
func (e *Engine) Visible(ctx context.Context) (dbrepl.View, error) {
	defer e.settle()
	if _, err := e.visible(ctx); err != nil {
		return nil, fmt.Errorf("open database %s: %w", e.opt.Name, err)
	}
	return &visible{e}, nil
}

func (e *Engine) visible(ctx context.Context) (*generation, error) {
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	g, err := readMarker(ctx, c, e.opt.Name, e.opt.Name)
	if err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	if g == nil {
		return nil, dbrepl.ErrNoDatabase
	}
	return g, nil
}

type visible struct{ e *Engine }

var _ dbrepl.View = (*visible)(nil)

func (v *visible) Close() error { return nil }

func (v *visible) Refs(ctx context.Context, query string) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) { refs(ctx, v.e, v.e.askIn(v.e.opt.Name), query, yield) }
}

func (v *visible) Strings(ctx context.Context, query, arg string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { joined(ctx, v.e, v.e.askIn(v.e.opt.Name), query, arg, yield) }
}

// refs runs a query that names blobs. It is wrapped so that the server sorts by
// the bytes of the name, whatever the column's collation; the wrapper also
// refuses a query without exactly two columns.
func refs(ctx context.Context, e *Engine, on asked, query string, yield func(blob.Ref, error) bool) {
	fail := func(err error) {
		yield(blob.Ref{}, fmt.Errorf("list blobs of database %s: %w", e.opt.Name, on.server.explain(ctx, err)))
	}
	wrapped, err := on.wrap(ctx, trim(query))
	if err != nil {
		fail(err)
		return
	}
	rows, done, err := on.ask(ctx, wrapped)
	if err != nil {
		fail(err)
		return
	}
	defer done()
	var name, last string
	var n, size sql.NullString
	for rows.Next() {
		if ctx.Err() != nil {
			break
		}
		if err := rows.Scan(&n, &size); err != nil {
			fail(err)
			return
		}
		name = n.String
		if name < last {
			fail(fmt.Errorf("the server sorts %q after %q", name, last))
			return
		}
		last = name
		ref := blob.Ref{Sum: blob.Sum(name)}
		if size.Valid {
			ref.Size, err = strconv.ParseInt(size.String, 10, 64)
			if err != nil {
				fail(fmt.Errorf("blob %q has the length %q", name, size.String))
				return
			}
		}
		if !yield(ref, nil) {
			return
		}
	}
	if err := cmp.Or(rows.Err(), ctx.Err()); err != nil {
		fail(err)
	}
}

// wrap returns the query that sorts the rows of a query with two columns.
func (a asked) wrap(ctx context.Context, query string) (string, error) {
	if !question.MatchString(query) {
		return "", errNoQuestion
	}
	name, size, from := "name", "size", "refs"
	if !a.server.noCTE.Load() {
		query = "WITH refs (name, size) AS (\n" + query + "\n) "
	} else {
		columns, err := a.columns(ctx, query)
		if err != nil {
			return "", err
		}
		if len(columns) != 2 {
			return "", fmt.Errorf("the query has %d columns instead of a name and a length", len(columns))
		}
		name, size = quote(columns[0]), quote(columns[1])
		from, query = "(\n"+query+"\n) refs", ""
	}
	text := "CONVERT(" + name + " USING utf8mb4)"
	return query + "SELECT " + text + " n, " + size + " s FROM " + from + " ORDER BY CAST(" + text + " AS BINARY)", nil
}

// columns returns the names of a query's columns, without running it.
func (a asked) columns(ctx context.Context, query string) ([]string, error) {
	rows, done, err := a.ask(ctx, "SELECT * FROM (\n"+query+"\n) refs LIMIT 0")
	if err != nil {
		return nil, err
	}
	defer done()
	return rows.Columns()
}

// joined runs a query with one parameter and yields each row as one string.
func joined(ctx context.Context, e *Engine, on asked, query, arg string, yield func(string, error) bool) {
	fail := func(err error) {
		yield("", fmt.Errorf("ask database %s: %w", e.opt.Name, on.server.explain(ctx, err)))
	}
	rows, done, err := on.ask(ctx, trim(query), arg)
	if err != nil {
		fail(err)
		return
	}
	defer done()
	names, err := rows.Columns()
	if err != nil {
		fail(err)
		return
	}
	values := make([]sql.NullString, len(names))
	dest := make([]any, len(names))
	parts := make([]string, len(names))
	for i := range values {
		dest[i] = &values[i]
	}
	for rows.Next() {
		if ctx.Err() != nil {
			break
		}
		if err := rows.Scan(dest...); err != nil {
			fail(err)
			return
		}
		for i, v := range values {
			parts[i] = v.String
		}
		if !yield(strings.Join(parts, "/"), nil) {
			return
		}
	}
	if err := cmp.Or(rows.Err(), ctx.Err()); err != nil {
		fail(err)
	}
}

// question is how a query that only asks begins. A transaction that is read only
// does not keep a server from creating tables.
var question = regexp.MustCompile(`(?i)^[\s(]*(SELECT|WITH)\b`)

func trim(query string) string { return strings.TrimRight(strings.TrimSpace(query), "; \t\n") }

var errNoQuestion = errors.New("the query does not begin with SELECT or WITH")

// asked is a database that questions are put to.
type asked struct {
	server *server
	// ask runs a query that only asks. done ends it.
	ask func(ctx context.Context, query string, args ...any) (rows *sql.Rows, done func(), err error)
}

// askIn asks a schema of the standby.
func (e *Engine) askIn(schemaName string) asked {
	return asked{e.standby, func(ctx context.Context, query string, args ...any) (*sql.Rows, func(), error) {
		return e.ask(ctx, schemaName, query, args...)
	}}
}

// ask runs a configured query on the standby, in a transaction that can write
// nothing. done ends it.
func (e *Engine) ask(ctx context.Context, schemaName, query string, args ...any) (rows *sql.Rows, done func(), err error) {
	if !question.MatchString(query) {
		return nil, nil, errNoQuestion
	}
	c, err := e.standby.session(ctx, schemaName)
	if err != nil {
		return nil, nil, err
	}
	tx, err := c.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	end := func() {
		_ = tx.Rollback() // nothing was written
		c.Close()
	}
	rows, err = tx.QueryContext(ctx, query, args...)
	if err != nil {
		end()
		return nil, nil, err
	}
	return rows, func() {
		rows.Close()
		end()
	}, nil
}

// askAtOnce is how many blobs one statement asks the active about.
const askAtOnce = 64

// StillNamed asks the active which blobs it names now.
func (e *Engine) StillNamed(ctx context.Context, query string, sums []blob.Sum) (map[blob.Sum]bool, error) {
	defer e.settle()
	named := make(map[blob.Sum]bool, len(sums))
	fail := func(err error) (map[blob.Sum]bool, error) {
		return nil, fmt.Errorf("ask the active database %s: %w", e.opt.Name, e.active.explain(ctx, err))
	}
	if len(sums) == 0 {
		return named, nil
	}
	c, err := e.active.session(ctx, e.opt.Name)
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	exists := "EXISTS (\n" + trim(query) + "\n)"
	for len(sums) > 0 {
		some := sums[:min(askAtOnce, len(sums))]
		sums = sums[len(some):]
		args := make([]any, len(some))
		answers := make([]bool, len(some))
		dest := make([]any, len(some))
		for i, s := range some {
			args[i], dest[i] = string(s), &answers[i]
		}
		statement := "SELECT " + strings.TrimSuffix(strings.Repeat(exists+", ", len(some)), ", ")
		if err := c.QueryRowContext(ctx, statement, args...).Scan(dest...); err != nil {
			return fail(err)
		}
		for i, s := range some {
			named[s] = answers[i]
		}
	}
	return named, nil
}
