package mysql

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/drsync/drsync/dbrepl"
)

// replicaToken is the Token of a Replica: a copy to be published, or a point
// to be applied up to.
type replicaToken struct {
	Format     int             `json:"format"`
	Engine     string          `json:"engine"`
	Seed       bool            `json:"seed"`
	From       string          `json:"from,omitempty"` // the position that was applied when it was captured
	Generation json.RawMessage `json:"generation"`
}

const replicaEngine = "mysql-replication"

func (t replicaToken) token() dbrepl.Token {
	t.Format, t.Engine = tokenFormat, replicaEngine
	data, err := json.Marshal(t)
	if err != nil {
		panic("internal error: " + err.Error()) // it has no types that cannot be encoded
	}
	return data
}

func parseReplicaToken(data dbrepl.Token, name string) (replicaToken, *generation, error) {
	var t replicaToken
	if err := json.Unmarshal(data, &t); err != nil {
		return t, nil, fmt.Errorf("the record of the publish: %w", err)
	}
	switch {
	case t.Engine != replicaEngine:
		return t, nil, fmt.Errorf("the record of the publish is of the engine %q, not %q", t.Engine, replicaEngine)
	case t.Format != tokenFormat:
		return t, nil, fmt.Errorf("the record of the publish has format %d; this drsync knows %d", t.Format, tokenFormat)
	}
	g, err := parseToken(dbrepl.Token(t.Generation), name)
	if err == nil && gtidOf(g.Point.Position) == "" {
		err = errors.New("the record of the publish names no GTID")
	}
	return t, g, err
}
