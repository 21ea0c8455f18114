package rsyncx

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// TestUnsafeLinksAsRsync asks rsync which links --safe-links leaves out.
func TestUnsafeLinksAsRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	dir := tempDir(t)
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	targets := []string{"a", ".", "..", "../", "../a", "../..", "../../", "../../a", "../../../a", "/", "/a", "a/..", "a/../b", "a/../../b", "./..", "./../a", "./a",
		".//../a", "..//../a", "../..//..", "..//", "../.", "../a/../b", "a//b", "../a/..", "..a", "a..", "...", "../.../a", "../../../", "./."}
	for _, sub := range []string{"", "x", "x/y"} {
		mkdirs(t, filepath.Join(from, sub))
		for i, target := range targets {
			if err := os.Symlink(target, filepath.Join(from, sub, fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if out, err := exec.Command("rsync", "-rl", "--safe-links", from+"/", to).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, sub := range []string{"", "x", "x/y"} {
		for i, target := range targets {
			_, err := os.Lstat(filepath.Join(to, sub, fmt.Sprint(i)))
			if path := joinPath(sub, fmt.Sprint(i)); leavesTree(path, target) != (err != nil) {
				t.Errorf("%s -> %s: unsafe is %v, rsync: %v", path, target, leavesTree(path, target), err)
			}
		}
	}
}
