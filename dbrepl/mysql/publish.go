package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Recover finishes or removes what a crash left.
func (e *Engine) Recover(ctx context.Context, commit dbrepl.Token) error {
	defer e.settle()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := e.recover(ctx, commit); err != nil {
		return fmt.Errorf("recover database %s: %w", e.opt.Name, err)
	}
	return nil
}

func (e *Engine) recover(ctx context.Context, commit dbrepl.Token) error {
	if commit == nil {
		if err := e.beAlone(ctx); err != nil {
			return err
		}
		return e.dropStaging(ctx)
	}
	g, err := parseToken(commit, e.opt.Name)
	if err != nil {
		return err
	}
	return e.publish(ctx, g)
}

// publisher makes one generation the visible one. What has been done is asked
// from the standby each time, so every step may be repeated.
type publisher struct {
	*Engine
	g    *generation
	conn *sql.Conn
}

func (e *Engine) publish(ctx context.Context, g *generation) error {
	if err := e.beAlone(ctx); err != nil {
		return err
	}
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return err
	}
	defer c.Close()
	p := &publisher{Engine: e, g: g, conn: c}
	if err := p.run(ctx); err != nil {
		return adviseRoom(e.standby.explain(ctx, err))
	}
	return nil
}

func (p *publisher) run(ctx context.Context) error {
	visible, err := readMarker(ctx, p.conn, p.opt.Name, p.opt.Name)
	if err != nil {
		return err
	}
	if visible == nil || visible.ID != p.g.ID {
		if err := p.swap(ctx, visible); err != nil {
			return err
		}
	}
	return p.complete(context.WithoutCancel(ctx))
}

// do executes a statement that changes something.
func (p *publisher) do(ctx context.Context, statement string) error {
	if p.before != nil {
		if err := p.before(statement); err != nil {
			return err
		}
	}
	_, err := p.conn.ExecContext(ctx, statement)
	return err
}

// swap moves the visible tables out of the way and the staged ones in, in one
// statement. The marker is the last to move: once it is visible, all are.
func (p *publisher) swap(ctx context.Context, visible *generation) error {
	cleared, err := p.readCleared(ctx, visible)
	if err != nil {
		return err
	}
	staged, err := readMarker(ctx, p.conn, p.stagingName(), p.opt.Name)
	if err != nil {
		return err
	}
	if staged == nil || staged.ID != p.g.ID {
		if err := p.putBack(ctx, cleared); err != nil {
			return err
		}
		return hint.With(fmt.Errorf("%w; the visible one is unchanged", dbrepl.ErrCaptureGone), "run drsync now, which captures anew")
	}
	name, prev := quote(p.opt.Name), quote(p.prevName())
	prepare := []string{"CREATE DATABASE IF NOT EXISTS " + name + " CHARACTER SET " + p.g.Charset + " COLLATE " + p.g.Collation}
	if cleared == nil { // else there is nothing but the note of it
		prepare = append(prepare, "DROP DATABASE IF EXISTS "+prev, "CREATE DATABASE "+prev)
	}
	for _, s := range prepare {
		if err := p.do(ctx, s); err != nil {
			return p.inUse(ctx, err)
		}
	}
	here, err := relations(ctx, p.conn, p.opt.Name)
	if err != nil {
		return err
	}
	ready, err := relations(ctx, p.conn, p.stagingName())
	if err != nil {
		return err
	}
	rename, err := p.rename(here, ready)
	if err != nil {
		return err
	}
	if err := p.awaitIdle(ctx, here); err != nil {
		return p.inUse(ctx, err)
	}
	// From here on the visible database changes: an interrupt waits, for at
	// most the lock's time limit.
	ctx = context.WithoutCancel(ctx)
	if err := execAll(ctx, p.conn, "USE "+name); err != nil {
		return err
	}
	if cleared == nil {
		if cleared, err = p.noteCleared(ctx, visible); err != nil {
			return err
		}
	}
	err = p.clear(ctx)
	if err == nil {
		err = p.do(ctx, rename)
	}
	if err != nil {
		return errors.Join(p.inUse(ctx, err), p.putBack(ctx, cleared))
	}
	return nil
}

// awaitIdle waits until nobody uses the visible tables, without changing
// anything: a transaction that has only read from one would let the rename wait.
func (p *publisher) awaitIdle(ctx context.Context, tables []string) error {
	if len(tables) == 0 {
		return nil
	}
	locks := make([]string, len(tables))
	for i, t := range tables {
		locks[i] = quote(p.opt.Name) + "." + quote(t) + " WRITE"
	}
	if err := p.do(ctx, "LOCK TABLES "+strings.Join(locks, ", ")); err != nil {
		return err
	}
	_, err := p.conn.ExecContext(ctx, "UNLOCK TABLES")
	return err
}

// clear drops what stands in the way of the tables: triggers, which cannot
// follow their tables into another schema, and views of the same name.
func (p *publisher) clear(ctx context.Context) error {
	triggers, err := records(ctx, p.conn, "SELECT TRIGGER_NAME n FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = ?", p.opt.Name)
	if err != nil {
		return err
	}
	views, err := records(ctx, p.conn, "SELECT TABLE_NAME n FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_TYPE = 'VIEW'", p.opt.Name)
	if err != nil {
		return err
	}
	name := quote(p.opt.Name)
	for _, t := range valuesOf(triggers, "n") {
		if err := p.do(ctx, "DROP TRIGGER IF EXISTS "+name+"."+quote(t)); err != nil {
			return err
		}
	}
	for _, v := range valuesOf(views, "n") {
		if p.inTheWay(v) {
			if err := p.do(ctx, "DROP VIEW IF EXISTS "+name+"."+quote(v)); err != nil {
				return err
			}
		}
	}
	return nil
}

