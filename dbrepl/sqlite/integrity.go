package sqlite

import (
	"context"
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"
)

// damage is what SQLite found wrong in a database.
type damage struct{ verdict string }

func (d *damage) Error() string { return "damaged: " + d.verdict }

// uncheckable says that SQLite could not look at all of a database: it needs a function or
// a collation that the application makes.
type uncheckable struct{ err error }

func (u *uncheckable) Error() string {
	return fmt.Sprintf("its indexes cannot be checked against its tables without the application's own functions: %v", u.err)
}
func (u *uncheckable) Unwrap() error { return u.err }

// quickCheck asks SQLite whether the file is a sound database. What indexes hold is
// not compared with their tables: that takes some twenty times as long.
func (v *view) quickCheck(ctx context.Context) error { return pragmaCheck(ctx, v.db, "quick_check") }

// integrityCheck asks that as well.
func integrityCheck(ctx context.Context, db asker) error {
	err := pragmaCheck(ctx, db, "integrity_check")
	if code(err) == sqlite3.SQLITE_ERROR && ctx.Err() == nil {
		return &uncheckable{err}
	}
	return err
}

func pragmaCheck(ctx context.Context, db asker, pragma string) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA "+pragma+"(1)").Scan(&verdict); err != nil {
		return because(ctx, err)
	}
	if verdict != "ok" {
		return &damage{verdict}
	}
	return nil
}
