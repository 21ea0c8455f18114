// Package enginetest is the contract of dbrepl.Engine as a suite of tests,
// which every engine runs against its own real servers.
//
// It speaks only SQL that all of them understand.
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

// Fixture is one engine with an active that has an empty database and a
// standby where nothing was ever published. Its functions end the test t they
// are given when the fixture itself breaks.
type Fixture struct {
	Engine dbrepl.Engine

	// Active executes one statement on the active's database.
	Active func(t testing.TB, statement string)

	// Standby runs a query on the database that the standby's application
	// would open, and returns its rows, each with its columns joined by "|".
	// Without such a database or table it returns an error.
	Standby func(query string) ([]string, error)

	// Write executes one statement on that database with the rights of the
	// standby's application.
	Write func(statement string) error

	// Beside returns the name of a database that does not exist, for RestoreAs,
	// and Look runs a query on it as Standby does on the visible one. Engines that
	// keep no dumps need neither.
	Beside func(t testing.TB) string
	Look   func(name, query string) ([]string, error)

	// Open returns another engine for the same two databases, as the next
	// process would have it. The fixture closes it when the test ends.
	Open func(t testing.TB) dbrepl.Engine

	// Crash returns an engine as Open does that stops dead at the n-th point,
	// counted from 1, where a crash during Publish or Recover could leave a
	// trace: the call returns an error and does nothing more. reached says
	// whether it has come that far. The suite tries every n until one is not
	// reached.
	Crash func(t testing.TB, n int) (e dbrepl.Engine, reached func() bool)

	// Watched returns an engine as Open does that calls at before each of the
	// points where Crash would stop it, and goes on. nil is for an engine whose
	// readers may see states between two snapshots while it publishes.
	Watched func(t testing.TB, at func()) dbrepl.Engine
}

// Run runs the suite; newFixture makes a fresh fixture for each of its tests.
func Run(t *testing.T, newFixture func(t testing.TB) Fixture) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"NothingPublished", nothingPublished},
		{"FirstGeneration", firstGeneration},
		{"CaptureIsInvisible", captureIsInvisible},
		{"PublishIsIdempotent", publishIsIdempotent},
		{"TablesComeAndGo", tablesComeAndGo},
		{"Discard", discard},
		{"RecoverWithoutCommit", recoverWithoutCommit},
		{"RecoverWithCommit", recoverWithCommit},
		{"CrashDuringFirstPublish", crashDuringFirstPublish},
		{"CrashDuringLaterPublish", crashDuringLaterPublish},
		{"EveryMomentOfAPublish", everyMomentOfAPublish},
		{"Promote", promote},
		{"RefsOrder", refsOrder},
		{"RefsLengths", refsLengths},
		{"RefsStopEarly", refsStopEarly},
		{"Strings", stringsOf},
		{"StillNamed", stillNamed},
		{"BadQueries", badQueries},
		{"Cancelled", cancelled},
		{"Check", check},
		{"Restore", restore},
		{"RestoreDiscarded", restoreDiscarded},
		{"RestoreDamaged", restoreDamaged},
		{"RestoreAs", restoreAs},
		{"Compare", compareSides},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{T: t, Fixture: newFixture(t)}
			test.run(t, s)
		})
	}
}

const refsQuery = "SELECT sha1, bin_length FROM binaries"

// suite adds to a fixture the steps that most tests share.
type suite struct {
	*testing.T
	Fixture
}

// create makes the tables of the suite on the active: gen_a and gen_b hold the
// number of the generation, so that a mix of two shows.
func (s *suite) create() {
	s.Helper()
	s.Active(s, "CREATE TABLE binaries (sha1 VARCHAR(64) NOT NULL PRIMARY KEY, bin_length BIGINT)")
	s.Active(s, "CREATE TABLE gen_a (n INTEGER NOT NULL)")
	s.Active(s, "CREATE TABLE gen_b (n INTEGER NOT NULL)")
	s.Active(s, "INSERT INTO gen_a (n) VALUES (0)")
	s.Active(s, "INSERT INTO gen_b (n) VALUES (0)")
}

