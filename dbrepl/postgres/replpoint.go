package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/durable"
)

// replicaPoint says up to where a cluster's log goes. It lies in the cluster's
// directory and moves with it, and it is the engine's Token.
type replicaPoint struct {
	Format  int           `json:"format"`
	Engine  string        `json:"engine"`
	Name    string        `json:"name"`
	ID      string        `json:"id"`
	Point   dbrepl.Point  `json:"point"`
	Counts  dbrepl.Counts `json:"counts"`
	History history       `json:"history"`
	End     string        `json:"end"` // where the log ends

	end lsn
}

const (
	replicaEngine = "postgres-replication"
	pointFile     = "drsync.json"
)

func (p *replicaPoint) token() dbrepl.Token {
	p.End = p.end.String()
	data, err := json.Marshal(p)
	if err != nil {
		panic("internal error: " + err.Error()) // it has no types that cannot be encoded
	}
	return data
}

func parseReplicaPoint(t dbrepl.Token, name string) (*replicaPoint, error) {
	var p replicaPoint
	if err := json.Unmarshal(t, &p); err != nil {
		return nil, fmt.Errorf("the record of the publish: %w", err)
	}
	switch {
	case p.Engine != replicaEngine:
		return nil, fmt.Errorf("the record of the publish is of the engine %q, not %q", p.Engine, replicaEngine)
	case p.Format != tokenFormat:
		return nil, fmt.Errorf("the record of the publish has format %d; this drsync knows %d", p.Format, tokenFormat)
	case p.Name != name:
		return nil, fmt.Errorf("the record of the publish is of the database %q, not %q", p.Name, name)
	case p.ID == "":
		return nil, errors.New("the record of the publish is incomplete")
	}
	var err error
	if p.end, err = parseLSN(p.End); err == nil {
		err = p.History.valid()
	}
	if err != nil {
		return nil, fmt.Errorf("the record of the publish: %w", err)
	}
	return &p, nil
}

// point returns what drsync says of the cluster, or nil if it says nothing.
func (c cluster) point(name string) (*replicaPoint, error) {
	data, err := c.read(pointFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := parseReplicaPoint(data, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.path(pointFile), err)
	}
	return p, nil
}

// mark makes the cluster known as being at p.
func (c cluster) mark(o owner, p *replicaPoint) error {
	if err := durable.WriteFile(c.path(pointFile), p.token(), 0o600); err != nil {
		return err
	}
	return o.own(c.path(pointFile))
}

func (c cluster) unmark() error {
	if ok, err := c.exists(); err != nil || !ok {
		return err
	}
	return durable.Remove(c.path(pointFile))
}
