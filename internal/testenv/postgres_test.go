package testenv

import (
	"slices"
	"testing"
)

// A server that was killed comes back with what it had committed.
func TestPostgres(t *testing.T) {
	p := Postgres(t)
	p.Exec(t, "postgres", "CREATE DATABASE d")
	p.Exec(t, "d", "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (NULL)")
	p.Kill()
	if _, err := p.Query("d", "SELECT 1"); err == nil {
		t.Fatal("a killed server answers")
	}
	p.Start()
	rows, err := p.Query("d", "SELECT n, 'x' FROM t ORDER BY n")
	if err != nil || !slices.Equal(rows, []string{"1|x", "NULL|x"}) {
		t.Fatalf("%q, %v", rows, err)
	}
	p.Stop()
	p.Start()
}
