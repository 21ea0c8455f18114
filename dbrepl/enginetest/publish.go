package enginetest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
)

func nothingPublished(t *testing.T, s *suite) {
	s.create()
	_, err := s.Engine.Visible(t.Context())
	s.wantNoDatabase("visible", err)
	_, err = s.Engine.Promote(t.Context())
	s.wantNoDatabase("promote", err)
	s.recover(s.Engine, nil)
	s.recover(s.Engine, nil)
	_, err = s.Engine.Visible(t.Context())
	s.wantNoDatabase("visible after recover", err)
	if s.Engine.Describe() == "" {
		t.Error("Describe says nothing")
	}
}

func firstGeneration(t *testing.T, s *suite) {
	s.create()
	s.generation(3)
	before := time.Now()
	c := s.capture(s.Engine)
	after := time.Now()

	s.wantVisible(0)
	_, err := s.Engine.Visible(t.Context())
	s.wantNoDatabase("visible after capture", err)
	s.wantRefs(c, 3)

	p := c.Point()
	at := p.Time.Add(-p.Skew)
	if slack := p.SkewError + time.Second; at.Before(before.Add(-slack)) || at.After(after.Add(slack)) {
		t.Errorf("the point's time is %v (skew %v ± %v), but the capture ran from %v to %v", p.Time, p.Skew, p.SkewError, before, after)
	}
	if p.Server == "" || p.SkewError < 0 {
		t.Errorf("the point is %+v", p)
	}
	if n := c.Counts(); n.Tables != 3 || n.Rows != 5 || n.Bytes <= 0 {
		t.Errorf("counts are %+v, want 3 tables with 5 rows", n)
	}
	if !json.Valid(c.Token()) {
		t.Errorf("the token is not JSON: %s", c.Token())
	}

	s.publish(c)
	s.wantVisible(3)
	s.wantRefs(c, 3)
	s.wantRefs(s.open(s.Engine), 3)
	s.wantRefs(s.open(s.Open(t)), 3)
}

func captureIsInvisible(t *testing.T, s *suite) {
	s.create()
	s.generation(2)
	s.sync()
	s.generation(5)
	c := s.capture(s.Engine)
	s.wantVisible(2)
	s.wantRefs(s.open(s.Engine), 2)
	s.wantRefs(c, 5)
	s.generation(7) // what happens after the point is not part of it
	s.wantRefs(c, 5)
	s.publish(c)
	s.wantVisible(5)
	s.wantRefs(c, 5)
	s.wantRefs(s.open(s.Engine), 5)
	s.sync()
	s.wantVisible(7)
}

func publishIsIdempotent(t *testing.T, s *suite) {
	s.create()
	s.generation(1)
	s.sync()
	s.generation(2)
	c := s.sync()
	s.publish(c)
	s.wantVisible(2)
	if err := c.Discard(t.Context()); err != nil {
		t.Errorf("discard after publish: %v", err)
	}
	s.wantVisible(2)
	s.recover(s.Engine, c.Token())
	s.recover(s.Open(t), c.Token())
	s.wantVisible(2)
	s.recover(s.Open(t), nil)
	s.wantVisible(2)
	s.wantRefs(s.open(s.Engine), 2)
}

func tablesComeAndGo(t *testing.T, s *suite) {
	s.create()
	s.Active(t, "CREATE TABLE goes (x INTEGER)")
	s.generation(1)
	s.sync()
	if _, err := s.Standby("SELECT x FROM goes"); err != nil {
		t.Fatal(err)
	}
	s.Active(t, "DROP TABLE goes")
	s.Active(t, "CREATE TABLE comes (x INTEGER)")
	s.Active(t, "INSERT INTO comes (x) VALUES (42)")
	s.generation(2)
	s.sync()
	s.wantVisible(2)
	if rows, err := s.Standby("SELECT x FROM goes"); err == nil {
		t.Errorf("a table that the active no longer has is still visible, with %q", rows)
	}
	if rows, err := s.Standby("SELECT x FROM comes"); err != nil || len(rows) != 1 || rows[0] != "42" {
		t.Errorf("a new table shows %q, %v", rows, err)
	}
}

