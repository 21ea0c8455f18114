package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
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
// Sequences, which take no part in transactions, are compared by their definition.
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
	return p, refuse(p.findings)
}

func (e *Engine) compareSides(ctx context.Context, p *pair, a, s *sql.Conn) (dbrepl.Comparison, error) {
	none := dbrepl.Comparison{}
	before, err := readSchema(ctx, a, e.opt.Name)
	if err != nil {
		return none, e.active.explain(ctx, err)
	}
	snap, err := e.openSnapshot(ctx, p.active, before.tables, comparers())
	if hasNumber(err, errNoDatabaseAccess, errAccessDeniedLocal) && comparers() > 1 {
		snap, err = e.openSnapshot(ctx, p.active, before.tables, 1) // which needs no lock
	}
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
	own, err := e.standbySnapshot(ctx, p.standby, len(snap.sessions))
	if err != nil {
		return none, err
	}
	defer own.close()
	here, err := readSchema(ctx, s, e.opt.Name)
	if err != nil {
		return none, e.standby.explain(ctx, err)
	}
	c := &comparing{Engine: e, step: "compare", active: snap.sessions, standby: own.sessions}
	broken := func(o object) bool {
		_, err := records(ctx, a, "SELECT 1 FROM "+quote(o.Name)+" LIMIT 0")
		return hasNumber(err, errInvalidView)
	}
	if c.found, err = c.lone(ctx, there, here); err != nil {
		return none, err
	}
	c.found = append(c.found, definitionDifferences(there, here, broken)...)
	if err := c.plan(ctx, a, s, there.tables, here.tables); err != nil {
		return none, err
	}
	if err := c.run(ctx); err != nil {
		return none, err
	}
	result := c.result()
	result.Active = snap.point
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
	r := c.result()
	if r.Different == 0 {
		return nil
	}
	var what []string
	for _, d := range r.Differences {
		what = append(what, d.String())
	}
	return hint.With(fmt.Errorf("the copy differs from the active inside the snapshot that it was made from: %s", someOf(what)),
		"look after the memory and disks of both hosts; drsync now captures anew")
}

// comparing is one comparison. What follows mu is shared by its workers.
type comparing struct {
	*Engine
	step            string // that progress is told of
	active, standby []*sql.Conn

	mu     sync.Mutex
	todo   []*compared
	tables int
	rows   int64
	chunks int64
	more   int64 // differences that are not in found
	found  []found
}

// compared is a table on both sides.
type compared struct {
	there, here sumPlan
	lo          bound // where the next range begins
	begun       int   // ranges
	listed      int   // differences
}

// found is a difference, with the order in which they are told.
type found struct {
	dbrepl.Difference
	chunk int
}

// plan decides how each table is summed. One whose columns are not the same on
// both sides differs by its definition, and its rows are not looked at.
func (c *comparing) plan(ctx context.Context, a, s *sql.Conn, there, here []table) error {
	theirs, err := sumPlans(ctx, a, there)
	if err != nil {
		return c.Engine.active.explain(ctx, err)
	}
	ours, err := sumPlans(ctx, s, here)
	if err != nil {
		return c.Engine.standby.explain(ctx, err)
	}
	for _, t := range there {
		i := slices.IndexFunc(here, func(h table) bool { return h.name == t.name })
		if t.sequence || i < 0 || here[i].sequence {
			continue
		}
		sameName := func(a, b column) bool { return a.name == b.name }
		if !slices.EqualFunc(t.columns, here[i].columns, sameName) {
			continue
		}
		p := &compared{there: theirs[t.name], here: ours[t.name]}
		if len(p.here.key) == 0 || p.here.index != p.there.index {
			p.here.index = ""
		}
		p.here.key = p.there.key // the same bounds on both sides
		c.todo = append(c.todo, p)
	}
	c.tables = len(c.todo)
	return nil
}

// sumPlans decides how the tables of the session's own schema are summed.
func sumPlans(ctx context.Context, c *sql.Conn, tables []table) (map[string]sumPlan, error) {
	r, err := one(ctx, c, "SELECT DATABASE() d")
	if err != nil {
		return nil, err
	}
	columns := make(map[string][]column)
	for _, t := range tables {
		columns[t.name] = t.columns
	}
	keys, err := orderKeys(ctx, c, r.get("d"), columns)
	if err != nil {
		return nil, err
	}
	plans := make(map[string]sumPlan)
	for _, t := range tables {
		if t.sequence {
			continue
		}
		p := sumPlan{name: t.name, key: keys[t.name]}
		if len(p.key) > 0 {
			p.index = p.key[0].index
		}
		if p.row, err = rowHash(t.columns); err != nil {
			return nil, fmt.Errorf("table %s: %w", t.name, err)
		}
		plans[t.name] = p
	}
	return plans, nil
}

