package program_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fact is what one list of arguments does to a copy of S/ to D/. A name in src
// and dst that ends with a slash is a directory, "a->b" is a link to b, all
// others are files. In args "@" stands for the absolute path of the directory
// that holds both.
type fact struct {
	name     string
	src, dst []string
	files    map[string]string // content by path, besides src and dst
	args     []string
	source   string // "S/" unless told
	created  []string
	deleted  []string
	// Which names are created or deleted is not part of the fact.
	anyCreated, anyDeleted bool

	exit int
	says string // somewhere in the output
}

func (f fact) prepare(t *testing.T) (dir string, args []string) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for top, names := range map[string][]string{"S": f.src, "D": f.dst} {
		if err := os.Mkdir(filepath.Join(dir, top), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := makeName(filepath.Join(dir, top), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, content := range f.files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args = []string{"-a"}
	for _, a := range f.args {
		args = append(args, strings.ReplaceAll(a, "@", dir))
	}
	source := f.source
	if source == "" {
		source = "S/"
	}
	return dir, append(args, source, "D/")
}

func makeName(dir, name string) error {
	if link, target, ok := strings.Cut(name, "->"); ok {
		return os.Symlink(target, filepath.Join(dir, link))
	}
	path := filepath.Join(dir, name)
	if strings.HasSuffix(name, "/") {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte("x"), 0o644)
}

// names lists what is below dir; directories end with a slash.
func names(t *testing.T, dir string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if d.IsDir() {
			name += "/"
		}
		all[name] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// minus returns what a has and b has not, sorted.
func minus(a, b map[string]bool) []string {
	return slices.Sorted(func(yield func(string) bool) {
		for name := range maps.Keys(a) {
			if !b[name] && !yield(name) {
				return
			}
		}
	})
}

func (f fact) check(t *testing.T, run runner) {
	dir, args := f.prepare(t)
	before := names(t, dir+"/D")
	stdout, stderr, exit, err := run(t.Context(), dir, args)
	if err != nil {
		t.Fatal(err)
	}
	after := names(t, dir+"/D")
	if exit != f.exit {
		t.Errorf("exit status %d, want %d\n%s", exit, f.exit, stderr)
	}
	if created, want := minus(after, before), slices.Sorted(slices.Values(f.created)); !f.anyCreated && !slices.Equal(created, want) {
		t.Errorf("created %q, want %q", created, want)
	}
	if deleted, want := minus(before, after), slices.Sorted(slices.Values(f.deleted)); !f.anyDeleted && !slices.Equal(deleted, want) {
		t.Errorf("deleted %q, want %q", deleted, want)
	}
	if !strings.Contains(stdout+stderr, f.says) {
		t.Errorf("%q is not said in\n%s%s", f.says, stdout, stderr)
	}
}

// TestFacts asks the real rsync and this program about every fact.
func TestFacts(t *testing.T) {
	for name, run := range map[string]runner{"rsync": runCommand("rsync"), "drsync": runProgram} {
		t.Run(name, func(t *testing.T) {
			if name == "rsync" {
				bench(t)
			}
			for _, f := range facts {
				t.Run(f.name, func(t *testing.T) {
					t.Parallel()
					f.check(t, run)
				})
			}
		})
	}
}
