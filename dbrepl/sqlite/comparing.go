package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

const (
	chunkRows = 20_000 // of a range that differs, at most
	fewRows   = 100    // that are the same end such a range
	perTable  = 100    // differences of one table that are listed, so that none hides another
)

// comparing gathers what one comparison finds.
type comparing struct {
	chunk    int64
	progress event.Sink

	tables       int
	rows, ranges int64
	different    int64
	found        []dbrepl.Difference
}

func (c *comparing) add(d dbrepl.Difference) {
	c.different++
	c.found = append(c.found, d)
}

func (c *comparing) addText(name, format string, args ...any) {
	c.add(dbrepl.Difference{Table: name, Text: fmt.Sprintf(format, args...)})
}

func (c *comparing) result() dbrepl.Comparison {
	return dbrepl.Comparison{Tables: c.tables, Rows: c.rows, Chunks: c.ranges, Different: c.different, Differences: listed(c.found)}
}

// listed takes at most MaxDifferences of all, which stand together by table: of
// each as many as there is room for, that none is left out for another's.
func listed(all []dbrepl.Difference) []dbrepl.Difference {
	if len(all) <= dbrepl.MaxDifferences {
		return all
	}
	for each := perTable; ; each /= 2 {
		var some []dbrepl.Difference
		seen := make(map[string]int)
		for _, d := range all {
			if seen[d.Table]++; seen[d.Table] <= max(each, 1) {
				some = append(some, d)
			}
		}
		if len(some) <= dbrepl.MaxDifferences || each <= 1 {
			return some[:min(len(some), dbrepl.MaxDifferences)]
		}
	}
}

// countOnly counts what is known to be the same on both sides.
func (c *comparing) countOnly(ctx context.Context, s *side) error {
	objects, err := s.objects(ctx)
	if err != nil {
		return err
	}
	for _, o := range sorted(objects) {
		if !o.holdsRows {
			continue
		}
		n, err := s.count(ctx, o.name)
		if err != nil {
			return err
		}
		c.counted(n, n)
	}
	return nil
}

// counted adds a table of which merged rows were looked at, and rows are the active's.
func (c *comparing) counted(rows, merged int64) {
	c.tables++
	c.rows += rows
	c.ranges += max(0, merged-1)/c.chunk + 1
}

// run compares the two sides: what the file says of itself, definitions, rows.
func (c *comparing) run(ctx context.Context, there, here *side) error {
	if there.encoding != here.encoding {
		c.addText("", "the texts are in %s, on the active in %s: no row is as it is there", here.encoding, there.encoding)
		return nil
	}
	for _, name := range []string{"user_version", "application_id"} {
		var a, s int64
		if err := there.c.QueryRowContext(ctx, "PRAGMA "+name).Scan(&a); err != nil {
			return err
		}
		if err := here.c.QueryRowContext(ctx, "PRAGMA "+name).Scan(&s); err != nil {
			return err
		}
		if a != s {
			c.addText("", "%s is %d, on the active %d", name, s, a)
		}
	}
	theirs, err := there.objects(ctx)
	if err != nil {
		return err
	}
	ours, err := here.objects(ctx)
	if err != nil {
		return err
	}
	for _, o := range sorted(theirs) {
		h, ok := ours[o.id()]
		if !ok {
			c.addText(o.label(), "the standby lacks it")
		} else if o.sql != h.sql || !strings.EqualFold(o.table, h.table) {
			c.addText(o.label(), "defined differently: %s, on the active %s", shortened(h.sql), shortened(o.sql))
		}
		if o.holdsRows {
			if err := c.compareTable(ctx, there, here, o.name, ok && h.holdsRows); err != nil {
				return fmt.Errorf("table %s: %w", o.name, err)
			}
		}
	}
	for _, o := range sorted(ours) {
		if _, ok := theirs[o.id()]; !ok {
			c.addText(o.label(), "only the standby has it")
		}
	}
	return nil
}