func discard(t *testing.T, s *suite) {
	s.create()
	s.generation(1)
	c := s.capture(s.Engine)
	for range 2 {
		if err := c.Discard(t.Context()); err != nil {
			t.Fatalf("discard: %v", err)
		}
	}
	s.wantVisible(0)
	_, err := s.Engine.Visible(t.Context())
	s.wantNoDatabase("visible after discard", err)
	if err := c.Publish(t.Context()); err == nil {
		t.Error("a discarded capture was published")
	}
	s.sync()
	s.generation(2)
	c = s.capture(s.Engine)
	if err := c.Discard(t.Context()); err != nil {
		t.Fatalf("discard: %v", err)
	}
	s.wantVisible(1)
	s.generation(3)
	s.sync()
	s.wantVisible(3)
}

func recoverWithoutCommit(t *testing.T, s *suite) {
	s.create()
	s.generation(1)
	lost := s.capture(s.Open(t)) // the process ends here
	s.recover(s.Engine, nil)
	s.wantVisible(0)
	if err := lost.Publish(t.Context()); err == nil {
		t.Error("a capture that recovery removed was published")
	}
	s.sync()
	s.generation(2)
	s.capture(s.Open(t))
	s.recover(s.Engine, nil)
	s.recover(s.Engine, nil)
	s.wantVisible(1)
	s.sync()
	s.wantVisible(2)
}

func recoverWithCommit(t *testing.T, s *suite) {
	s.create()
	s.generation(1)
	for n := 1; n <= 2; n++ { // onto nothing, and onto an older generation
		s.generation(n)
		c := s.capture(s.Open(t)) // the process ends just before Publish
		s.recover(s.Open(t), c.Token())
		s.wantVisible(n)
		s.recover(s.Open(t), c.Token())
		s.wantVisible(n)
		s.wantRefs(s.open(s.Engine), n)
	}
	for _, bad := range []string{`{}`, `[]`, `"x"`, `{`, `{"format":99}`} {
		if err := s.Engine.Recover(t.Context(), dbrepl.Token(bad)); err == nil {
			t.Errorf("recover took the token %s", bad)
		}
	}
	s.wantVisible(2)
}

func crashDuringFirstPublish(t *testing.T, s *suite) { s.crash(0) }
func crashDuringLaterPublish(t *testing.T, s *suite) { s.crash(1) }

// crash stops a publish at every point, then its recovery at the same number of
// points, and then lets recovery finish. Once start is 0 the first crash meets
// a standby without a database.
func (s *suite) crash(start int) {
	s.create()
	shown := start
	if start > 0 {
		s.generation(start)
		s.sync()
	}
	for n := 1; ; n++ {
		if n > 1000 {
			s.Fatal("a publish has more than 1000 points to crash at")
		}
		next := start + 1 + n%3 // small, and never the one before
		s.generation(next)
		e, reached := s.Crash(s, n)
		c := s.capture(e)
		err := c.Publish(s.Context())
		if !reached() {
			if err != nil {
				s.Fatalf("publish: %v", err)
			}
			if n == 1 {
				s.Fatal("the fixture knows no point to crash at")
			}
			s.wantVisible(next)
			return
		}
		what := fmt.Sprintf("crash at point %d", n)
		if err == nil {
			s.Fatalf("%s: publish returned no error", what)
		}
		if got := s.visible(); got != shown && got != next && (start > 0 || got != 0) {
			s.Fatalf("%s: the standby shows generation %d, want %d or %d", what, got, shown, next)
		}
		again, reachedAgain := s.Crash(s, n)
		if err := again.Recover(s.Context(), c.Token()); (err != nil) != reachedAgain() {
			s.Fatalf("%s: recovery, which crashes too (%v): %v", what, reachedAgain(), err)
		}
		for range 2 {
			s.recover(s.Open(s), c.Token())
			s.wantVisible(next)
		}
		s.wantRefs(s.open(s.Engine), next)
		shown = next
	}
}

func promote(t *testing.T, s *suite) {
	s.create()
	s.generation(2)
	want := s.sync().Point()
	for range 2 {
		got, err := s.Engine.Promote(t.Context())
		if err != nil {
			t.Fatalf("promote: %v", err)
		}
		if !got.Time.Equal(want.Time) || got.Position != want.Position || got.Server != want.Server {
			t.Errorf("promoted at %+v, published was %+v", got, want)
		}
	}
	if err := s.Write("INSERT INTO binaries (sha1, bin_length) VALUES ('promoted', 1)"); err != nil {
		t.Errorf("the promoted database cannot be written: %v", err)
	}
	if _, err := s.Open(t).Promote(t.Context()); err != nil {
		t.Errorf("promote again: %v", err)
	}
	if rows, err := s.Standby("SELECT COUNT(*) FROM binaries"); err != nil || rows[0] != "3" {
		t.Errorf("after another promote the application's row is gone: %q, %v", rows, err)
	}
}