// run compares all ranges, as many at once as there are sessions.
func (c *comparing) run(ctx context.Context) error {
	g, working := errgroup.WithContext(ctx)
	for i := range c.active {
		w := &comparer{c, c.active[i], c.standby[i]}
		g.Go(func() error { return w.work(working) })
	}
	err := g.Wait()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// comparer is one worker with its two sessions.
type comparer struct {
	*comparing
	there, here *sql.Conn
}

func (w *comparer) work(ctx context.Context) error {
	for {
		t, lo, hi, chunk, err := w.next(ctx)
		if err != nil || t == nil {
			return err
		}
		if err := w.compareRange(ctx, t, lo, hi, chunk); err != nil {
			if hasNumber(err, errTableChanged, errNoSuchTable, errUnknownColumn) {
				err = fmt.Errorf("%w: %w", errChanged, err)
			}
			return fmt.Errorf("table %s: %w", t.there.name, err)
		}
	}
}

// next returns the next range. Its end is found in the index of the active.
func (w *comparer) next(ctx context.Context) (t *compared, lo, hi bound, chunk int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.todo) == 0 || ctx.Err() != nil {
		return nil, nil, nil, 0, context.Cause(ctx)
	}
	t = w.todo[0]
	lo, chunk = t.lo, t.begun
	if len(t.there.key) > 0 {
		err = released(ctx, w.there, func() (err error) {
			hi, err = t.there.walk(ctx, w.there, lo, nil, w.chunkRows())
			return err
		})
		if err != nil {
			return nil, nil, nil, 0, fmt.Errorf("table %s: %w", t.there.name, w.Engine.active.explain(ctx, err))
		}
	}
	t.begun, t.lo = t.begun+1, hi
	if hi == nil {
		w.todo = w.todo[1:]
	}
	return t, lo, hi, chunk, nil
}

// chunkRows is how many rows a range has; tests have fewer.
func (c *comparing) chunkRows() int64 {
	if c.Engine.chunk > 0 {
		return c.Engine.chunk
	}
	return chunkRows
}

func (w *comparer) compareRange(ctx context.Context, t *compared, lo, hi bound, chunk int) error {
	there, here, err := w.sums(ctx, t, lo, hi)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.chunks++
	w.rows += there.rows
	rows := w.rows
	w.mu.Unlock()
	w.opt.Event.Emit(event.Event{Kind: event.Progress, Step: w.step, Name: w.opt.Name, Items: rows})
	if there == here {
		return nil
	}
	return w.narrow(ctx, t, lo, hi, chunk, there, here)
}

// sums asks both servers at once.
func (w *comparer) sums(ctx context.Context, t *compared, lo, hi bound) (there, here fingerprint, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		there, err = summed(ctx, w.there, t.there, lo, hi, "the active")
		return w.Engine.active.explain(ctx, err)
	})
	g.Go(func() (err error) {
		here, err = summed(ctx, w.here, t.here, lo, hi, "the standby")
		return w.Engine.standby.explain(ctx, err)
	})
	err = g.Wait()
	return there, here, err
}

func summed(ctx context.Context, c *sql.Conn, p sumPlan, lo, hi bound, who string) (f fingerprint, err error) {
	err = released(ctx, c, func() error {
		if f, err = p.sum(ctx, c, lo, hi); err != nil {
			return err
		}
		return remarks(ctx, c, who, 0) // a value that is too long for a packet is only remarked upon
	})
	return f, err
}

// released lets go of the tables that do has read: otherwise whoever alters one
// waits for the end of the snapshot, and everybody else for him.
func released(ctx context.Context, c *sql.Conn, do func() error) error {
	if err := execAll(ctx, c, "SAVEPOINT tables"); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return execAll(ctx, c, "ROLLBACK TO SAVEPOINT tables")
}

