package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Promote lets applications write on the standby's server and enables the
// events that the active ran.
func (e *Engine) Promote(ctx context.Context) (dbrepl.Point, error) {
	defer e.settle()
	p, err := e.promote(ctx)
	if err != nil {
		return dbrepl.Point{}, fmt.Errorf("promote database %s: %w", e.opt.Name, err)
	}
	return p, nil
}

func (e *Engine) promote(ctx context.Context) (dbrepl.Point, error) {
	if err := e.beAlone(ctx); err != nil {
		return dbrepl.Point{}, err
	}
	g, err := e.visible(ctx)
	if err != nil {
		return dbrepl.Point{}, err
	}
	c, err := e.standby.session(ctx, e.opt.Name)
	if err != nil {
		return dbrepl.Point{}, err
	}
	defer c.Close()
	id, err := e.standby.identify(ctx, c)
	if err == nil && id.ReadOnly {
		err = e.makeWritable(ctx, c, id)
	}
	if err == nil {
		err = e.enableEvents(ctx, c, g, id)
	}
	return g.Point, e.standby.explain(ctx, err)
}

func (e *Engine) makeWritable(ctx context.Context, c *sql.Conn, id identity) error {
	statements := []string{"SET GLOBAL read_only=0"}
	if !id.MariaDB {
		statements = []string{"SET GLOBAL super_read_only=0", "SET GLOBAL read_only=0"}
	}
	err := execAll(ctx, c, statements...)
	if hasNumber(err, errAccessDeniedLocal) {
		return hint.With(fmt.Errorf("switch read_only off: %w", err),
			fmt.Sprintf("as an administrator of the standby's server: SET GLOBAL read_only=0; and %s", grantStatement([]string{readOnlyRight(id)}, "*.*", id.User)))
	}
	return err
}

// enableEvents enables what is disabled of the events that were enabled. An
// event keeps its definer and its session, which ALTER would replace.
func (e *Engine) enableEvents(ctx context.Context, c *sql.Conn, g *generation, id identity) error {
	if len(g.Events) == 0 {
		return nil
	}
	present, err := readEvents(ctx, c, e.opt.Name)
	if err != nil {
		return err
	}
	for _, name := range g.Events {
		i := slices.IndexFunc(present, func(o object) bool { return o.Name == name })
		if i < 0 {
			e.warn("event %s was enabled on the active and does not exist here; one that runs once may be over", name)
			continue
		}
		o := present[i]
		if o.Enabled {
			continue
		}
		o.SQL = "ALTER DEFINER=" + definer(o.Definer) + " EVENT " + quote(name) + " ENABLE"
		o.Bytes = ""
		do := func(s string) error { return execAll(ctx, c, s) }
		if err := o.create(do, e.opt.Name, g.Collation); err != nil {
			return fmt.Errorf("enable event %s: %w", name, err)
		}
	}
	if id.Scheduler != "ON" {
		e.warn("the database has events, but event_scheduler is %s on this server", id.Scheduler)
	}
	return nil
}
