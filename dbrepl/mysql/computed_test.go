package mysql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// TestComputedByTheSession finds a stored column whose value goes by the time
// zone of who wrote it, and says before that it is one.
func TestComputedByTheSession(t *testing.T) { everywhere(t, computedByTheSession) }

func computedByTheSession(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE day (id INT PRIMARY KEY, ts TIMESTAMP NULL, d DATETIME, e DATE AS (CAST(ts AS DATE)) STORED, f DATE AS (CAST(d AS DATE)) STORED, g DATE AS (CAST(ts AS DATE)) VIRTUAL) ENGINE=InnoDB")
	l.active.Exec(t, l.name, "SET time_zone='+05:00'; INSERT INTO day (id, ts, d) VALUES (1, '2024-01-01 12:00:00', '2024-01-01 02:00:00')")
	findings, err := l.engine(t).Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var zoned []string
	for _, f := range findings {
		if f.Subject == "active table day" {
			zoned = append(zoned, f.Problem)
		}
	}
	if len(zoned) != 1 || !strings.HasPrefix(zoned[0], "the stored column e is computed from ts, a TIMESTAMP") {
		t.Errorf("findings: %q", zoned)
	}
	l.sync(t, l.engine(t))
	if r, err := l.engine(t).Compare(t.Context()); err != nil || r.Different != 0 {
		t.Errorf("the same in either zone: %+v, %v", r, err)
	}
	l.active.Exec(t, l.name, "SET time_zone='+05:00'; INSERT INTO day (id, ts) VALUES (2, '2024-01-01 02:00:00')")
	_, err = l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if !errors.Is(err, dbrepl.ErrDiffers) || !strings.Contains(hint.Of(err), "day.e, day.f") {
		t.Errorf("capture: %v, %s", err, hint.Of(err))
	}
	l.sync(t, l.engine(t))
	if r, err := l.engine(t).Compare(t.Context()); err != nil || r.Different != 1 || r.Differences[0].Table != "day" {
		t.Errorf("compare: %+v, %v", r, err)
	}
}

// TestJSONOfMySQL names the column whose document has a type that its text lacks.
func TestJSONOfMySQL(t *testing.T) {
	t.Parallel()
	l := startLab(t, mySQL)
	l.onActive(t, `CREATE TABLE js (id INT PRIMARY KEY, doc JSON) ENGINE=InnoDB; INSERT INTO js VALUES (1, '{"a": [1, 2.5, 1e3, "x", null, true]}')`)
	if _, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{Verify: true}); err != nil {
		t.Errorf("a document of text: %v", err)
	}
	l.onActive(t, "INSERT INTO js VALUES (2, CAST(CAST(1.10 AS DECIMAL(10,2)) AS JSON))")
	_, err := l.engine(t).Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if !errors.Is(err, dbrepl.ErrDiffers) || !strings.Contains(hint.Of(err), "js.doc") {
		t.Errorf("a DECIMAL in a document: %v, %s", err, hint.Of(err))
	}
}

// TestLargestSet copies a SET of as many members as there may be, all of whose
// bits are used.
func TestLargestSet(t *testing.T) { everywhere(t, largestSet) }

func largestSet(t *testing.T, p product) {
	l := startLab(t, p)
	var members []string
	for i := range 64 {
		members = append(members, fmt.Sprintf("m%d", i))
	}
	l.onActive(t, "CREATE TABLE s (id INT PRIMARY KEY, s SET('"+strings.Join(members, "','")+"')) ENGINE=InnoDB")
	l.onActive(t, "INSERT INTO s VALUES (1, 'm63'), (2, 'm0,m63'), (3, ''), (4, 'm0,m60'), (5, NULL), (6, '"+strings.Join(members, ",")+"')")
	for _, local := range []bool{true, false} {
		e := l.engine(t)
		e.neverLocal = !local
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		const q = "SELECT id, s FROM s ORDER BY id"
		if want, got := l.mustQuery(t, l.active, q), l.mustQuery(t, l.standby, q); !slices.Equal(want, got) {
			t.Errorf("%q, on the active %q", got, want)
		}
	}
}
