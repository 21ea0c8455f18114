package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
)

// generation is a captured database: what Publish and Recover do is decided by
// it and by what they find on the standby. It is the engine's Token, and the
// comment of the database that it describes.
type generation struct {
	Format int           `json:"format"`
	Engine string        `json:"engine"`
	Name   string        `json:"name"`
	ID     string        `json:"id"`
	Point  dbrepl.Point  `json:"point"`
	Counts dbrepl.Counts `json:"counts"`
	// ReadOnly is what the active's database says of default_transaction_read_only
	// for its sessions, "" if nothing: Promote brings it back.
	ReadOnly string `json:"read_only,omitempty"`
}

const (
	tokenFormat = 1
	tokenEngine = "postgres-dump"
	// commentPrefix tells the comments that are drsync's, to people too.
	commentPrefix = "drsync snapshot "
)

func (g *generation) token() dbrepl.Token {
	return dbrepl.EncodeToken(g)
}

func parseToken(t dbrepl.Token, name string) (*generation, error) {
	var g generation
	if err := dbrepl.DecodeToken(t, dbrepl.TokenHead{Format: tokenFormat, Engine: tokenEngine, Name: name}, &g); err != nil {
		return nil, err
	}
	if g.ID == "" {
		return nil, errors.New("the record of the publish is incomplete")
	}
	return &g, nil
}

// mark writes the generation into the comment of its database. It is the last
// thing that a capture does: a staging database with a comment is whole.
func mark(ctx context.Context, c *pgx.Conn, name string, g *generation) error {
	_, err := c.Exec(ctx, "COMMENT ON DATABASE "+quote(name)+" IS "+literal(commentPrefix+string(g.token())))
	return err
}

// databases are the generations that databases of the standby hold. One that
// drsync did not make is there with nil.
type databases map[string]*generation

// generations looks at the three databases of the engine.
func (e *Engine) generations(ctx context.Context, c *pgx.Conn) (databases, error) {
	rows, err := c.Query(ctx, `SELECT datname::text, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = ANY ($1)`,
		[]string{e.opt.Name, e.stagingName(), e.prevName()})
	if err != nil {
		return nil, err
	}
	found := make(databases)
	var name, comment string
	_, err = pgx.ForEachRow(rows, []any{&name, &comment}, func() error {
		found[name] = nil
		text, ours := strings.CutPrefix(comment, commentPrefix)
		if !ours {
			return nil
		}
		g, err := parseToken(dbrepl.Token(text), e.opt.Name)
		if err != nil {
			return fmt.Errorf("the comment of database %s: %w", name, err)
		}
		found[name] = g
		return nil
	})
	return found, err
}

// holds says whether a database holds the generation g.
func (d databases) holds(name string, g *generation) bool {
	return d[name] != nil && d[name].ID == g.ID
}
