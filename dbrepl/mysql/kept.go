package mysql

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/dump"
	"github.com/drsync/drsync/internal/hint"
)

var _ dbrepl.Restorer = (*Engine)(nil)

// kept is a dump that was opened.
type kept struct {
	manifest dump.Manifest
	def      definition
	server   identity // of the active that it is of
	rows     *keptRows
	size     int64 // bytes of its rows
	schema   schema
}

// readKept returns what the dump in dir says of itself.
func (e *Engine) readKept(dir string) (*kept, error) {
	m, err := dump.Read(dir)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*kept, error) { return nil, fmt.Errorf("read dump %s: %w", dir, err) }
	if m.Engine != engineName {
		return fail(fmt.Errorf("it is of the engine %s, not of MySQL or MariaDB", m.Engine))
	}
	k := &kept{manifest: m, rows: &keptRows{dir: dir, atOnce: cmp.Or(e.workers, workers()), chunks: make(map[string][]dump.Chunk), states: make(map[string][]int64)}}
	if err := json.Unmarshal(m.Definition, &k.def); err != nil {
		return fail(err)
	}
	if err := k.def.valid(); err != nil {
		return fail(err)
	}
	if k.server, err = k.def.server(); err != nil {
		return fail(err)
	}
	k.schema = k.def.schema()
	for _, c := range m.Chunks {
		k.rows.chunks[c.Table] = append(k.rows.chunks[c.Table], c)
		i := slices.IndexFunc(k.schema.tables, func(t table) bool { return t.name == c.Table && !t.sequence })
		if i < 0 {
			return fail(fmt.Errorf("%s is of the table %q, which it does not define", c.File, c.Table))
		}
		k.schema.tables[i].size += c.Bytes
		k.size += c.Bytes
	}
	for _, t := range k.def.Tables {
		k.rows.states[t.Name] = t.State
	}
	return k, nil
}

// judge refuses a dump that the standby's server cannot hold as it is.
func (e *Engine) judge(ctx context.Context, k *kept) (*pair, error) {
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p := &pair{active: k.server}
	if p.standby, err = e.standby.identify(ctx, c); err != nil {
		return nil, err
	}
	if d, s := k.server.series(), p.standby.series(); d != s {
		return nil, hint.With(
			fmt.Errorf("the dump is of %s, the standby's server is %s; definitions and data are only exchanged between the same series", k.server, p.standby),
			"restore it on a host with "+d)
	}
	if d, s := k.server.LowerCase, p.standby.LowerCase; d != s {
		return nil, hint.With(fmt.Errorf("lower_case_table_names is %s on the standby, in the dump it was %s", s, d),
			"start the standby's server with lower_case_table_names="+d)
	}
	e.inspectSpace(p, nil, contents{size: k.size})
	return p, dbrepl.Refuse(p.findings)
}

// Restore implements dbrepl.Restorer.
func (e *Engine) Restore(ctx context.Context, dir string) (dbrepl.Captured, error) {
	defer e.settle()
	g, err := e.restore(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("restore database %s: %w", e.opt.Name, err)
	}
	return &captured{e: e, g: g}, nil
}

func (e *Engine) restore(ctx context.Context, dir string) (_ *generation, err error) {
	k, err := e.readKept(dir)
	if err != nil {
		return nil, err
	}
	if k.manifest.Name != e.opt.Name {
		return nil, hint.With(fmt.Errorf("the dump is of the database %s", k.manifest.Name), "restore it beside with --into")
	}
	if err := e.beAlone(ctx); err != nil {
		return nil, err
	}
	p, err := e.judge(ctx, k)
	if err != nil {
		return nil, err
	}
	if err := e.mayHold(ctx, p, k); err != nil {
		return nil, err
	}
	switchBack, local := e.allowLocal(ctx, p.standby)
	defer switchBack()
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = e.afterFailure(ctx, err)
		}
	}()
	c := e.unpacker(k, e.stagingName(), local)
	if err := c.openStaging(ctx, k.schema); err != nil {
		return nil, err
	}
	defer c.staging.Close()
	if err := c.unpack(ctx, k); err != nil {
		return nil, err
	}
	return c.g, e.standby.explain(ctx, createMarker(ctx, c.staging, c.g))
}

// mayHold refuses what a capture of the same schema would be refused for.
func (e *Engine) mayHold(ctx context.Context, p *pair, k *kept) error {
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := e.mayRename(p.standby); err != nil {
		return err
	}
	all, err := e.inspectStandby(ctx, c, p, k.schema.objects)
	if err != nil {
		return e.standby.explain(ctx, err)
	}
	s, err := readSettings(ctx, c)
	if err != nil {
		return e.standby.explain(ctx, err)
	}
	e.inspectTrust(p, s, contents{objects: k.schema.objects}, all)
	return dbrepl.Refuse(p.findings)
}

func (e *Engine) unpacker(k *kept, target string, local bool) *copier {
	c := &copier{Engine: e, step: "load", source: k.manifest.Name, target: target, local: local, fold: k.def.LowerCase != "0", g: e.newGeneration(k.manifest.Point, k.schema)}
	c.g.Events = slices.Clone(k.def.Events)
	return c
}

