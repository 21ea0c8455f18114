package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// quote quotes an identifier.
func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// text quotes a string literal, for sessions that treat backslashes as escapes.
func text(s string) string {
	return "'" + literalEscapes.Replace(s) + "'"
}

var literalEscapes = strings.NewReplacer("'", `\'`, `\`, `\\`, "\x00", `\0`, "\n", `\n`, "\r", `\r`, "\x1a", `\Z`)

// asker is a session or a transaction in one.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// record is a row by the lower-case names of its columns.
type record map[string]sql.NullString

func (r record) get(column string) string { return r[column].String }

// records runs a query whose answer is small and returns all of it.
func records(ctx context.Context, c asker, query string, args ...any) ([]record, error) {
	rows, err := c.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var all []record
	for rows.Next() {
		values := make([]sql.NullString, len(names))
		dest := make([]any, len(names))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		r := make(record, len(names))
		for i, n := range names {
			r[strings.ToLower(n)] = values[i]
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// one is records for an answer of exactly one row.
func one(ctx context.Context, c asker, query string, args ...any) (record, error) {
	all, err := records(ctx, c, query, args...)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%d rows instead of one for %s", len(all), query)
	}
	return all[0], nil
}

// valuesOf returns one column of records.
func valuesOf(all []record, name string) []string {
	values := make([]string, len(all))
	for i, r := range all {
		values[i] = r.get(name)
	}
	return values
}

// someOf lists names for a message, the first few of them.
func someOf(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
