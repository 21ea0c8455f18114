package filter

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// fact is what one list of rules does to a copy of S/ to D/. In args and files
// "@" stands for the absolute path of the directory that holds both.
type fact struct {
	name     string
	src, dst []string
	files    map[string]string // content by path, besides src and dst
	args     []string
	created  []string
	deleted  []string
	exit     int // of rsync when it refuses; -1 is any
}

func (f *fact) prepare(t *testing.T) (dir string, args []string) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	makeTree(t, dir+"/S", f.src)
	makeTree(t, dir+"/D", f.dst)
	for name, content := range f.files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range f.args {
		args = append(args, strings.ReplaceAll(a, "@", dir))
	}
	return dir, args
}

func (f *fact) check(t *testing.T, got outcome) {
	t.Helper()
	if want := slices.Sorted(slices.Values(f.created)); !slices.Equal(got.created, want) {
		t.Errorf("created %q, want %q", got.created, want)
	}
	if want := slices.Sorted(slices.Values(f.deleted)); !slices.Equal(got.deleted, want) {
		t.Errorf("deleted %q, want %q", got.deleted, want)
	}
}

// TestFacts applies the rules of every fact here.
func TestFacts(t *testing.T) {
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			dir, args := f.prepare(t)
			rules, del, err := buildArgs(t, dir, args)
			var got outcome
			if err == nil {
				if rules, err = Decode(rules.Encode()); err != nil {
					t.Fatal(err)
				}
				got, err = copyOutcome(t, dir+"/S", dir+"/D", rules, del)
			}
			if (err != nil) != (f.exit != 0) {
				t.Fatalf("error %v, want one: %v", err, f.exit != 0)
			}
			if f.exit == 0 {
				f.check(t, got)
			}
		})
	}
}

// rsyncOutcome runs the real rsync in dir.
func rsyncOutcome(t *testing.T, dir string, args ...string) (outcome, int) {
	t.Helper()
	before := listing(t, dir+"/D")
	cmd := exec.Command("rsync", append(append([]string{"-a"}, args...), "S/", "D/")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CVSIGNORE=", "HOME="+dir, "LC_ALL=C")
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, text)
	}
	after := listing(t, dir+"/D")
	return outcome{created: without(after, before), deleted: without(before, after)}, cmd.ProcessState.ExitCode()
}

// TestFactsHoldForRsync asks the real rsync about every fact.
func TestFactsHoldForRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			dir, args := f.prepare(t)
			got, exit := rsyncOutcome(t, dir, args...)
			if exit != f.exit && (f.exit != -1 || exit == 0) {
				t.Fatalf("rsync exits %d, want %d", exit, f.exit)
			}
			if f.exit == 0 {
				f.check(t, got)
			}
		})
	}
}
