package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
)

// maxRefs bounds what one query may yield: a schema made by a hostile peer can
// hide an endless query behind a table's name.
const maxRefs = 200_000_000

// maxName bounds a blob name; what is longer is cut, and malformed anyway.
const maxName = 256

// view reads one database file. Its iterators may be open at the same time,
// each with its own connection.
type view struct {
	db  *sql.DB
	pin *sql.Conn // keeps the file open, so that its inode is not reused
}

var _ dbrepl.View = (*view)(nil)

func openView(ctx context.Context, names ...candidate) (*view, error) {
	id, err := idOf(names[0].path)
	if err != nil {
		return nil, err
	}
	v := &view{db: sql.OpenDB(&pinned{file: id, names: names})}
	if v.pin, err = v.db.Conn(ctx); err != nil {
		v.db.Close()
		return nil, because(ctx, err)
	}
	return v, nil
}

func (v *view) Close() error {
	v.pin.Close()
	return v.db.Close()
}

// Refs implements dbrepl.View. Names are compared as bytes, whatever their
// column's type and collation are. A row whose name is NULL has an empty Sum, one
// whose length is NULL has length 0.
func (v *view) Refs(ctx context.Context, query string) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) {
		fail := func(err error) { yield(blob.Ref{}, fmt.Errorf("list the blobs: %w", because(ctx, err))) }
		rows, err := v.db.QueryContext(ctx, "WITH named(name, size) AS (\n"+bare(query)+"\n)"+
			" SELECT substr(CAST(name AS BLOB), 1, "+strconv.Itoa(maxName)+") AS n, size"+
			" FROM (SELECT name, size FROM named LIMIT "+strconv.Itoa(maxRefs+1)+") ORDER BY n, size")
		if err != nil {
			fail(err)
			return
		}
		defer rows.Close()
		for n := 0; ctx.Err() == nil && rows.Next(); n++ {
			// Not sql.RawBytes: Err after it, without a Next in between, waits for
			// ever when ctx is cancelled at that moment.
			var name []byte
			var size any
			if err := rows.Scan(&name, &size); err != nil {
				fail(err)
				return
			}
			length, ok := size.(int64)
			if ok = ok || size == nil; !ok {
				fail(fmt.Errorf("the length of %q is %v", name, size))
				return
			}
			if n == maxRefs {
				fail(fmt.Errorf("more than %d rows", maxRefs))
				return
			}
			if !yield(blob.Ref{Sum: blob.Sum(name), Size: length}, nil) {
				return
			}
		}
		// The last row may have been drawn before the driver noticed a cancelled ctx.
		if err := errors.Join(ctx.Err(), rows.Err()); err != nil {
			fail(err)
		}
	}
}

// Strings implements dbrepl.View. A NULL column is an empty string.
func (v *view) Strings(ctx context.Context, query, arg string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		fail := func(err error) { yield("", fmt.Errorf("query for %q: %w", arg, because(ctx, err))) }
		rows, err := v.db.QueryContext(ctx, bare(query), arg)
		if err != nil {
			fail(err)
			return
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			fail(err)
			return
		}
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		texts := make([]string, len(columns))
		for ctx.Err() == nil && rows.Next() {
			if err := rows.Scan(values...); err != nil {
				fail(err)
				return
			}
			for i, value := range values {
				texts[i] = text(*value.(*any))
			}
			if !yield(strings.Join(texts, "/"), nil) {
				return
			}
		}
		if err := errors.Join(ctx.Err(), rows.Err()); err != nil {
			fail(err)
		}
	}
}

func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case []byte:
		return string(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprint(value)
}

// count returns how many tables the database has and how many rows they hold.
// Virtual tables are left out: their content lies in ordinary ones.
func (v *view) count(ctx context.Context) (tables int, total int64, err error) {
	var names []string
	rows, err := v.db.QueryContext(ctx, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND rootpage > 0")
	if err != nil {
		return 0, 0, because(ctx, err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return 0, 0, because(ctx, err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		return 0, 0, because(ctx, err)
	}
	for _, name := range names {
		var n int64
		quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		if err := v.db.QueryRowContext(ctx, "SELECT count(*) FROM main."+quoted).Scan(&n); err != nil {
			return 0, 0, fmt.Errorf("count the rows of %q: %w", name, because(ctx, err))
		}
		total += n
	}
	return len(names), total, nil
}
