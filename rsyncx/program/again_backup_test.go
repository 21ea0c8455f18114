package program_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// What lies in the directory of backups has no source and is itself backed up.
func TestEarlierBackups(t *testing.T) {
	testenv.Require(t, "rsync")
	t.Parallel()
	for _, line := range []string{
		"-ai --del --backup-dir=BK S/ S2", "-aib --del --backup-dir=BK/deep S/ S2", "-aib --del --backup-dir=BK --suffix=.o S/ S2", "-ai --del --backup-dir=BK --max-delete=2 S/ S2",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			likeRsync(t, strings.Fields(line), func(t *testing.T, dir string) {
				plant(t, dir)
				for _, name := range []string{"k", "BK/k"} {
					path := filepath.Join(dir, "S2/BK", name)
					if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}
