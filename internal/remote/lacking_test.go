package remote

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
	"github.com/drsync/drsync/rsyncx"
)

// TestTransportsSayWhatTheyLack: each says its own losses, once a run; an agent has none.
func TestTransportsSayWhatTheyLack(t *testing.T) {
	s := testenv.SSHD(t)
	for transport, want := range map[string][]string{
		TransportAgent: nil,
		TransportExec:  {"extended attributes", "read in full"},
		TransportSFTP:  {"whole seconds", "owners were carried by number", "hard links", "extended attributes", "read in full"},
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
			dst, err := rsyncx.OpenRoot(to)
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			o := rsyncx.Archive()
			o.HardLinks, o.Xattrs, o.IgnoreTimes = true, true, true
			stats, err := rsyncx.Sync(t.Context(), source(t, dial(t, config(t, s, transport)), from), dst, o)
			if err != nil {
				t.Fatal(err)
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
