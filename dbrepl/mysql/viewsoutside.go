package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// abroad is a table that a view names together with its schema.
type abroad struct {
	schema, table string
	certain       bool // schema.table.column was written, and not what may be alias.column
}

// placesOutside lists the tables of other schemas that a view may use, as the
// server words it.
func placesOutside(o object, own string, fold bool) (all []abroad) {
	ws := words(o.SQL, "")
	joined := func(i int) bool { // whether a dot alone leads from this word to the next
		return i+1 < len(ws) && strings.TrimSpace(o.SQL[ws[i].end:ws[i+1].start]) == "."
	}
	for i := range ws {
		if i > 0 && joined(i-1) || !joined(i) || ws[i].name == own || fold && strings.EqualFold(ws[i].name, own) {
			continue
		}
		if p := (abroad{ws[i].name, ws[i+1].name, joined(i + 1)}); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// inspectViews finds views of tables in other databases that the standby lacks,
// without which they cannot be created there.
func (e *Engine) inspectViews(ctx context.Context, a, s *sql.Conn, p *pair, objects []object) error {
	has := func(c asker, at abroad) (bool, error) {
		r, err := records(ctx, c, "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?", at.schema, at.table)
		return len(r) > 0, err
	}
	var missing, views []string
	for _, o := range objects {
		if o.Kind != "VIEW" {
			continue
		}
		for _, at := range placesOutside(o, e.opt.Name, p.active.LowerCase != "0") {
			there, err := has(a, at)
			if err != nil {
				return e.active.explain(ctx, err)
			}
			here, err := has(s, at)
			if err != nil {
				return e.standby.explain(ctx, err)
			}
			if here || !there && !at.certain {
				continue
			}
			if _, err := records(ctx, a, "SELECT 1 FROM "+quote(o.Name)+" LIMIT 0"); hasNumber(err, errInvalidView) {
				continue // broken there too, and left out
			}
			if name := fmt.Sprintf("%s → %s.%s", o, at.schema, at.table); !slices.Contains(missing, name) {
				missing = append(missing, name)
				if v := quote(e.opt.Name) + "." + quote(o.Name); !slices.Contains(views, v) {
					views = append(views, v)
				}
			}
		}
	}
	if missing != nil {
		p.fatal("active database "+e.opt.Name, "views use tables of other databases, which the standby does not have: "+someOf(missing),
			decide("create these tables on the standby's server; or, on the active, if nobody needs these views", "DROP VIEW "+strings.Join(views, ", ")))
	}
	return nil
}
