package postgres

import (
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// TestServersOfTwoTimeZones: what a server shows by its own settings is no difference.
func TestServersOfTwoTimeZones(t *testing.T) {
	t.Parallel()
	l := newLab(t, testenv.Postgres(t), testenv.Postgres(t, "timezone=Asia/Tokyo", "intervalstyle=iso_8601", "datestyle=German", "extra_float_digits=0", "bytea_output=escape", "lc_monetary=C.UTF-8"))
	l.onActive(t, `CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT '2020-01-01 00:00:00+00', i interval DEFAULT '1 day 2 hours', f float8, b bytea, m money, CHECK (at > '2000-01-01 00:00:00+00'));
		INSERT INTO t VALUES (1, now(), '3 years 2 days', 1.0/3, '\\x00ff', 12.5); INSERT INTO t (id) VALUES (2); CREATE INDEX ON t (at) WHERE at > '2001-01-01 00:00:00+00';
		CREATE VIEW v AS SELECT * FROM t WHERE at > '2002-01-01 00:00:00+00' AND i > '1 hour'`)
	e := l.engine(t)
	l.sync(t, e)
	l.onActive(t, "ALTER ROLE postgres SET timezone = 'America/Lima'")
	if n, err := e.Compare(t.Context()); err != nil || n.Different != 0 || n.Rows != 2 {
		t.Errorf("compared: %+v, %v", n, err)
	}
}
