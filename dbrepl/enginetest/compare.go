package enginetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
)

// compareSides is for engines that are a dbrepl.Comparer.
func compareSides(t *testing.T, s *suite) {
	comparer, ok := s.Engine.(dbrepl.Comparer)
	if !ok {
		t.Skip("the engine compares nothing")
	}
	s.create()
	s.generation(3)
	_, err := comparer.Compare(t.Context())
	s.wantNoDatabase("compare", err)

	wantSame := func() {
		t.Helper()
		c, err := comparer.Compare(t.Context())
		if err != nil || c.Different != 0 || c.Differences != nil {
			t.Fatalf("compared with itself: %+v, %v", c, err)
		}
		if c.Tables != 3 || c.Rows != 5 || c.Chunks < 3 || c.Active.Time.IsZero() || c.Active.Position == "" || c.Active.Server == "" {
			t.Fatalf("compared: %+v", c)
		}
	}
	s.sync()
	wantSame()
	s.wantVisible(3)

	// What the active changed since, and what somebody changed here, is named by its table.
	s.Active(t, "UPDATE gen_a SET n = 4")
	s.wantDifferent(comparer, "gen_a")
	s.Active(t, "INSERT INTO binaries (sha1, bin_length) VALUES ('"+string(sum(9))+"', NULL)")
	s.wantDifferent(comparer, "binaries", "gen_a")
	s.wantVisible(3)
	s.Active(t, "DELETE FROM binaries WHERE bin_length IS NULL")
	s.Active(t, "UPDATE gen_a SET n = 3")
	wantSame()

	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := comparer.Compare(ctx); !errors.Is(err, why) {
		t.Fatalf("cancelled: %v", err)
	}
	s.sync()
	wantSame()
	// Last, since a replica that somebody wrote to is not replicated to any more.
	if s.Write("UPDATE gen_b SET n = 7") == nil { // where one lets nobody write, nobody did
		s.wantDifferent(comparer, "gen_b")
	}
}

// wantDifferent checks that one row of each of these tables is told to differ.
func (s *suite) wantDifferent(comparer dbrepl.Comparer, tables ...string) {
	s.Helper()
	c, err := comparer.Compare(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	var got []string
	for _, d := range c.Differences {
		got = append(got, d.Table[strings.LastIndex(d.Table, ".")+1:])
		if d.Text != "" {
			s.Fatalf("told: %s", d)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, tables) || c.Different != int64(len(tables)) {
		s.Fatalf("%d differences, in %q, want %q", c.Different, got, tables)
	}
}