// inTheWay says whether the generation has a table of a view's name.
func (p *publisher) inTheWay(view string) bool {
	return slices.Contains(p.g.Tables, view) || view == markerTable
}

// relations lists the tables and sequences of a schema.
func relations(ctx context.Context, c asker, schemaName string) ([]string, error) {
	all, err := records(ctx, c, "SELECT TABLE_NAME n FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_TYPE <> 'VIEW' ORDER BY TABLE_NAME", schemaName)
	return valuesOf(all, "n"), err
}

// rename builds the statement that exchanges the tables.
func (p *publisher) rename(here, ready []string) (string, error) {
	for _, t := range p.g.Tables {
		if !slices.Contains(ready, t) {
			return "", fmt.Errorf("table %s of the captured database is missing on the standby", t)
		}
	}
	var moves []string
	move := func(from, table, to string) {
		moves = append(moves, fmt.Sprintf("%s.%s TO %s.%s", quote(from), quote(table), quote(to), quote(table)))
	}
	for _, t := range here {
		move(p.opt.Name, t, p.prevName())
	}
	for _, t := range p.g.Tables {
		move(p.stagingName(), t, p.opt.Name)
	}
	move(p.stagingName(), markerTable, p.opt.Name)
	return "RENAME TABLE " + strings.Join(moves, ", "), nil
}

// complete brings everything that is not a table into the state of the
// generation. What is as it should be already is left alone, with its grants.
func (p *publisher) complete(ctx context.Context) error {
	if err := execAll(ctx, p.conn, "USE "+quote(p.opt.Name)); err != nil {
		return err
	}
	do := func(s string) error { return p.do(ctx, s) }
	r, err := one(ctx, p.conn, "SELECT @@collation_database co")
	if err != nil {
		return err
	}
	if r.get("co") != p.g.Collation {
		if err := do("ALTER DATABASE " + quote(p.opt.Name) + " CHARACTER SET " + p.g.Charset + " COLLATE " + p.g.Collation); err != nil {
			return err
		}
	}
	for _, s := range p.g.Defaults {
		if err := do(s); err != nil {
			return p.inUse(ctx, err)
		}
	}
	present, err := readObjects(ctx, p.conn, p.opt.Name)
	if err != nil {
		return err
	}
	// A package that goes takes its body along.
	packages := slices.DeleteFunc(slices.Clone(present), func(o object) bool { return o.Kind != "PACKAGE" || slices.Contains(p.g.Objects, o) })
	goes := func(o object) bool {
		return !slices.Contains(p.g.Objects, o) ||
			o.Kind == "PACKAGE BODY" && slices.ContainsFunc(packages, func(s object) bool { return s.Name == o.Name })
	}
	for _, o := range slices.Backward(present) {
		if goes(o) {
			if err := o.drop(do); err != nil {
				return fmt.Errorf("drop %s: %w", o, err)
			}
		}
	}
	present = slices.DeleteFunc(present, goes)
	for _, o := range p.g.Objects {
		if !slices.Contains(present, o) {
			if err := o.create(do, p.opt.Name, p.g.Collation); err != nil {
				return err
			}
		}
	}
	return p.dropEmptied(ctx)
}

// dropEmptied drops the staging schema after its tables have moved, unless it
// holds a capture again.
func (p *publisher) dropEmptied(ctx context.Context) error {
	left, err := relations(ctx, p.conn, p.stagingName())
	if err != nil || len(left) > 0 {
		return err
	}
	r, err := records(ctx, p.conn, "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?", p.stagingName())
	if err != nil || len(r) == 0 {
		return err
	}
	return p.do(ctx, "DROP DATABASE IF EXISTS "+quote(p.stagingName()))
}

// inUse explains a wait for the visible tables that was in vain.
func (p *publisher) inUse(ctx context.Context, err error) error {
	if !hasNumber(err, errLockWaitTimeout) {
		return err
	}
	sessions, lerr := records(ctx, p.conn, `SELECT ID id, USER user, HOST host, DB db, COMMAND command, TIME time FROM information_schema.PROCESSLIST
		WHERE ID <> CONNECTION_ID() AND DB IN (?, ?, ?) ORDER BY TIME DESC`, p.opt.Name, p.prevName(), p.stagingName())
	if lerr != nil {
		return err
	}
	var who []string
	for _, s := range sessions {
		who = append(who, fmt.Sprintf("connection %s of %s from %s (%s for %s s)", s.get("id"), s.get("user"), s.get("host"), strings.ToLower(s.get("command")), s.get("time")))
	}
	if who == nil {
		return hint.With(
			fmt.Errorf("something uses the standby database %s: %w", p.opt.Name, err),
			"stop the application on this host; GRANT PROCESS ON *.* to drsync's account lets this message say who it is")
	}
	return hint.With(
		fmt.Errorf("something uses the standby database %s, perhaps %s: %w", p.opt.Name, someOf(who), err),
		"stop the application on this host, or end the connection with KILL")
}