// compareTable compares the rows of a table of the active.
func (c *comparing) compareTable(ctx context.Context, there, here *side, name string, onBoth bool) error {
	if !onBoth {
		n, err := there.count(ctx, name)
		c.counted(n, n)
		return err
	}
	theirs, err := there.plan(ctx, name)
	if err != nil {
		return err
	}
	ours, err := here.plan(ctx, name)
	if err != nil {
		return err
	}
	if theirs.query != ours.query || !slices.Equal(theirs.key, ours.key) {
		c.addText(name, "its columns or its key are others: the rows are not compared")
		n, err := there.count(ctx, name)
		c.counted(n, n)
		return err
	}
	m := &merge{comparing: c, name: name, plan: theirs}
	err = m.rowsOf(ctx, there, here)
	c.counted(m.rows, m.merged)
	c.different += m.stretches
	c.found = append(c.found, m.listed...)
	if isDamaged(err) || errors.Is(err, errOrder) {
		c.addText(name, "the rows cannot be compared to their end: %v", err)
		return nil
	}
	return err
}

// object is a line of the schema.
type object struct {
	kind, name, table, sql string
	holdsRows              bool
}

func (o object) id() string { return o.kind + " " + strings.ToLower(o.name) }

// label is what a difference calls it.
func (o object) label() string {
	if o.kind == "table" {
		return o.name
	}
	return o.kind + " " + o.name
}

func sorted(objects map[string]object) []object {
	return slices.SortedFunc(maps.Values(objects), func(a, b object) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.kind, b.kind))
	})
}

// objects reads the schema. Statistics, which ANALYZE gathers anew, are left out. What
// a virtual table holds lies in ordinary ones.
func (s *side) objects(ctx context.Context) (map[string]object, error) {
	rows, err := s.c.QueryContext(ctx, "SELECT type, name, tbl_name, coalesce(sql, ''), rootpage FROM sqlite_schema")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string]object)
	for rows.Next() {
		var o object
		var root *int64
		if err := rows.Scan(&o.kind, &o.name, &o.table, &o.sql, &root); err != nil {
			return nil, err
		}
		if strings.HasPrefix(strings.ToLower(o.table), "sqlite_stat") {
			continue
		}
		o.sql = normalized(o.sql)
		o.holdsRows = o.kind == "table" && root != nil && *root > 0
		all[o.id()] = o
	}
	return all, rows.Err()
}

func (s *side) count(ctx context.Context, table string) (n int64, err error) {
	err = s.c.QueryRowContext(ctx, "SELECT count(*) FROM main."+quoted(table)).Scan(&n)
	return n, err
}

// normalized leaves out what a definition means nothing by: comments, and how much room
// there is between words.
func normalized(sql string) string {
	var b strings.Builder
	gap := false
	for i := 0; i < len(sql); {
		n, space := token(sql[i:])
		if space {
			gap = b.Len() > 0
		} else {
			if gap {
				b.WriteByte(' ')
			}
			gap = false
			b.WriteString(sql[i : i+n])
		}
		i += n
	}
	return b.String()
}

// token returns how long the first token of sql is: a comment or a blank, something
// quoted, or one byte of something else.
func token(sql string) (n int, space bool) {
	upTo := func(end string, from int) int {
		if i := strings.Index(sql[from:], end); i >= 0 {
			return from + i + len(end)
		}
		return len(sql)
	}
	switch c := sql[0]; {
	case strings.HasPrefix(sql, "--"):
		return upTo("\n", 2), true
	case strings.HasPrefix(sql, "/*"):
		return upTo("*/", 2), true
	case strings.IndexByte(" \t\r\n\f", c) >= 0:
		return 1, true
	case c == '\'' || c == '"' || c == '`':
		return upTo(string(c), 1), false // a doubled quote begins the next one
	case c == '[':
		return upTo("]", 1), false
	}
	return 1, false
}

// shortened is as much of a definition as fits a line.
func shortened(sql string) string {
	const most = 300
	if sql == "" {
		return "nothing"
	}
	if len(sql) > most {
		return strings.ToValidUTF8(sql[:most], "") + "…"
	}
	return sql
}
