package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
)

// views runs a test on the captured database before and after it is published,
// and on the visible one.
func (s *suite) views(run func(v dbrepl.View)) {
	s.Helper()
	c := s.capture(s.Engine)
	run(c)
	s.publish(c)
	run(c)
	run(s.open(s.Engine))
}

func refsOrder(t *testing.T, s *suite) {
	s.create()
	s.Active(t, "CREATE TABLE gen_names (name VARCHAR(16))")
	names := []string{"b", "A", "a", "B", "_", "aa", "a b", "Z", "é", "z", "0", "e", "~"}
	for _, n := range names {
		s.Active(t, fmt.Sprintf("INSERT INTO gen_names (name) VALUES ('%s')", n))
	}
	slices.Sort(names)
	s.views(func(v dbrepl.View) {
		got, err := refs(t.Context(), v, "SELECT name, 1 FROM gen_names;\n")
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i] = strings.TrimSuffix(got[i], " 1")
		}
		if !slices.Equal(got, names) {
			t.Errorf("refs come as %q, want %q", got, names)
		}
	})
}

func refsLengths(t *testing.T, s *suite) {
	s.create()
	s.Active(t, fmt.Sprintf("INSERT INTO binaries (sha1, bin_length) VALUES ('%s', NULL)", sum(1)))
	s.Active(t, fmt.Sprintf("INSERT INTO binaries (sha1, bin_length) VALUES ('%s', 9000000000000000000)", sum(2)))
	s.Active(t, fmt.Sprintf("INSERT INTO binaries (sha1, bin_length) VALUES ('%s', -1)", sum(3)))
	want := []string{string(sum(1)) + " 0", string(sum(2)) + " 9000000000000000000", string(sum(3)) + " -1"}
	s.views(func(v dbrepl.View) {
		got, err := refs(t.Context(), v, refsQuery)
		if err != nil {
			t.Error(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("refs are %q, want %q", got, want)
		}
	})
}

func refsStopEarly(t *testing.T, s *suite) {
	s.create()
	s.generation(20)
	s.views(func(v dbrepl.View) {
		for range 30 {
			for r, err := range v.Refs(t.Context(), refsQuery) {
				if err != nil || r.Sum != sum(1) {
					t.Fatalf("first ref is %v, %v", r, err)
				}
				break
			}
		}
		n := 0
		for r, err := range v.Refs(t.Context(), refsQuery) { // a question in the middle of a list
			if err != nil {
				t.Fatal(err)
			}
			for line, err := range v.Strings(t.Context(), "SELECT sha1 FROM binaries WHERE sha1 = ?", string(r.Sum)) {
				if err != nil || line != string(r.Sum) {
					t.Fatalf("asked for %s: %q, %v", r.Sum, line, err)
				}
				n++
			}
		}
		if n != 20 {
			t.Errorf("%d of 20 questions were answered", n)
		}
	})
}

func stringsOf(t *testing.T, s *suite) {
	s.Active(t, "CREATE TABLE nodes (repo VARCHAR(64), node_path VARCHAR(64), node_name VARCHAR(64), owner VARCHAR(64))")
	s.Active(t, "INSERT INTO nodes (repo, node_path, node_name, owner) VALUES ('libs', 'org/acme', 'a.jar', 'x')")
	s.Active(t, "INSERT INTO nodes (repo, node_path, node_name, owner) VALUES ('libs', NULL, 'b.jar', 'x')")
	s.Active(t, "INSERT INTO nodes (repo, node_path, node_name, owner) VALUES ('libs', '', 'c.jar', 'it''s \"q\" ?')")
	const query = "SELECT repo, node_path, node_name FROM nodes WHERE owner = ? ORDER BY node_name"
	s.views(func(v dbrepl.View) {
		for arg, want := range map[string][]string{
			"x":          {"libs/org/acme/a.jar", "libs//b.jar"},
			`it's "q" ?`: {"libs//c.jar"},
			"' OR 1=1 #": nil,
			`\`:          nil,
			"":           nil,
		} {
			var got []string
			for line, err := range v.Strings(t.Context(), query, arg) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, line)
			}
			if !slices.Equal(got, want) {
				t.Errorf("strings for %q are %q, want %q", arg, got, want)
			}
		}
	})
}

func stillNamed(t *testing.T, s *suite) {
	asker, ok := s.Engine.(dbrepl.ActiveAsker)
	if !ok {
		return // an optional ability
	}
	s.create()
	s.generation(300)
	s.sync()
	s.Active(t, fmt.Sprintf("DELETE FROM binaries WHERE sha1 = '%s'", sum(7)))
	var ask []blob.Sum
	for i := 1; i <= 301; i++ {
		ask = append(ask, sum(i))
	}
	got, err := asker.StillNamed(t.Context(), "SELECT 1 FROM binaries WHERE sha1 = ?", ask)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 301; i++ {
		if want := i != 7 && i != 301; got[sum(i)] != want {
			t.Errorf("blob %d named: %v, want %v", i, got[sum(i)], want)
		}
	}
	if got, err := asker.StillNamed(t.Context(), "SELECT 1 FROM binaries WHERE sha1 = ?", nil); err != nil || len(got) != 0 {
		t.Errorf("asked about nothing: %v, %v", got, err)
	}
}

func badQueries(t *testing.T, s *suite) {
	s.create()
	s.generation(1)
	s.views(func(v dbrepl.View) {
		for _, query := range []string{
			"SELECT sha1, bin_length FROM missing_table",
			"SELECT sha1 FROM binaries",
			"SELECT sha1, bin_length, 3 FROM binaries",
			"DELETE FROM binaries",
			"",
		} {
			if got, err := refs(t.Context(), v, query); err == nil {
				t.Errorf("%q gave %q and no error", query, got)
			}
		}
		for _, err := range v.Strings(t.Context(), "SELECT 1 FROM missing_table WHERE x = ?", "") {
			if err == nil {
				t.Error("strings of a missing table gave no error")
			}
		}
		// A question changes nothing, whatever it says.
		for _, query := range []string{"DELETE FROM binaries WHERE sha1 <> ?", "CREATE TABLE intruder AS SELECT sha1 FROM binaries WHERE sha1 <> ?"} {
			for range v.Strings(t.Context(), query, "") {
			}
		}
		s.wantRefs(v, 1)
		if _, err := refs(t.Context(), v, "SELECT sha1, 1 FROM intruder"); err == nil {
			t.Error("a question made a table")
		}
	})
	s.wantVisible(1)
}

// cancelled calls everything with a context that is over. The error carries
// its cause, and nothing has changed.
func cancelled(t *testing.T, s *suite) {
	s.create()
	s.generation(1)
	s.sync()
	s.generation(2)
	cause := errors.New("the operator said stop")
	over, cancel := context.WithCancelCause(t.Context())
	cancel(cause)

	want := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, cause) {
			t.Errorf("%s: %v, want the cause of the cancellation", what, err)
		}
	}
	_, err := s.Engine.Check(over)
	want("check", err)
	_, err = s.Engine.Capture(over, dbrepl.CaptureOptions{})
	want("capture", err)
	_, err = s.Engine.Visible(over)
	want("visible", err)
	_, err = s.Engine.Promote(over)
	want("promote", err)
	want("recover", s.Engine.Recover(over, nil))
	s.wantVisible(1)

	c := s.capture(s.Engine)
	_, err = refs(over, c, refsQuery)
	want("refs", err)
	for _, err := range c.Strings(over, "SELECT sha1 FROM binaries WHERE sha1 = ?", "x") {
		want("strings", err)
	}
	want("publish", c.Publish(over))
	want("recover with a commit", s.Engine.Recover(over, c.Token()))
	s.wantVisible(1)

	inList, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	var inTheMiddle error
	for _, err := range c.Refs(inList, refsQuery) {
		inTheMiddle = err
		stop(cause)
	}
	want("refs, cancelled after the first", inTheMiddle)

	s.publish(c)
	s.wantVisible(2)
}

func check(t *testing.T, s *suite) {
	s.create()
	s.generation(1)
	findings, err := s.Engine.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if f.Fatal {
			t.Errorf("a sound pair of databases has the fatal finding %+v", f)
		}
		if f.Subject == "" || f.Problem == "" {
			t.Errorf("a finding does not say what and where: %+v", f)
		}
	}
	s.wantVisible(0)
	_, err = s.Engine.Visible(t.Context())
	s.wantNoDatabase("visible after check", err)
}
