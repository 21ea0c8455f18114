package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

// plan is how a table is read: in the order of its key, which for one without a key
// that can be compared is only the order in which it lies.
type plan struct {
	query   string
	columns int
	key     []keyPart
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// plan reads how a table is stored.
func (s *side) plan(ctx context.Context, table string) (plan, error) {
	names, stored, ipk, err := s.columns(ctx, table)
	if err != nil {
		return plan{}, err
	}
	key, order, err := s.primaryKey(ctx, table, stored)
	if err != nil {
		return plan{}, err
	}
	// The sign has the driver hand a value over as it is, whatever its column's type.
	var selected []string
	for _, name := range stored {
		selected = append(selected, "+"+quoted(name))
	}
	if s.encoding != "UTF-8" {
		// What is no character would be made one on the way.
		for _, name := range stored {
			selected = append(selected, fmt.Sprintf("iif(typeof(%[1]s) = 'text', CAST(%[1]s AS BLOB), NULL)", quoted(name)))
		}
	}
	p := plan{key: key}
	switch {
	case order != "": // WITHOUT ROWID
		if !orders(key, s.encoding) {
			p.key, order = nil, ""
		}
	case ipk >= 0:
		p.key, order = []keyPart{{column: ipk}}, " ORDER BY "+quoted(stored[ipk])
	default:
		for _, alias := range []string{"rowid", "_rowid_", "oid"} {
			if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, alias) }) {
				continue
			}
			selected = append(selected, alias)
			p.key, order = []keyPart{{column: len(selected) - 1}}, " ORDER BY "+alias
			break
		}
	}
	p.columns = len(selected)
	p.query = "SELECT " + strings.Join(selected, ", ") + " FROM main." + quoted(table) + " NOT INDEXED" + order
	return p, nil
}

// columns returns the names of all columns, those whose values are stored, and which of
// these is the rowid's own name, or -1.
func (s *side) columns(ctx context.Context, table string) (names, stored []string, ipk int, err error) {
	rows, err := s.c.QueryContext(ctx, "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?, 'main')", table)
	if err != nil {
		return nil, nil, 0, err
	}
	defer rows.Close()
	keys, integer := 0, -1
	for rows.Next() {
		var name, kind string
		var pk, hidden int
		if err := rows.Scan(&name, &kind, &pk, &hidden); err != nil {
			return nil, nil, 0, err
		}
		names = append(names, name)
		if pk > 0 {
			keys++
			if strings.EqualFold(kind, "INTEGER") {
				integer = len(stored)
			}
		}
		if hidden != 2 { // 2 is computed when it is read
			stored = append(stored, name)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, 0, err
	}
	if len(names) == 0 {
		return nil, nil, 0, errors.New("it has no columns")
	}
	if keys != 1 || integer < 0 {
		return names, stored, -1, nil
	}
	// INTEGER PRIMARY KEY DESC looks the same, but has an index of its own and a rowid beside it.
	var indexed bool
	err = s.c.QueryRowContext(ctx, "SELECT count(*) > 0 FROM pragma_index_list(?, 'main') WHERE origin = 'pk'", table).Scan(&indexed)
	if indexed {
		integer = -1
	}
	return names, stored, integer, err
}

// primaryKey returns the key of a table WITHOUT ROWID and the clause that orders by
// it, or nothing for another.
func (s *side) primaryKey(ctx context.Context, table string, stored []string) (key []keyPart, order string, err error) {
	rows, err := s.c.QueryContext(ctx, `SELECT name, "desc", coll FROM pragma_index_xinfo(?, 'main') WHERE key = 1 ORDER BY seqno`, table)
	if err != nil {
		return nil, "", err
	}
	defer rows.Close()
	var parts []string
	for rows.Next() {
		var name string
		var k keyPart
		if err := rows.Scan(&name, &k.down, &k.collation); err != nil {
			return nil, "", err
		}
		if k.column = slices.Index(stored, name); k.column < 0 {
			return nil, "", fmt.Errorf("column %s of the key is not stored", name)
		}
		key = append(key, k)
		part := quoted(name) + " COLLATE " + quoted(k.collation)
		if k.down {
			part += " DESC"
		}
		parts = append(parts, part)
	}
	if parts != nil {
		order = " ORDER BY " + strings.Join(parts, ", ")
	}
	return key, order, rows.Err()
}

// errOrder says that rows came in another order than that of their key.
var errOrder = errors.New("the rows are in another order than that of their key")

// reader yields the rows of one side.
type reader struct {
	rows   *sql.Rows
	key    []keyPart
	row    []datum // nil after the last
	before []datum
	into   []any
}

func (s *side) read(ctx context.Context, p plan) (*reader, error) {
	rows, err := s.c.QueryContext(ctx, p.query)
	if err != nil {
		return nil, err
	}
	r := &reader{rows: rows, key: p.key, row: make([]datum, p.columns), before: make([]datum, p.columns), into: make([]any, p.columns)}
	if err := r.next(); err != nil {
		rows.Close()
		return nil, err
	}
	return r, nil
}

func (r *reader) next() error {
	first := r.into[0] == nil
	r.row, r.before = r.before, r.row
	for i := range r.before { // only its key is asked for again; the rest may be large
		if !slices.ContainsFunc(r.key, func(k keyPart) bool { return k.column == i }) {
			r.before[i] = nil
		}
	}
	if !r.rows.Next() {
		r.row = nil
		return r.rows.Err()
	}
	for i := range r.into {
		r.into[i] = (*any)(&r.row[i])
	}
	if err := r.rows.Scan(r.into...); err != nil {
		return err
	}
	if !first && r.key != nil && compareKeys(r.key, r.before, r.row) >= 0 {
		return errOrder
	}
	return nil
}

// merge compares the rows of one table.
type merge struct {
	*comparing
	name string
	plan plan

	rows, standby, merged int64 // of the active, of the standby, of both
	open                  *stretch
	listed                []dbrepl.Difference
	stretches             int64 // those that are not listed too
}

// stretch is a range that differs, as far as it is known: from its first row that differs
// to its last. The rows after that, which are the same, belong to it only if one
// more comes that differs.
type stretch struct {
	from, to        string
	active, standby int64
	same            int64
}

func (m *merge) rowsOf(ctx context.Context, there, here *side) error {
	a, err := there.read(ctx, m.plan)
	if err != nil {
		return fmt.Errorf("on %s: %w", there.who, err)
	}
	defer a.rows.Close()
	s, err := here.read(ctx, m.plan)
	if err != nil {
		return fmt.Errorf("on %s: %w", here.who, err)
	}
	defer s.rows.Close()
	for a.row != nil || s.row != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		onActive, onStandby := m.turn(a.row, s.row)
		row := a.row
		if !onActive {
			row = s.row
		}
		m.take(row, onActive, onStandby, onActive && onStandby && slices.EqualFunc(a.row, s.row, sameDatum))
		if onActive {
			if err := a.next(); err != nil {
				return fmt.Errorf("on %s: %w", there.who, err)
			}
		}
		if onStandby {
			if err := s.next(); err != nil {
				return fmt.Errorf("on %s: %w", here.who, err)
			}
		}
	}
	m.end()
	return nil
}

