package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

var _ dbrepl.Comparer = (*Engine)(nil)

const (
	chunkRows = 20_000 // that are summed at once
	fewRows   = 100    // a difference is narrowed down to
	perTable  = 100    // differences of one table that are listed, so that none hides another
)

// comparers is how many ranges are summed at once, on either side.
func comparers() int { return min(8, max(1, runtime.GOMAXPROCS(0))) }

// Compare compares the visible schema with the active's, as it is now.
// A sequence, which takes part in no transaction, must not be behind the active's.
func (e *Engine) Compare(ctx context.Context) (dbrepl.Comparison, error) {
	defer e.settle()
	for attempt := 1; ; attempt++ {
		c, err := e.compare(ctx)
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() == nil && errors.Is(err, errChanged) && attempt < captures:
			e.warn("%v; the comparison begins anew", err)
		default:
			return dbrepl.Comparison{}, fmt.Errorf("compare database %s: %w", e.opt.Name, err)
		}
	}
}

func (e *Engine) compare(ctx context.Context) (dbrepl.Comparison, error) {
	none := dbrepl.Comparison{}
	a, err := e.active.session(ctx, "")
	if err != nil {
		return none, err
	}
	defer a.Close()
	s, err := e.standby.session(ctx, "")
	if err != nil {
		return none, err
	}
	defer s.Close()
	p, err := e.comparable(ctx, a, s)
	if err != nil {
		return none, err
	}
	visible, err := readMarker(ctx, s, e.opt.Name, e.opt.Name)
	if err != nil {
		return none, e.standby.explain(ctx, err)
	}
	if visible == nil {
		return none, dbrepl.ErrNoDatabase
	}
	// From here on both sessions have the schema as their own.
	if err := execAll(ctx, a, "USE "+quote(e.opt.Name)); err != nil {
		return none, e.active.explain(ctx, err)
	}
	if err := execAll(ctx, s, "USE "+quote(e.opt.Name)); err != nil {
		return none, e.standby.explain(ctx, err)
	}
	c, err := e.compareSides(ctx, p, a, s)
	if err != nil {
		return none, err
	}
	again, err := readMarker(ctx, s, e.opt.Name, e.opt.Name)
	if err != nil {
		return none, e.standby.explain(ctx, err)
	}
	if again == nil || again.ID != visible.ID {
		return none, errors.New("another generation was published on the standby meanwhile")
	}
	return c, nil
}

// comparable refuses two servers or accounts of which a comparison would say
// nothing: one that may not see a table would miss it.
func (e *Engine) comparable(ctx context.Context, a, s *sql.Conn) (*pair, error) {
	p := &pair{}
	var err error
	if p.active, err = e.active.identify(ctx, a); err != nil {
		return nil, err
	}
	if p.standby, err = e.standby.identify(ctx, s); err != nil {
		return nil, err
	}
	if a, s := p.active.series(), p.standby.series(); a != s {
		return nil, fmt.Errorf("the standby's server is %s, the active's %s, which may show the same value differently", s, a)
	}
	same, err := sameServer(ctx, a, s)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	if same {
		return nil, errors.New("the standby's server is the active server itself")
	}
	if _, err := e.inspectActive(ctx, a, p); err != nil {
		return nil, e.active.explain(ctx, err)
	}
	all, err := readPrivileges(ctx, s)
	if err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	p.lacking(all, "standby account "+p.standby.User, p.standby.User, e.opt.Name, activeRights)
	return p, dbrepl.Refuse(p.findings)
}

func (e *Engine) compareSides(ctx context.Context, p *pair, a, s *sql.Conn) (dbrepl.Comparison, error) {
	none := dbrepl.Comparison{}
	before, err := readSchema(ctx, a, e.opt.Name)
	if err != nil {
		return none, e.active.explain(ctx, err)
	}
	snap, err := e.openSnapshot(ctx, p.active, before.tables, comparers())
	if err != nil {
		return none, err
	}
	defer snap.close()
	if e.during != nil {
		e.during("")
	}
	there, err := readSchema(ctx, a, e.opt.Name)
	if err != nil {
		return none, e.active.explain(ctx, err)
	}
	if what := before.difference(there); what != "" {
		return none, fmt.Errorf("%w: %s", errChanged, what)
	}
	states, err := readStates(ctx, a, there.tables)
	if err != nil {
		return none, e.active.explain(ctx, err)
	}
	return e.compareWith(ctx, snap, there, states, p.standby, a, s)
}

