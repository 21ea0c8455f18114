package remote

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
)

// TestSecondsOf: 32 bits are a time that may be, as far as one can tell.
func TestSecondsOf(t *testing.T) {
	today, later := time.Unix(1_790_000_000, 0), time.Unix(3_000_000_000, 0)
	for _, c := range []struct {
		v    uint32
		now  time.Time
		want int64
	}{
		{0, today, 0},
		{1_790_000_000, today, 1_790_000_000},
		{1<<31 - 1, today, 1<<31 - 1},
		{1 << 31, today, -1 << 31},
		{1<<32 - 1, today, -1},
		{2_999_999_999, later, 2_999_999_999},
		{3_000_090_000, later, 3_000_090_000 - 1<<32},
	} {
		if got := secondsOf(c.v, c.now); got != c.want {
			t.Errorf("%d in %d is %d, want %d", c.v, c.now.Year(), got, c.want)
		}
	}
}

// TestTransportsSayWhatTheyLack: each says its own losses, once a run; an agent has none.
func TestTransportsSayWhatTheyLack(t *testing.T) {
	s := testenv.SSHD(t)
	for transport, want := range map[string][]string{
		TransportAgent: nil,
		TransportExec:  {"extended attributes", "holes", "read in full"},
		TransportSFTP:  {"whole seconds", "owners were carried by number", "hard links", "extended attributes", "holes", "before 1970", "read in full"},
	} {
		t.Run(transport, func(t *testing.T) {
			from, to := t.TempDir(), t.TempDir()
			for dir, letter := range map[string]string{from: "a", to: "b"} {
				for _, name := range []string{"one", "two"} {
					if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte(letter), 50_000), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			ancient := time.Unix(-300_000_000, 0)
			for _, name := range []string{"one", "two"} {
				if err := os.Chtimes(filepath.Join(from, name), ancient, ancient); err != nil {
					t.Fatal(err)
				}
			}
			dst, err := rsyncx.OpenRoot(to)
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			o := rsyncx.Archive()
			o.HardLinks, o.Xattrs, o.IgnoreTimes, o.Sparse = true, true, true, true
			stats, err := rsyncx.Sync(t.Context(), source(t, dial(t, config(t, s, transport)), from), dst, o)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(filepath.Join(to, "one")); err != nil || !info.ModTime().Equal(ancient) {
				t.Errorf("a file of 1960 is of %v, %v", info.ModTime(), err)
			}
			notes := slices.DeleteFunc(stats.Notes, func(n string) bool {
				return strings.HasPrefix(n, "a group was") || strings.HasPrefix(n, "an owner was")
			})
			if len(notes) != len(want) {
				t.Fatalf("noted %q, want %q", notes, want)
			}
			for i, part := range want {
				if !strings.Contains(notes[i], part) {
					t.Errorf("note %d is %q, want %q", i, notes[i], part)
				}
			}
		})
	}
}
