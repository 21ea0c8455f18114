package program_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

// Which copy of a per-directory filter file protects the destination's names
// depends on when is deleted.
func TestFilterFilesThatArrive(t *testing.T) {
	testenv.Require(t, "rsync")
	t.Parallel()
	start := func(t *testing.T, dir string) {
		for name, text := range map[string]string{
			"S/.f": "- *.q\n", "S/new/.f": "- *.k\n", "D/new/1.k": "", "D/new/1.x": "", "D/new/1.q": "",
			"S/old/.f": "- *.x\n", "D/old/.f": "- *.k\n", "D/old/1.x": "", "D/old/1.k": "", "D/old/gone/.f": "- *.z\n", "D/old/gone/1.z": "", "D/old/gone/1.q": "",
			"S/diff/.f": "- *.different\n", "D/diff/.f": "- *.k\n", "D/diff/1.k": "", "D/diff/1.different": "", "D/1.q": "",
			"S/fresh/.f": "- *.x\n", "S/fresh/1.k": "", "S/fresh/1.x": "", "S/link/rules": "- *.k\n", "D/link/1.k": "", "S/void/g": "", "D/void/.f": "- *.k\n", "D/void/1.k": "",
		} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("rules", filepath.Join(dir, "S/link/.f")); err != nil {
			t.Fatal(err)
		}
		long := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.Type() == fs.ModeSymlink {
				return err
			}
			return os.Chtimes(path, long, long)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, more := range []string{
		"--del", "--delete-after", "--delete-before", "--delete-delay", "--delete-after -n", "--delete-after --exclude=.f", "--delete-after --existing",
		"--delete-after --ignore-existing", "--delete-after -I", "--delete-after -c", "--delete-after --max-size=9", "--delete-after -u", "--delete-after --no-l",
		"--delete-after --delete-excluded", "--delete-after --size-only", "--delete-after --max-delete=3",
	} {
		t.Run(more, func(t *testing.T) {
			t.Parallel()
			likeRsync(t, append(strings.Fields("-ai --filter=:_.f "+more), "S/", "D/"), start)
		})
	}
}
