package program_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBackupDirThatCannotBe names directories for backups that something else is in
// the way of: nothing makes way for them, and nothing is half done.
func TestBackupDirThatCannotBe(t *testing.T) {
	t.Parallel()
	drsync := built(t)
	for _, c := range []struct {
		name, dir string
		exit      int
	}{
		{"behind a file", "a/b", 11},
		{"behind a file, dotted", "./a/b", 11},
		{"a file", "a", 1},
		{"behind a fifo", "fifo/b", 11},
		{"behind a link", "link/b", 11},
		{"a link", "link", 11},
		{"behind a file outside", "../file/b", 11},
		{"behind a file, absolute", "@/file/b", 11},
		{"fine", "new/b", 0},
		{"fine, outside", "../new/b", 0},
	} {
		for _, more := range []string{"-a", "-aH --inplace", "-a --del"} {
			t.Run(c.name+" "+more, func(t *testing.T) {
				t.Parallel()
				const sec = 1_000_000_000
				text := func(s string) []segment { return []segment{{kind: 't', text: s}} }
				dir := world(t, []node{
					{path: "from", kind: 'd', mode: 0o755, sec: sec},
					{path: "from/x", kind: 'f', mode: 0o644, sec: sec, content: text("new")},
					{path: "from/a", kind: 'f', mode: 0o644, sec: sec, content: text("changed")},
					{path: "to", kind: 'd', mode: 0o755, sec: sec},
					{path: "to/x", kind: 'f', mode: 0o644, sec: sec + 9, content: text("old")},
					{path: "to/a", kind: 'f', mode: 0o644, sec: sec, content: text("precious")},
					{path: "to/fifo", kind: 'p', mode: 0o644, sec: sec},
					{path: "to/link", kind: 'l', target: "../elsewhere", sec: sec},
					{path: "elsewhere", kind: 'd', mode: 0o755, sec: sec},
					{path: "file", kind: 'f', mode: 0o644, sec: sec, content: text("f")},
				})
				before := contents(t, dir)
				words := append([]string{drsync, "rsync", "-b", "--backup-dir=" + strings.ReplaceAll(c.dir, "@", dir)}, strings.Fields(more)...)
				exit, said := run(t, dir, append(words, "from/", "to/")...)
				after := contents(t, dir)
				if exit != c.exit {
					t.Fatalf("exit status %d, want %d: %s", exit, c.exit, said)
				}
				if exit != 0 && !slices.Equal(after, before) {
					t.Errorf("it was\n%s\nand is\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
				}
				if exit == 0 && (!slices.ContainsFunc(after, func(s string) bool { return strings.HasSuffix(s, "new/b/x old") }) ||
					!slices.ContainsFunc(after, func(s string) bool { return strings.HasSuffix(s, "new/b/a precious") })) {
					t.Errorf("the backups are not there:\n%s", strings.Join(after, "\n"))
				}
			})
		}
	}
}

// contents lists what is below dir, with the content of files.
func contents(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(name, dir)
		if e.Type().IsRegular() {
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line += " " + string(content)
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
