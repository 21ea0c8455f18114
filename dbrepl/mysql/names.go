package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// names says which table each name stood for when a capture began. Two tables
// with one definition can exchange their names (RENAME TABLE), and their rows
// would be read under either name twice or not at all: nothing of a definition
// and no snapshot tells.
//
// On MariaDB a rename gives a table a new CREATE_TIME, which is when its file
// was last given a name. That is exact when it was more than a second ago at
// first. A partition that is exchanged for a table leaves it as it was, and on
// MySQL it moves with the table: there the number that InnoDB gives a table must
// be the same as well, which it tells whoever has PROCESS.
type names map[string]string

// settled is how long ago a table must have got its name, so that it cannot get
// another in the same second: a second, and what the clock of files lags behind.
const settled = 1100 * time.Millisecond

// settling is how often a table is waited for that got its name just now.
const settling = 3

// readNames reads what all tables are told apart by.
func (k *copier) readNames(ctx context.Context, tables []table) (names, error) {
	k.byNumber = !k.theirs.MariaDB || slices.ContainsFunc(tables, func(t table) bool { return partitioned(t.ddl) })
	for try := 1; ; try++ {
		all, recent, err := k.lookUpNames(ctx, tables)
		if err != nil || recent == 0 {
			return all, err
		}
		if try == settling {
			return nil, fmt.Errorf("%w: a table was made or renamed just now", errChanged)
		}
		timer := time.NewTimer(recent)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// lookUpNames returns also for how long to wait until one that is recent is not.
func (k *copier) lookUpNames(ctx context.Context, tables []table) (_ names, recent time.Duration, err error) {
	query, args := `SELECT TABLE_NAME t, CREATE_TIME c, UNIX_TIMESTAMP(NOW(3)) - UNIX_TIMESTAMP(CREATE_TIME) age
		FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?`, []any{k.source}
	if len(tables) == 1 {
		query, args = query+" AND TABLE_NAME = ?", append(args, tables[0].name)
	}
	found, err := records(ctx, k.look, query, args...)
	if err != nil {
		return nil, 0, k.active.explain(ctx, err)
	}
	all := make(names)
	for _, r := range found {
		all[r.get("t")] = "since " + r.get("c")
	}
	for _, r := range found {
		age, err := strconv.ParseFloat(r.get("age"), 64)
		if past := time.Duration(age * float64(time.Second)); err == nil && k.theirs.MariaDB && past.Abs() < settled {
			recent = max(recent, settled-past)
		}
	}
	if !k.byNumber {
		return all, recent, nil
	}
	numbers, err := k.readNumbers(ctx)
	for name := range all {
		all[name] += numbers.of(name)
	}
	return all, recent, err
}

// tableNumber is InnoDB's number of a table or partition.
type tableNumber struct{ file, id string }

type tableNumbers []tableNumber

// readNumbers reads the numbers of all tables of the schema: none without PROCESS.
func (k *copier) readNumbers(ctx context.Context) (tableNumbers, error) {
	from := "INNODB_SYS_TABLES"
	if !k.theirs.MariaDB && k.theirs.atLeast(8, 0, 0) {
		from = "INNODB_TABLES"
	}
	schema, known := fileName(k.source)
	if schema += "/"; !known {
		schema = "" // the tables of all
	}
	found, err := records(ctx, k.look, "SELECT NAME n, TABLE_ID i FROM information_schema."+from+" WHERE LEFT(NAME, ?) = ?", len(schema), schema)
	if hasNumber(err, errAccessDeniedLocal) {
		return nil, nil
	}
	var all tableNumbers
	for _, r := range found {
		all = append(all, tableNumber{strings.TrimPrefix(r.get("n"), schema), r.get("i")})
	}
	slices.SortFunc(all, func(a, b tableNumber) int { return strings.Compare(a.file, b.file) })
	return all, k.active.explain(ctx, err)
}

// of returns the numbers of a table and its partitions. When the name of its
// file is not known they are those of all tables.
func (all tableNumbers) of(name string) string {
	file, known := fileName(name)
	var b strings.Builder
	for _, n := range all {
		base, _, _ := strings.Cut(n.file, "#")
		if !known || strings.EqualFold(base, file) || strings.Contains(base, "/") {
			fmt.Fprintf(&b, " %s=%s", n.file, n.id)
		}
	}
	return b.String()
}

// fileName is how InnoDB writes a name, if it is of ASCII characters: the letters
// of other scripts have codes of the server's own.
func fileName(name string) (_ string, known bool) {
	var b strings.Builder
	known = true
	for _, r := range name {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '_':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "@%04x", r)
			known = known && r < 128
		}
	}
	return b.String(), known
}

// errOtherTable is for the one who reads why a capture began anew.
var errOtherTable = errors.New("is another table than it was")

// same makes sure that a name stands for the table that it stood for at first.
// It proves something about rows that were read only while the reader's hold on
// the table keeps others from renaming it.
func (before names) same(now names, name string) error {
	if was, is := before[name], now[name]; is == "" || was != is {
		return fmt.Errorf("%w: %s %w", errChanged, name, errOtherTable)
	}
	return nil
}
