package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
)

// clearance is the triggers and views that the visible generation had before a publish
// dropped some of them to make way for a RENAME. It is noted in the schema prev, so that
// a recovery which finds no capture any more can make the old generation whole again,
// also one that replication or somebody else has made.
type clearance struct {
	Visible string   `json:"visible"` // the generation, "" when it is not drsync's
	Objects []object `json:"objects"`
}

// The note is whole when it has its last name.
const (
	clearedTable  = "drsync_cleared"
	clearingTable = "drsync_clearing"
)

func idOf(g *generation) string {
	if g == nil {
		return ""
	}
	return g.ID
}

// noteCleared notes the triggers and views of the visible schema, if any of them is
// about to be dropped; nil is that none is.
func (p *publisher) noteCleared(ctx context.Context, visible *generation) (*clearance, error) {
	all, err := readObjects(ctx, p.conn, p.opt.Name)
	if err != nil {
		return nil, err
	}
	c := &clearance{Visible: idOf(visible)}
	goes := false
	for _, o := range all {
		if o.Kind == "TRIGGER" || o.Kind == "VIEW" {
			if o.SQL != "" { // none of drsync's: those can be read
				c.Objects = append(c.Objects, o)
			}
			goes = goes || o.Kind == "TRIGGER" || p.inTheWay(o.Name)
		}
	}
	if !goes {
		return nil, nil
	}
	note, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	clearing, cleared := quote(p.prevName())+"."+quote(clearingTable), quote(p.prevName())+"."+quote(clearedTable)
	for _, s := range []string{
		"CREATE TABLE " + clearing + " (note LONGTEXT NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='what a publish took from the generation before'",
		"INSERT INTO " + clearing + " VALUES (" + text(string(note)) + ")",
		"RENAME TABLE " + clearing + " TO " + cleared, // which makes the row durable, whatever the server's settings
	} {
		if err := p.do(ctx, s); err != nil {
			return nil, fmt.Errorf("note what goes before the tables: %w", err)
		}
	}
	return c, nil
}

// readCleared returns what an earlier publish noted of the generation that is still
// the visible one; nil if there is no such note.
func (p *publisher) readCleared(ctx context.Context, visible *generation) (*clearance, error) {
	all, err := records(ctx, p.conn, "SELECT note FROM "+quote(p.prevName())+"."+quote(clearedTable))
	if hasNumber(err, errNoSuchTable, errNoSuchDatabase) || err == nil && len(all) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("what an earlier publish took: %w", err)
	}
	var c clearance
	if err := json.Unmarshal([]byte(all[0].get("note")), &c); err != nil {
		return nil, fmt.Errorf("what an earlier publish took: %w", err)
	}
	if c.Visible != idOf(visible) {
		return nil, nil // that one has been replaced
	}
	return &c, nil
}

// putBack makes what was cleared again, when the rename did not come to pass.
func (p *publisher) putBack(ctx context.Context, c *clearance) error {
	if c == nil {
		return nil
	}
	if err := execAll(ctx, p.conn, "USE "+quote(p.opt.Name)); err != nil {
		return err
	}
	r, err := one(ctx, p.conn, "SELECT @@collation_database co")
	if err != nil {
		return err
	}
	now, err := readObjects(ctx, p.conn, p.opt.Name)
	if err != nil {
		return err
	}
	for _, o := range c.Objects {
		if !slices.Contains(now, o) {
			if err := o.create(func(s string) error { return p.do(ctx, s) }, p.opt.Name, r.get("co")); err != nil {
				return fmt.Errorf("put %s back: %w", o, err)
			}
		}
	}
	return nil
}
