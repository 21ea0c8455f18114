package mysql

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// fullness says which tables have rows. A server of MySQL shows a table that was
// truncated after a snapshot was taken as an empty one in the snapshot, and says
// nothing (5.7): so a table that had rows must still have some when it was read.
type fullness map[string]bool

// probes is how many tables one statement asks about.
const probes = 64

// lookFor asks which of some tables have rows.
func lookFor(ctx context.Context, c asker, tables []table) (fullness, error) {
	full := make(fullness)
	for len(tables) > 0 {
		some := tables[:min(probes, len(tables))]
		tables = tables[len(some):]
		asked := make([]string, len(some))
		for i, t := range some {
			asked[i] = fmt.Sprintf("EXISTS(SELECT 1 FROM %s) t%d", quote(t.name), i)
		}
		r, err := one(ctx, c, "SELECT "+strings.Join(asked, ", "))
		if err != nil {
			return nil, err
		}
		for i, t := range some {
			full[t.name] = r.get("t"+strconv.Itoa(i)) == "1"
		}
	}
	return full, nil
}

// still makes sure that what had rows before has some now.
func (before fullness) still(now fullness) error {
	for name, full := range now {
		if before[name] && !full {
			return fmt.Errorf("%w: table %s was emptied", errChanged, name)
		}
	}
	return nil
}

// lookInside sees in the snapshot which tables have rows, and lets go of them.
func (k *copier) lookInside(ctx context.Context, s *snapshot, before fullness, tables []table) (err error) {
	c := s.sessions[0]
	if err = execAll(ctx, c, "SAVEPOINT tables"); err == nil {
		k.full, err = lookFor(ctx, c, tables)
	}
	if err == nil {
		err = execAll(ctx, c, "ROLLBACK TO SAVEPOINT tables")
	}
	if hasNumber(err, errTableChanged, errNoSuchTable) {
		err = fmt.Errorf("%w: %w", errChanged, err)
	}
	if err != nil {
		return k.active.explain(ctx, err)
	}
	return before.still(k.full)
}