// turn says which side has the row that comes next. Without a key the rows stand side by
// side as they lie.
func (m *merge) turn(a, s []datum) (onActive, onStandby bool) {
	if a == nil || s == nil || m.plan.key == nil {
		return a != nil, s != nil
	}
	c := compareKeys(m.plan.key, a, s)
	return c <= 0, c >= 0
}

// take takes the next row, which either side or both have.
func (m *merge) take(row []datum, onActive, onStandby, same bool) {
	if m.merged++; m.merged%8192 == 0 {
		m.progress.Emit(event.Event{Kind: event.Progress, Step: "compare", Items: m.comparing.rows + m.rows})
	}
	if onActive {
		m.rows++
	}
	if onStandby {
		m.standby++
	}
	o := m.open
	if m.plan.key != nil && o != nil {
		size := max(o.active, o.standby) + o.same
		if o.to == "" && (same || size >= m.chunk) {
			o.to = m.shown(row)
		}
		if o.same >= fewRows || size >= m.chunk {
			m.end()
			o = nil
		}
	}
	switch {
	case same && o == nil:
		return
	case same:
		o.same++
		return
	case o == nil:
		o = &stretch{from: m.shown(row)}
		m.open = o
	}
	o.active, o.standby = o.active+o.same, o.standby+o.same
	o.same, o.to = 0, ""
	if onActive {
		o.active++
	}
	if onStandby {
		o.standby++
	}
}

// end lists the range that differs, if there is one.
func (m *merge) end() {
	if m.open == nil {
		return
	}
	d := dbrepl.Difference{Table: m.name, From: m.open.from, To: m.open.to, Active: m.open.active, Standby: m.open.standby}
	if m.plan.key == nil {
		d.Active, d.Standby = m.rows, m.standby
	}
	m.open = nil
	if m.stretches++; len(m.listed) < perTable {
		m.listed = append(m.listed, d)
	}
}

// shown is the key of a row as a literal of SQL.
func (m *merge) shown(row []datum) string {
	var all []string
	for _, k := range m.plan.key {
		all = append(all, literal(row[k.column]))
	}
	if len(all) > 1 {
		return "(" + strings.Join(all, ", ") + ")"
	}
	return strings.Join(all, "")
}
