package enginetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
)

// patience is how long a look at the standby in the middle of a publish may
// wait, as a reader would, before the publish goes on.
const patience = time.Second

// everyMomentOfAPublish looks at the standby between the steps of a publish and
// of a recovery, while they are under way: a crash stops there without any of
// the tidying that an error that is returned still brings about.
func everyMomentOfAPublish(t *testing.T, s *suite) {
	if s.Watched == nil {
		t.Skip("readers may see states between two snapshots")
	}
	s.create()
	for next := 1; next <= 4; next++ { // onto nothing, onto one generation, onto two
		m := &moments{suite: s, shown: next - 1, next: next, asks: s.Open(t)}
		s.generation(next)
		e := s.Watched(t, m.look)
		c := s.capture(e)
		m.looks = 0 // before the publish
		if next < 4 {
			s.publish(c)
		} else {
			s.recover(s.Watched(t, m.look), c.Token())
		}
		m.settle()
		s.wantVisible(next)
	}
}

// moments are looks at the standby while shown gives way to next.
type moments struct {
	*suite
	shown, next int
	asks        dbrepl.Engine // that a promotion at this moment would have
	looks       int
	late        []chan error // of looks that had to wait
}

func (m *moments) look() {
	m.looks++
	seen := make(chan error, 1)
	at := fmt.Sprintf("look %d", m.looks)
	go func() { seen <- m.whole(at) }()
	patient := time.NewTimer(patience)
	defer patient.Stop()
	select {
	case err := <-seen:
		if err != nil {
			m.Error(err)
		}
	case <-patient.C:
		m.late = append(m.late, seen)
	}
}

// whole returns an error unless the standby shows one whole generation, to its
// application and to a promotion.
func (m *moments) whole(at string) error {
	n, err := m.suite.look()
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if n != m.shown && n != m.next {
		return fmt.Errorf("%s: the standby shows generation %d, want %d or %d", at, n, m.shown, m.next)
	}
	v, err := m.asks.Visible(m.Context())
	if errors.Is(err, dbrepl.ErrNoDatabase) && m.shown == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: visible: %w", at, err)
	}
	defer v.Close()
	got, err := refs(m.Context(), v, refsQuery)
	if err != nil {
		return fmt.Errorf("%s: refs of the visible database: %w", at, err)
	}
	if len(got) != m.shown && len(got) != m.next {
		return fmt.Errorf("%s: the visible database names %d blobs, want %d or %d", at, len(got), m.shown, m.next)
	}
	return nil
}

// settle takes the looks that had to wait. Such a reader was told to come again,
// or sees what there is after the publish.
func (m *moments) settle() {
	m.Helper()
	if len(m.late) == m.looks {
		m.Fatalf("none of %d looks at the standby came back before the publish went on", m.looks)
	}
	ctx, cancel := context.WithTimeout(m.Context(), time.Minute)
	defer cancel()
	for _, seen := range m.late {
		select {
		case <-seen:
		case <-ctx.Done():
			m.Fatal("a reader that waited during the publish waits still")
		}
	}
	if n, err := m.suite.look(); err != nil || n != m.next {
		m.Fatalf("after it the standby shows generation %d, %v; want %d", n, err, m.next)
	}
}
