package postgres

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/durable"
	"github.com/drsync/drsync/internal/hint"
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
	return dbrepl.EncodeToken(p)
}

func parseReplicaPoint(t dbrepl.Token, name string) (*replicaPoint, error) {
	var p replicaPoint
	err := dbrepl.DecodeToken(t, dbrepl.TokenHead{Format: tokenFormat, Engine: replicaEngine, Name: name}, &p)
	if err != nil {
		return nil, err
	}
	if p.ID == "" {
		return nil, errors.New("the record of the publish is incomplete")
	}
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
		return nil, hint.With(fmt.Errorf("%s: %w", c.path(pointFile), err), "another version of drsync wrote it, or it is damaged: move "+c.dir+" away, with its server stopped, and the next run copies the active's server anew")
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
