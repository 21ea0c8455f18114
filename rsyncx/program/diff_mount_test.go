package program_test

import (
	"maps"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNamedMounts compares -x where a name of the line is, or lies on, another
// file system than the directory that it is looked for in.
func TestNamedMounts(t *testing.T) {
	bench(t)
	dir := world(t, append(pairOfTrees(), plain("from/mnt", 'd', "")))
	mnt := filepath.Join(dir, "from/mnt")
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := build(dir, []node{plain("from/mnt/in", 'd', ""), plain("from/mnt/in/f", 'f', "f")}); err != nil {
		t.Fatal(err)
	}
	for _, opts := range [][]string{{"-ax"}, {"-axx"}, {"-axR"}, {"-axxR"}} {
		for _, srcs := range [][]string{{"from/"}, {"from/mnt"}, {"from/mnt/in", "from/d"}} {
			args := append(append(opts[:1:1], srcs...), "made/")
			var trees []map[string]bool
			for program, run := range map[string]runner{"rsync": runCommand("rsync"), "drsync": runProgram} {
				args[len(args)-1] = program + "/"
				if _, stderr, exit, err := run(t.Context(), dir, args); err != nil || exit != 0 {
					t.Fatalf("%s %q: %d, %v\n%s", program, args, exit, err, stderr)
				}
				trees = append(trees, names(t, filepath.Join(dir, program)))
				if err := alter(dir, []node{{path: program, kind: 'x'}}); err != nil {
					t.Fatal(err)
				}
			}
			if !maps.Equal(trees[0], trees[1]) || len(trees[0]) < 2 {
				t.Errorf("%q %q: %v and %v", opts, srcs, trees[0], trees[1])
			}
		}
	}
}
