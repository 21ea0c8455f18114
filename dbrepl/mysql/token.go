package mysql

import (
	"context"
	"fmt"
	"slices"

	"github.com/drsync/drsync/dbrepl"
)

// generation is a captured database: what Publish and Recover do is decided by
// it and by what they find on the standby. It is the engine's Token, and it lies
// in the marker table of the schema that holds its tables.
type generation struct {
	Format    int           `json:"format"`
	Engine    string        `json:"engine"`
	Name      string        `json:"name"`
	ID        string        `json:"id"`
	Point     dbrepl.Point  `json:"point"`
	Counts    dbrepl.Counts `json:"counts"`
	Charset   string        `json:"charset"`
	Collation string        `json:"collation"`
	Tables    []string      `json:"tables"`             // and sequences, without the marker
	Defaults  []string      `json:"defaults,omitempty"` // statements that give columns their default from a sequence
	Objects   []object      `json:"objects,omitempty"`  // in the order in which they can be created; events are disabled
	Events    []string      `json:"events,omitempty"`   // that are enabled on the active
	// Sequences says where the active's were when the point had been captured, of one
	// that is reached by replication.
	Sequences sequences `json:"sequences,omitempty"`
	// Replicated says that the tables are kept up by replication, so that they are
	// at the point only while the server has applied just that.
	Replicated bool `json:"replicated,omitempty"`
}

const (
	tokenFormat = 1
	tokenEngine = "mysql-dump"
)

func (g *generation) token() dbrepl.Token {
	return dbrepl.EncodeToken(g)
}

func parseToken(t dbrepl.Token, name string) (*generation, error) {
	var g generation
	if err := dbrepl.DecodeToken(t, dbrepl.TokenHead{Format: tokenFormat, Engine: tokenEngine, Name: name}, &g); err != nil {
		return nil, err
	}
	if g.ID == "" || g.Charset == "" || g.Collation == "" {
		return nil, fmt.Errorf("the record of the publish is incomplete")
	}
	for _, o := range g.Objects {
		if !slices.Contains(kinds, o.Kind) || o.Name == "" || o.SQL == "" {
			return nil, fmt.Errorf("the record of the publish has an object that is not understood: %s", o)
		}
	}
	for name, s := range g.Sequences {
		if !isNumber(s.Next) || !isNumber(s.Rounds) {
			return nil, fmt.Errorf("the record of the publish has a sequence that is not understood: %s", name)
		}
	}
	return &g, nil
}

// createMarker makes the marker table of the session's default schema. It is
// the last thing that a capture does: a staging schema with a marker is whole.
func createMarker(ctx context.Context, c asker, g *generation) error {
	return execAll(ctx, c,
		"CREATE TABLE "+quote(markerTable)+" (id VARCHAR(64) NOT NULL PRIMARY KEY, format INT NOT NULL, "+
			"generation LONGTEXT NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 "+
			"COMMENT='which snapshot of drsync the tables of this database are'",
		fmt.Sprintf("INSERT INTO %s (id, format, generation) VALUES (%s, %d, %s)", quote(markerTable), text(g.ID), g.Format, text(string(g.token()))))
}

// readMarker returns the generation that a schema holds, or nil if it does not
// exist or was not made by drsync.
func readMarker(ctx context.Context, c asker, schemaName, name string) (*generation, error) {
	all, err := records(ctx, c, "SELECT generation FROM "+quote(schemaName)+"."+quote(markerTable))
	if hasNumber(err, errNoSuchTable, errNoSuchDatabase) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("marker of %s: %w", schemaName, err)
	}
	if len(all) != 1 {
		return nil, nil // its transaction did not come to its end
	}
	g, err := parseToken(dbrepl.Token(all[0].get("generation")), name)
	if err != nil {
		return nil, fmt.Errorf("marker of %s: %w", schemaName, err)
	}
	return g, nil
}
