package rsyncx_test

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/sourcetest"
)

func TestLocalIsASource(t *testing.T) {
	sourcetest.TestSource(t, openLocal)
}

func TestLocalIsARestrictedSource(t *testing.T) {
	sourcetest.TestRestricted(t, openLocal)
}

func TestDigestsOfASource(t *testing.T) {
	sourcetest.TestDigests(t, func(t *testing.T, dir string) rsyncx.Source { return asking{openLocal(t, dir)} })
}

func openLocal(t *testing.T, dir string) rsyncx.Source { return checked(t)(rsyncx.Local(dir)) }

func checked(t *testing.T) func(rsyncx.Source, error) rsyncx.Source {
	return func(src rsyncx.Source, err error) rsyncx.Source {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return src
	}
}

// asking is a source that asks WalkOptions.Same, in the simplest way there is.
type asking struct{ rsyncx.Source }

func (a asking) Abilities() rsyncx.Abilities {
	can := a.Source.Abilities()
	can.Digests = true
	return can
}

func (a asking) Walk(ctx context.Context, o rsyncx.WalkOptions) iter.Seq2[rsyncx.Dir, error] {
	return func(yield func(rsyncx.Dir, error) bool) {
		for d, err := range a.Source.Walk(ctx, o) {
			sum, ok := rsyncx.DigestEntries(d.Entries, o.Digest)
			if err == nil && ok && o.Same != nil && !d.Partial && !rsyncx.RacyEntries(d.Entries, time.Now()) && o.Same(d.Piece(), sum) {
				d.Same, d.Entries = true, nil
				if d.Path != "" {
					d.Self = rsyncx.Entry{}
				}
			}
			if !yield(d, err) {
				return
			}
		}
	}
}
