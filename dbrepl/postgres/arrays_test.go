package postgres

import (
	"slices"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// TestSettingsOfTheStandby: what a server or an account has set for its own sessions
// changes no value on its way.
func TestSettingsOfTheStandby(t *testing.T) {
	t.Parallel()
	l := newLab(t, testenv.Postgres(t), testenv.Postgres(t, "array_nulls=off", "transform_null_equals=on", "timezone=Asia/Tokyo"))
	l.onActive(t, `CREATE TABLE t (a text[], m money, at timestamptz DEFAULT '2020-01-01 00:00:00+00', n int, CHECK ((n = NULL) IS NULL));
		INSERT INTO t VALUES (ARRAY['NULL', NULL, 'x'], 1234.5, now(), 1)`)
	l.standby.Exec(t, "postgres", "ALTER ROLE postgres SET array_nulls = off")
	l.sync(t, l.engine(t))
	const ask = "SELECT a[1] = 'NULL', a[2] IS NULL, m::numeric, at = (SELECT max(at) FROM t), (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname LIKE 't_%') FROM t"
	want, err := l.active.Query(l.name, ask)
	must(t, err)
	if got, err := l.standby.Query(l.name, ask); err != nil || !slices.Equal(got, want) {
		t.Errorf("the standby has %q, %v, the active %q", got, err, want)
	}
	if n, err := l.engine(t).Compare(t.Context()); err != nil || n.Different != 0 {
		t.Errorf("compared: %+v, %v", n, err)
	}
}
