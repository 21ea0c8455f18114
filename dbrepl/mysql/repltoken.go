package mysql

import (
	"encoding/json"
	"errors"

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
	return dbrepl.EncodeToken(t)
}

func parseReplicaToken(data dbrepl.Token, name string) (replicaToken, *generation, error) {
	var t replicaToken
	if err := dbrepl.DecodeToken(data, dbrepl.TokenHead{Format: tokenFormat, Engine: replicaEngine}, &t); err != nil {
		return t, nil, err
	}
	g, err := parseToken(dbrepl.Token(t.Generation), name)
	if err == nil && gtidOf(g.Point.Position) == "" {
		err = errors.New("the record of the publish names no GTID")
	}
	return t, g, err
}
