package mysql

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// captures is how often a capture is begun anew because tables were altered
// meanwhile.
const captures = 3

// Capture copies the active's schema as of one point to the staging schema.
func (e *Engine) Capture(ctx context.Context, o dbrepl.CaptureOptions) (dbrepl.Captured, error) {
	defer e.settle()
	g, err := e.capture(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("capture database %s: %w", e.opt.Name, err)
	}
	return &captured{e: e, g: g}, nil
}

func (e *Engine) capture(ctx context.Context, o dbrepl.CaptureOptions) (*generation, error) {
	if err := e.beAlone(ctx); err != nil {
		return nil, err
	}
	p, err := e.inspected(ctx)
	if err != nil {
		return nil, err
	}
	if err := dbrepl.Refuse(p.findings); err != nil {
		return nil, err
	}
	restore, local := e.allowLocal(ctx, p.standby)
	defer restore()
	for attempt := 1; ; attempt++ {
		g, err := e.copySchema(ctx, p.active, local, o)
		if err == nil {
			return g, nil
		}
		if ctx.Err() == nil {
			err = e.afterFailure(ctx, err)
		}
		if ctx.Err() != nil || !errors.Is(err, errChanged) && !hasNumber(err, errDeadlock) {
			return nil, err
		}
		if attempt == captures {
			return nil, hint.With(fmt.Errorf("%w, each of %d times", err, captures),
				"capture when no upgrade or maintenance alters tables on the active")
		}
		e.warn("%v; the capture begins anew", err)
	}
}

// allowLocal switches LOAD DATA LOCAL on at the standby for as long as the
// capture lasts. Without the right to do so rows go by INSERT, which is slower.
func (e *Engine) allowLocal(ctx context.Context, id identity) (restore func(), allowed bool) {
	nothing := func() {}
	if id.LocalInfile {
		return nothing, !e.neverLocal
	}
	if _, err := e.standby.db.ExecContext(ctx, "SET GLOBAL local_infile=1"); err != nil {
		e.warn("the standby database server has local_infile off, so rows are inserted, which is slower")
		return nothing, false
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTime)
		defer cancel()
		if _, err := e.standby.db.ExecContext(ctx, "SET GLOBAL local_infile=0"); err != nil {
			e.warn("local_infile stays on at the standby database server: %v", err)
		}
	}, true
}

// copier fills one schema of the standby.
type copier struct {
	*Engine
	step     string // that its progress is of
	source   string // the name that the schema has where it comes from
	target   string // the schema that is filled
	fold     bool   // names of schemas are the same in any case
	lasting  bool   // the target is not to be renamed into another schema
	local    bool   // LOAD DATA LOCAL is allowed
	keep     *keeper
	look     *sql.Conn // the active, as it is now; nil without one
	theirs   identity  // of the active
	names    names     // what the active's names stand for
	byNumber bool      // InnoDB's numbers tell its tables apart
	staging  *sql.Conn // the target
	states   sequences // that the sequences were set to
	full     fullness  // of the active's tables, in the snapshot; nil where the server tells that one was truncated
	g        *generation
}