// unpack fills the target with all that a dump holds.
func (k *copier) unpack(ctx context.Context, from *kept) error {
	if err := k.createTables(ctx, from.schema.tables); err != nil {
		return err
	}
	if err := k.copyTables(ctx, from.rows, from.schema.tables); err != nil {
		return err
	}
	return k.rehearse(ctx)
}

// RestoreAs implements dbrepl.Restorer. name is that of a schema. The accounts
// that its objects belong to need rights on it; events in it stay disabled.
func (e *Engine) RestoreAs(ctx context.Context, dir, name string) (dbrepl.Counts, error) {
	defer e.settle()
	n, err := e.restoreAs(ctx, dir, name)
	if err != nil {
		return dbrepl.Counts{}, fmt.Errorf("restore into database %s: %w", name, err)
	}
	return n, nil
}

func (e *Engine) restoreAs(ctx context.Context, dir, name string) (_ dbrepl.Counts, err error) {
	if err := validName(name); err != nil {
		return dbrepl.Counts{}, err
	}
	if strings.EqualFold(name, e.opt.Name) {
		return dbrepl.Counts{}, hint.New("it is the standby's own database", "name another, or leave --into away")
	}
	k, err := e.readKept(dir)
	if err != nil {
		return dbrepl.Counts{}, err
	}
	if err := e.beAlone(ctx); err != nil {
		return dbrepl.Counts{}, err
	}
	p, err := e.judge(ctx, k)
	if err != nil {
		return dbrepl.Counts{}, err
	}
	switchBack, local := e.allowLocal(ctx, p.standby)
	defer switchBack()
	c := e.unpacker(k, name, local)
	c.lasting = true
	c.renameObjects(c.fold)
	there, half, err := e.mayCreate(ctx, name, p.standby)
	if err != nil {
		return dbrepl.Counts{}, err
	}
	exists := func() error { return hint.New("it exists", "name a database that does not exist") }
	switch {
	case half:
		e.warn("the database %s, which a restore that did not come to its end has left, is made anew", name)
		if err := e.dropLoaded(ctx, name); err != nil {
			return dbrepl.Counts{}, err
		}
	case there:
		return dbrepl.Counts{}, exists()
	}
	if err = c.createTarget(ctx, k.schema); hasNumber(err, errDatabaseExists) {
		return dbrepl.Counts{}, exists() // it is not ours to drop
	}
	defer func() {
		if err != nil {
			err = e.undoLoaded(ctx, name, err)
		}
	}()
	if err != nil {
		return dbrepl.Counts{}, err
	}
	defer c.staging.Close()
	if err := execAll(ctx, c.staging, "CREATE TABLE "+quote(unfinishedTable)+
		" (n INT) ENGINE=InnoDB COMMENT='a restore by drsync has not come to its end: this database is not whole'"); err != nil {
		return dbrepl.Counts{}, adviseRoom(e.standby.explain(ctx, err))
	}
	if err := c.unpack(ctx, k); err != nil {
		return dbrepl.Counts{}, err
	}
	return c.g.Counts, e.standby.explain(ctx, execAll(ctx, c.staging, "DROP TABLE "+quote(unfinishedTable)))
}

// unfinishedTable is the first table of a schema that a dump is loaded into
// beside the visible one, and goes away when all the rest is there.
const unfinishedTable = "drsync_unfinished"

// mayCreate asks whether a schema exists, whether that is half of one that was
// restored, and whether the account may make it.
func (e *Engine) mayCreate(ctx context.Context, name string, id identity) (there, half bool, err error) {
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return false, false, err
	}
	defer c.Close()
	all, err := readPrivileges(ctx, c)
	if err != nil {
		return false, false, e.standby.explain(ctx, err)
	}
	var missing []string
	for _, right := range standbyRights {
		if !all.has(right, name) {
			missing = append(missing, right)
		}
	}
	if missing != nil {
		return false, false, hint.With(fmt.Errorf("the account %s lacks %s on it", id.User, strings.Join(missing, ", ")),
			grantStatement([]string{"ALL PRIVILEGES"}, asPattern(name)+".*", id.User))
	}
	found, err := records(ctx, c, "SELECT (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = SCHEMA_NAME AND TABLE_NAME = ?) half FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?", unfinishedTable, name)
	if err != nil || len(found) == 0 {
		return false, false, e.standby.explain(ctx, err)
	}
	return true, found[0].get("half") != "0", nil
}

// undoLoaded drops what was loaded in vain and returns err. What cannot be
// dropped now says that it is unfinished, and the next restore replaces it.
func (e *Engine) undoLoaded(ctx context.Context, name string, err error) error {
	cleanup := e.dropLoaded(ctx, name)
	if cleanup != nil {
		e.warn("the database %s is left, and is not whole: %v", name, cleanup)
	}
	return err
}

// dropLoaded drops what was loaded in vain, also when the command was interrupted.
func (e *Engine) dropLoaded(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), e.opt.Connect+e.opt.Lock, errSilent)
	defer cancel()
	e.standby.kills.wait() // what was interrupted lets go of its tables
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, "DROP DATABASE IF EXISTS "+quote(name)); err != nil {
		return fmt.Errorf("drop what was loaded of %s: %w", name, e.standby.explain(ctx, err))
	}
	return nil
}