// compareWith compares the standby's schema with what the sessions of a snapshot
// of the active see, where it is defined as there and its sequences are at least at states.
func (e *Engine) compareWith(ctx context.Context, snap *snapshot, there schema, states sequences, standby identity, a, s *sql.Conn) (dbrepl.Comparison, error) {
	none := dbrepl.Comparison{}
	ours, err := e.standbySnapshot(ctx, standby, len(snap.sessions))
	if err != nil {
		return none, err
	}
	defer ours.close()
	here, err := readSchema(ctx, s, e.opt.Name)
	if err != nil {
		return none, e.standby.explain(ctx, err)
	}
	c := &comparing{Engine: e, step: "compare", active: snap.sessions, standby: ours.sessions}
	broken := func(o object) bool {
		_, err := records(ctx, a, "SELECT 1 FROM "+quote(o.Name)+" LIMIT 0")
		return hasNumber(err, errInvalidView)
	}
	if c.found, err = c.lone(ctx, there, here); err != nil {
		return none, err
	}
	c.found = append(c.found, definitionDifferences(there, here, broken)...)
	own, err := readStates(ctx, s, here.tables)
	if err != nil {
		return none, e.standby.explain(ctx, err)
	}
	c.found = append(c.found, own.behind(states)...)
	if err := c.plan(ctx, a, s, there.tables, here.tables); err != nil {
		return none, err
	}
	if err := c.run(ctx); err != nil {
		return none, err
	}
	result := c.result()
	result.Active = snap.point
	result.Uncompared = unread(there, here)
	return result, nil
}

// standbySnapshot opens n sessions that see the standby's schema as of one
// moment. Nobody but drsync writes there, and the caller holds its lock; that the
// sessions agree can be proved where there is a binary log.
func (e *Engine) standbySnapshot(ctx context.Context, id identity, n int) (_ *snapshot, err error) {
	s := &snapshot{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for range n {
		c, err := e.standby.session(ctx, e.opt.Name)
		if err != nil {
			return nil, err
		}
		s.sessions = append(s.sessions, c)
	}
	position := func(context.Context, *sql.Conn) (string, error) { return "", nil }
	if id.MariaDB && id.BinaryLog {
		position = ownPosition
	}
	done, err := s.lineUp(ctx, position)
	if err == nil && !done {
		err = errors.New("its server commits all the time")
	}
	if err != nil {
		return nil, fmt.Errorf("consistent snapshot of the standby's database: %w", e.standby.explain(ctx, err))
	}
	return s, nil
}

// verifyCopy compares the staged tables with what the snapshot's sessions see.
func (k *copier) verifyCopy(ctx context.Context, readers []*sql.Conn, tables []table) error {
	c := &comparing{Engine: k.Engine, step: "capture", active: readers}
	defer func() {
		for _, s := range c.standby {
			s.Close()
		}
	}()
	for range readers {
		s, err := k.standby.session(ctx, k.stagingName())
		if err != nil {
			return err
		}
		c.standby = append(c.standby, s)
		if err := execAll(ctx, s, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
			return k.standby.explain(ctx, err)
		}
		defer func() { _ = execAll(ctx, s, "ROLLBACK") }()
	}
	staged, err := readTables(ctx, k.staging, k.stagingName())
	if err != nil {
		return k.standby.explain(ctx, err)
	}
	if err := c.plan(ctx, k.look, k.staging, tables, staged); err != nil {
		return err
	}
	if err := c.run(ctx); err != nil {
		return err
	}
	own, err := readStates(ctx, k.staging, staged)
	if err != nil {
		return k.standby.explain(ctx, err)
	}
	c.found = append(c.found, own.behind(k.states)...)
	r := c.result()
	if r.Different == 0 {
		return nil
	}
	var what []string
	for _, d := range r.Differences {
		what = append(what, d.String())
	}
	advice := "look after the memory and disks of both hosts; drsync now captures anew"
	if columns := inexact(tables, r.Differences); columns != nil {
		advice = "look first at the columns " + someOf(columns) + ", whose values can come out otherwise (docs/design.md); if it is not them, " + advice
	}
	return hint.With(fmt.Errorf("%w inside the snapshot that it was copied from: %s", dbrepl.ErrDiffers, someOf(what)), advice)
}

// inexact names the columns of tables that differ of which the standby may have
// made another value by itself: types inside of JSON, which only MySQL has, and
// what is computed with a session's settings.
func inexact(tables []table, differ []dbrepl.Difference) (names []string) {
	for _, t := range tables {
		if !slices.ContainsFunc(differ, func(d dbrepl.Difference) bool { return d.Table == t.name }) {
			continue
		}
		for _, c := range slices.Concat(t.columns, t.stored) {
			if c.kind == "json" || c.computed != "" {
				names = append(names, t.name+"."+c.name)
			}
		}
	}
	return names
}
