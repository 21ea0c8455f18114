package enginetest

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/dump"
)

// keep captures generation n, keeps a dump of it and publishes it.
func (s *suite) keep(n int) (dir string, point dbrepl.Point) {
	s.Helper()
	s.generation(n)
	dir = filepath.Join(s.TempDir(), "dump")
	c, err := s.Engine.Capture(s.Context(), dbrepl.CaptureOptions{Dump: dir})
	if err != nil {
		s.Fatalf("capture with a dump: %v", err)
	}
	s.Cleanup(func() { c.Close() })
	m, err := dump.Check(s.Context(), dir)
	if err != nil {
		s.Fatalf("the dump: %v", err)
	}
	if m.Rows() != c.Counts().Rows || m.Point.Position != c.Point().Position || !m.Point.Time.Equal(c.Point().Time) {
		s.Errorf("the dump has %d rows at %+v, the capture %d at %+v", m.Rows(), m.Point, c.Counts().Rows, c.Point())
	}
	s.publish(c)
	s.wantVisible(n)
	return dir, c.Point()
}

func (s *suite) restorer() dbrepl.Restorer {
	s.Helper()
	r, ok := s.Engine.(dbrepl.Restorer)
	if !ok {
		s.Skip("the engine keeps no dumps")
	}
	return r
}

func restore(t *testing.T, s *suite) {
	r := s.restorer()
	s.create()
	dir, point := s.keep(4)
	s.Active(t, "DROP TABLE gen_b")
	s.Active(t, "CREATE TABLE other (n INTEGER)")
	s.sync()
	c, err := r.Restore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := s.Standby("SELECT n FROM other"); err != nil {
		t.Fatalf("the visible database changed before the publish: %v", err)
	}
	s.wantRefs(c, 4)
	if n := c.Counts(); n.Tables != 3 || n.Rows != 6 {
		t.Errorf("counts are %+v, want 3 tables with 6 rows", n)
	}
	if p := c.Point(); p.Position != point.Position || !p.Time.Equal(point.Time) {
		t.Errorf("the point is %+v, was %+v", p, point)
	}
	s.publish(c)
	s.wantVisible(4)
	if _, err := s.Standby("SELECT n FROM other"); err == nil {
		t.Error("a table of the later generation is left")
	}
	s.wantRefs(s.open(s.Open(t)), 4)

	s.Active(t, "CREATE TABLE gen_b (n INTEGER NOT NULL)")
	s.Active(t, "INSERT INTO gen_b (n) VALUES (0)")
	s.generation(6)
	s.sync()
	s.wantVisible(6)
}

// A restore that was discarded, or whose process died, leaves what was visible.
func restoreDiscarded(t *testing.T, s *suite) {
	r := s.restorer()
	s.create()
	dir, _ := s.keep(2)
	s.generation(3)
	s.sync()
	c, err := r.Restore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Discard(t.Context()), c.Close()); err != nil {
		t.Fatal(err)
	}
	s.wantVisible(3)
	c, err = r.Restore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	token := c.Token()
	c.Close()
	next := s.Open(t)
	s.recover(next, token) // its publish had begun when the process died
	s.wantVisible(2)
	s.recover(next, nil)
	s.wantVisible(2)
}

func restoreDamaged(t *testing.T, s *suite) {
	r := s.restorer()
	s.create()
	dir, _ := s.keep(2)
	s.generation(3)
	s.sync()
	m, err := dump.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	largest := slices.MaxFunc(m.Chunks, func(a, b dump.Chunk) int { return cmp.Compare(a.Stored, b.Stored) })
	path := filepath.Join(dir, largest.File)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 4
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dump.Check(t.Context(), dir); !errors.Is(err, dump.ErrDamaged) {
		t.Fatalf("the test did no damage: %v", err)
	}
	if c, err := r.Restore(t.Context(), dir); err == nil {
		c.Close()
		t.Error("a damaged dump was restored")
	}
	s.wantVisible(3)
	if _, err := r.Restore(t.Context(), filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a dump: %v", err)
	}
	s.recover(s.Engine, nil)
	s.sync()
	s.wantVisible(3)
}

// restoreAs loads a dump beside the visible database. The fixture says what a
// new database is called and how to look into it.
func restoreAs(t *testing.T, s *suite) {
	r := s.restorer()
	s.create()
	dir, _ := s.keep(3)
	s.generation(5)
	s.sync()
	name := s.Beside(t)
	counts, err := r.RestoreAs(t.Context(), dir, name)
	if err != nil {
		t.Fatal(err)
	}
	if counts.Tables != 3 || counts.Rows != 5 {
		t.Errorf("counts are %+v, want 3 tables with 5 rows", counts)
	}
	s.wantVisible(5)
	rows, err := s.Look(name, "SELECT gen_a.n, gen_b.n, (SELECT COUNT(*) FROM binaries) FROM gen_a, gen_b")
	if err != nil || !slices.Equal(rows, []string{"3|3|3"}) {
		t.Errorf("the new database shows %q, %v", rows, err)
	}
	if _, err := r.RestoreAs(t.Context(), dir, name); err == nil {
		t.Error("a database that exists was restored into")
	}
	s.sync()
	s.wantVisible(5)
}