func (e *Engine) copySchema(ctx context.Context, active identity, local bool, o dbrepl.CaptureOptions) (_ *generation, err error) {
	k := &copier{Engine: e, step: "capture", source: e.opt.Name, target: e.stagingName(), local: local, theirs: active, fold: active.LowerCase != "0"}
	if k.keep, err = newKeeper(o.Dump); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.keep.discard())
		}
	}()
	if k.look, err = e.active.session(ctx, e.opt.Name); err != nil {
		return nil, err
	}
	defer k.look.Close()
	before, err := readSchema(ctx, k.look, e.opt.Name)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	if err := hidden(before.objects); err != nil {
		return nil, err
	}
	if err := k.openStaging(ctx, before); err != nil {
		return nil, err
	}
	defer k.staging.Close()

	if k.names, err = k.readNames(ctx, before.tables); err != nil {
		return nil, err
	}
	var full fullness
	if !active.MariaDB {
		if full, err = lookFor(ctx, k.look, before.tables); err != nil {
			return nil, e.active.explain(ctx, err)
		}
	}
	if e.during != nil {
		e.during("")
	}
	snap, err := e.openSnapshot(ctx, active, before.tables, cmp.Or(e.workers, workers()))
	if err != nil {
		return nil, err
	}
	defer snap.close()
	// What was there before and after the snapshot was there in it.
	now, err := readSchema(ctx, k.look, e.opt.Name)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	if what := before.difference(now); what != "" {
		return nil, fmt.Errorf("%w: %s", errChanged, what)
	}
	if full != nil {
		if err := k.lookInside(ctx, snap, full, now.tables); err != nil {
			return nil, err
		}
	}
	k.g = e.newGeneration(snap.point, now)
	if k.g.Counts.Locked = snap.locked; snap.locked > 0 {
		k.g.Counts.Against = lockedAgainst
	}
	for _, step := range []func() error{
		func() error { return k.createTables(ctx, now.tables) },
		func() error { return k.copyTables(ctx, &activeRows{copier: k, readers: snap.sessions}, now.tables) },
		func() error {
			if !o.Verify {
				return nil
			}
			return k.verifyCopy(ctx, snap.sessions, now.tables)
		},
		func() error { return k.rehearse(ctx) },
		func() error { return k.keep.seal(active, k.g, now.tables) },
		func() error { return e.standby.explain(ctx, createMarker(ctx, k.staging, k.g)) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return k.g, nil
}

// newGeneration begins the record of a schema as of a point.
func (e *Engine) newGeneration(at dbrepl.Point, s schema) *generation {
	return &generation{
		Format: tokenFormat, Engine: tokenEngine, Name: e.opt.Name, ID: rand.Text(),
		Point: at, Charset: s.charset, Collation: s.collation, Objects: s.objects,
	}
}

// openStaging makes an empty staging schema and the session that fills it.
func (k *copier) openStaging(ctx context.Context, s schema) error {
	if err := k.dropStaging(ctx); err != nil {
		return err
	}
	return k.createTarget(ctx, s)
}

// createTarget makes the schema that is filled, which must not exist.
func (k *copier) createTarget(ctx context.Context, s schema) error {
	c, err := k.standby.session(ctx, "")
	if err != nil {
		return err
	}
	err = execAll(ctx, c,
		"CREATE DATABASE "+quote(k.target)+" CHARACTER SET "+s.charset+" COLLATE "+s.collation,
		"USE "+quote(k.target))
	if err != nil {
		c.Close()
		return k.standby.explain(ctx, err)
	}
	k.staging = c
	return nil
}

// openLoader opens a further session that fills the target.
func (k *copier) openLoader(ctx context.Context) (*loader, error) {
	c, err := k.standby.session(ctx, k.target)
	if err != nil {
		return nil, err
	}
	r, err := one(ctx, c, "SELECT @@max_allowed_packet n")
	var packet int
	if err == nil {
		packet, err = strconv.Atoi(r.get("n"))
	}
	if err != nil {
		c.Close()
		return nil, k.standby.explain(ctx, err)
	}
	return &loader{server: k.standby, conn: c, local: k.local, packet: packet}, nil
}

// createTables makes the tables, empty and without what copyTables adds to them.
// A default that draws from a sequence names that with its schema, so it points
// into the target until the tables have moved.
func (k *copier) createTables(ctx context.Context, tables []table) error {
	for _, t := range tables {
		ddl := t.ddl
		for _, c := range t.columns {
			if c.defaultTo == "" {
				continue
			}
			staged := strings.ReplaceAll(c.defaultTo, "nextval("+quote(k.source)+".", "nextval("+quote(k.target)+".")
			if staged == c.defaultTo || !strings.Contains(ddl, "DEFAULT "+c.defaultTo) {
				return fmt.Errorf("table %s: the default of column %s, %s, is not understood", t.name, c.name, c.defaultTo)
			}
			ddl = strings.ReplaceAll(ddl, "DEFAULT "+c.defaultTo, "DEFAULT "+staged)
			k.g.Defaults = append(k.g.Defaults, fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET DEFAULT (%s)", quote(t.name), quote(c.name), c.defaultTo))
		}
		if partitioned(ddl) && !k.lasting {
			k.warn("%s", inOnePiece([]string{t.name}))
			ddl = withoutPartitions(ddl)
		}
		if !t.sequence {
			ddl, _, _ = bare(ddl)
		}
		if _, err := k.staging.ExecContext(ctx, ddl); err != nil {
			return fmt.Errorf("create table %s on the standby: %w", t.name, adviseRoom(k.standby.explain(ctx, err)))
		}
		k.g.Tables = append(k.g.Tables, t.name)
	}
	return nil
}

// copySequence sets a sequence to the state that its origin tells.
func (k *copier) copySequence(ctx context.Context, from origin, t table) error {
	values, err := from.state(ctx, t)
	if err != nil {
		return err
	}
	k.keep.sequence(t.name, values)
	k.reached(t.name, values)
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = strconv.FormatInt(v, 10)
	}
	if _, err := k.staging.ExecContext(ctx, "INSERT INTO "+quote(t.name)+" VALUES ("+strings.Join(texts, ",")+")"); err != nil {
		return k.standby.explain(ctx, err)
	}
	k.g.Counts.Tables++
	return nil
}

// afterFailure removes what was loaded in vain and returns err. What cannot be
// removed now, since the server is gone or undoes for long what was cut short,
// the next Recover removes: that is no second error.
func (e *Engine) afterFailure(ctx context.Context, err error) error {
	e.standby.kills.wait() // what was cut short lets go of its tables
	cleanup := e.dropStaging(ctx)
	gone := errors.Is(err, errLost) && cleanup != nil && !isServerError(cleanup)
	if gone || hasNumber(cleanup, errLockWaitTimeout) {
		return err
	}
	return errors.Join(err, cleanup)
}

// dropStaging removes what a capture left.
func (e *Engine) dropStaging(ctx context.Context) error {
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return err
	}
	defer c.Close()
	// Without this question an account that may not drop it would be refused
	// although there is nothing to drop, before Check can say what it lacks.
	var there int
	if err := c.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?", e.stagingName()).Scan(&there); err != nil {
		return fmt.Errorf("look for %s: %w", e.stagingName(), e.standby.explain(ctx, err))
	}
	if there == 0 {
		return nil
	}
	if _, err := c.ExecContext(ctx, "DROP DATABASE IF EXISTS "+quote(e.stagingName())); err != nil {
		return fmt.Errorf("drop %s: %w", e.stagingName(), e.standby.explain(ctx, err))
	}
	return nil
}