// generation turns the active's database into generation n: blobs 1 to n.
func (s *suite) generation(n int) {
	s.Helper()
	s.Active(s, fmt.Sprintf("UPDATE gen_a SET n = %d", n))
	s.Active(s, "DELETE FROM binaries")
	for i := 1; i <= n; i++ {
		s.Active(s, fmt.Sprintf("INSERT INTO binaries (sha1, bin_length) VALUES ('%s', %d)", sum(i), 10*i))
	}
	s.Active(s, fmt.Sprintf("UPDATE gen_b SET n = %d", n))
}

func sum(i int) blob.Sum { return blob.Sum(fmt.Sprintf("%040x", i)) }

// visible returns the generation that the standby shows, or 0 for none. A mix
// of two generations ends the test.
func (s *suite) visible() int {
	s.Helper()
	n, err := s.look()
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// look is visible for any goroutine.
func (s *suite) look() (int, error) {
	rows, err := s.Standby("SELECT gen_a.n, gen_b.n, (SELECT COUNT(*) FROM binaries) FROM gen_a, gen_b")
	if err != nil {
		return 0, nil
	}
	var a, b, c int
	if len(rows) != 1 {
		return 0, fmt.Errorf("the standby shows %q", rows)
	}
	if _, err := fmt.Sscanf(rows[0], "%d|%d|%d", &a, &b, &c); err != nil {
		return 0, fmt.Errorf("the standby shows %q: %w", rows, err)
	}
	if a != b || b != c {
		return 0, fmt.Errorf("the standby shows a mix of generations %d, %d and %d", a, b, c)
	}
	return a, nil
}

func (s *suite) wantVisible(n int) {
	s.Helper()
	if got := s.visible(); got != n {
		s.Fatalf("the standby shows generation %d, want %d", got, n)
	}
}

func (s *suite) capture(e dbrepl.Engine) dbrepl.Captured {
	s.Helper()
	c, err := e.Capture(s.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		s.Fatalf("capture: %v", err)
	}
	s.Cleanup(func() { c.Close() })
	return c
}

func (s *suite) publish(c dbrepl.Captured) {
	s.Helper()
	if err := c.Publish(s.Context()); err != nil {
		s.Fatalf("publish: %v", err)
	}
}

// sync brings the standby to the active's state with the fixture's engine.
func (s *suite) sync() dbrepl.Captured {
	s.Helper()
	c := s.capture(s.Engine)
	s.publish(c)
	return c
}

func (s *suite) recover(e dbrepl.Engine, commit dbrepl.Token) {
	s.Helper()
	if err := e.Recover(s.Context(), commit); err != nil {
		s.Fatalf("recover: %v", err)
	}
}

// refs returns what Refs yields as "sum length" lines.
func refs(ctx context.Context, v dbrepl.View, query string) (lines []string, err error) {
	for r, err := range v.Refs(ctx, query) {
		if err != nil {
			return lines, err
		}
		lines = append(lines, fmt.Sprintf("%s %d", r.Sum, r.Size))
	}
	return lines, nil
}

// wantRefs checks that v names the blobs of generation n.
func (s *suite) wantRefs(v dbrepl.View, n int) {
	s.Helper()
	var want []string
	for i := 1; i <= n; i++ {
		want = append(want, fmt.Sprintf("%s %d", sum(i), 10*i))
	}
	got, err := refs(s.Context(), v, refsQuery)
	if err != nil {
		s.Fatalf("refs: %v", err)
	}
	if !slices.Equal(got, want) {
		s.Fatalf("refs are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// open returns the view of the visible database.
func (s *suite) open(e dbrepl.Engine) dbrepl.View {
	s.Helper()
	v, err := e.Visible(s.Context())
	if err != nil {
		s.Fatalf("visible: %v", err)
	}
	s.Cleanup(func() { v.Close() })
	return v
}

func (s *suite) wantNoDatabase(what string, err error) {
	s.Helper()
	if !errors.Is(err, dbrepl.ErrNoDatabase) {
		s.Fatalf("%s: %v, want ErrNoDatabase", what, err)
	}
}