// narrow divides a range that differs until few rows are left, and lists it.
func (w *comparer) narrow(ctx context.Context, t *compared, lo, hi bound, chunk int, there, here fingerprint) error {
	most := max(there.rows, here.rows)
	if most > fewRows && len(t.there.key) > 0 && w.room(t) {
		plan, conn, server := t.there, w.there, w.Engine.active
		if here.rows > there.rows {
			plan, conn, server = t.here, w.here, w.Engine.standby
		}
		// Sixteen parts at a time cost as many questions as four halvings, one
		// after the other, and read the rows half as often.
		size := max(most/16, fewRows) - 1 // a part that begins at a key has one row more
		var bounds []bound
		for at := lo; ; {
			var next bound
			err := released(ctx, conn, func() (err error) {
				next, err = plan.walk(ctx, conn, at, hi, size)
				return err
			})
			if err != nil {
				return server.explain(ctx, err)
			}
			if next == nil {
				break
			}
			bounds = append(bounds, next)
			at = next
		}
		if bounds != nil {
			return w.divide(ctx, t, lo, hi, chunk, bounds)
		}
	}
	w.list(t, chunk, dbrepl.Difference{Table: t.there.name, From: t.there.shown(lo), To: t.there.shown(hi), Active: there.rows, Standby: here.rows})
	return nil
}

// divide compares the parts of a range that lie between bounds.
func (w *comparer) divide(ctx context.Context, t *compared, lo, hi bound, chunk int, bounds []bound) error {
	for i := range len(bounds) + 1 {
		from, to := lo, hi
		if i > 0 {
			from = bounds[i-1]
		}
		if i < len(bounds) {
			to = bounds[i]
		}
		there, here, err := w.sums(ctx, t, from, to)
		if err != nil {
			return err
		}
		if there != here {
			if err := w.narrow(ctx, t, from, to, chunk, there, here); err != nil {
				return err
			}
		}
	}
	return nil
}

// room says whether a further difference of the table would be listed.
func (w *comparer) room(t *compared) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return t.listed < perTable
}

func (w *comparer) list(t *compared, chunk int, d dbrepl.Difference) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.listed >= perTable {
		w.more++
		return
	}
	t.listed++
	w.found = append(w.found, found{d, chunk})
}

// lone finds tables that only one side has.
func (c *comparing) lone(ctx context.Context, there, here schema) (lone []found, err error) {
	add := func(t table, conn *sql.Conn, active bool) error {
		var n int64
		if err := conn.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+quote(t.name)).Scan(&n); err != nil {
			return fmt.Errorf("count table %s: %w", t.name, err)
		}
		d := dbrepl.Difference{Table: t.name, Standby: n, Text: "only the standby has it"}
		if active {
			d = dbrepl.Difference{Table: t.name, Active: n, Text: "only the active has it"}
		}
		lone = append(lone, found{d, -1})
		return nil
	}
	has := func(all []table, name string) bool {
		return slices.ContainsFunc(all, func(t table) bool { return t.name == name })
	}
	for _, t := range there.tables {
		if !has(here.tables, t.name) {
			if err := released(ctx, c.active[0], func() error { return add(t, c.active[0], true) }); err != nil {
				return nil, c.Engine.active.explain(ctx, err)
			}
		}
	}
	for _, t := range here.tables {
		if !has(there.tables, t.name) {
			if err := released(ctx, c.standby[0], func() error { return add(t, c.standby[0], false) }); err != nil {
				return nil, c.Engine.standby.explain(ctx, err)
			}
		}
	}
	return lone, nil
}

// result puts the differences in order, those of one table together.
func (c *comparing) result() dbrepl.Comparison {
	slices.SortStableFunc(c.found, func(a, b found) int {
		if a.Table != b.Table {
			return strings.Compare(a.Table, b.Table)
		}
		return a.chunk - b.chunk
	})
	r := dbrepl.Comparison{Tables: c.tables, Rows: c.rows, Chunks: c.chunks, Different: c.more + int64(len(c.found))}
	for _, f := range fair(c.found, dbrepl.MaxDifferences) {
		r.Differences = append(r.Differences, f.Difference)
	}
	return r
}

// fair takes most of all, which are sorted by table, so that no table is left
// out for the sake of another's many.
func fair(all []found, most int) []found {
	each := most
	for {
		var some []found
		n := 0
		for i, f := range all {
			if i == 0 || all[i-1].Table != f.Table {
				n = 0
			}
			if n++; n <= each {
				some = append(some, f)
			}
		}
		if len(some) <= most || each == 1 {
			return some[:min(most, len(some))]
		}
		each /= 2
	}
}
