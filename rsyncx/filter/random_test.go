package filter

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/testenv"
)

// generator makes trees and rules that have a good chance to meet.
type generator struct {
	*rand.Rand
	dir string // the directory that holds S and D
}

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

var (
	dirNames  = []string{"d", "e", "foo", "x.d", "do"}
	fileNames = []string{"a", "b", "ab", "fo", "k.o", ".h", "a b", "[z]", `a\b`, "b.d", "\xe9", "d1"}
)

// tree returns names for makeTree. A name is a directory everywhere or nowhere,
// so that the two trees differ in what there is, not in its type.
func (g *generator) tree(files map[string]string, root string) []string {
	var names []string
	var fill func(dir string, depth int)
	fill = func(dir string, depth int) {
		for _, n := range fileNames {
			if g.IntN(3) == 0 {
				names = append(names, dir+n)
			}
		}
		for _, f := range []string{".f", ".cvsignore"} {
			if g.IntN(4) == 0 {
				files[root+"/"+dir+f] = g.file(f == ".cvsignore")
			}
		}
		for _, n := range dirNames {
			if depth < 3 && g.IntN(3) == 0 {
				names = append(names, dir+n+"/")
				fill(dir+n+"/", depth+1)
			}
		}
	}
	fill("", 0)
	return names
}

func (g *generator) element() string {
	if g.IntN(3) > 0 {
		if g.IntN(2) == 0 {
			return g.pick(dirNames...)
		}
		return g.pick(fileNames...)
	}
	var s strings.Builder
	for range 1 + g.IntN(4) {
		s.WriteString(g.pick("a", "b", "d", "o", "fo", ".", "?", "*", "*", "[ab]", "[!a]", "[d-f]", "[[:alpha:]]", `\`, "[^]a]", `[\a-c]`, "["))
	}
	return s.String()
}

func (g *generator) pattern() string {
	var s strings.Builder
	if g.IntN(4) == 0 {
		s.WriteString("/")
	}
	for i := range 1 + g.IntN(3) {
		if i > 0 {
			s.WriteString("/")
		}
		switch g.IntN(12) {
		case 0:
			s.WriteString("**")
		case 1:
			s.WriteString("***")
		case 2:
			s.WriteString(g.element() + "**" + g.element())
		default:
			s.WriteString(g.element())
		}
	}
	switch g.IntN(8) {
	case 0, 1:
		s.WriteString("/")
	case 2:
		s.WriteString("/***")
	}
	return s.String()
}

// rule returns a valid rule for --filter or a per-directory file.
func (g *generator) rule(sided bool) string {
	kinds := []string{"-", "+", "-", "+", "-p", "-!", "+!"}
	if sided {
		kinds = append(kinds, "H", "S", "P", "R", "-s", "-r", "+s", "+r", "-sr", "Pp", "H!")
	}
	if g.IntN(12) == 0 {
		return g.pick("-/ ", "+/ ") + g.pick(g.dir+"/S", g.dir+"/D", "S", "**", "") + "/" + g.pattern()
	}
	if g.IntN(25) == 0 {
		return "!"
	}
	if g.IntN(15) == 0 {
		return g.pick("-x ", "+x ", "-x! ") + g.pattern() // has no say about files
	}
	return g.pick(kinds...) + g.pick(" ", "_") + g.pattern()
}

func (g *generator) file(cvs bool) string {
	var s strings.Builder
	for range 1 + g.IntN(4) {
		if cvs {
			s.WriteString(strings.ReplaceAll(g.pattern(), " ", ""))
		} else {
			s.WriteString(g.rule(false))
		}
		s.WriteString("\n")
	}
	return s.String()
}

func (g *generator) args() []string {
	var args []string
	for range 1 + g.IntN(7) {
		switch g.IntN(8) {
		case 0, 1:
			args = append(args, "--exclude", g.pattern())
		case 2:
			args = append(args, "--include", g.pattern())
		case 3:
			if g.IntN(2) == 0 {
				args = append(args, "-f", g.pick(":", ":n", ":e", ":s", ":r", ":p", ":C", ":/")+" .f")
			}
		default:
			args = append(args, "-f", g.rule(true))
		}
	}
	if g.IntN(10) == 0 {
		args = append(args, "-C")
	}
	switch g.IntN(4) {
	case 0, 1:
		args = append(args, "--delete-before")
	case 2:
		args = append(args, "--delete-before", "--delete-excluded")
	}
	return args
}

// usesWords reports that .f is read as words, which its lines are not made for.
func usesWords(args []string) bool { return slices.Contains(args, ":C .f") }

// TestRandomAgainstRsync copies random trees by random rules with the real
// rsync, and expects the same names to be created and deleted.
func TestRandomAgainstRsync(t *testing.T) {
	testenv.Require(t, "rsync")
	const groups, each = 20, 16
	for group := range groups {
		t.Run(fmt.Sprint(group), func(t *testing.T) {
			t.Parallel()
			created, deleted := 0, 0
			for i := range each {
				out := randomCase(t, uint64(group*each+i))
				created, deleted = created+len(out.created), deleted+len(out.deleted)
			}
			if created == 0 || deleted == 0 {
				t.Errorf("created %d and deleted %d names in all: the cases show nothing", created, deleted)
			}
		})
	}
}

func randomCase(t *testing.T, seed uint64) outcome {
	t.Helper()
	dir, err := os.MkdirTemp("", "drs")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), dir: dir}
	f := fact{files: map[string]string{}}
	f.src = g.tree(f.files, "S")
	f.dst = g.tree(f.files, "D")
	f.args = g.args()
	makeTree(t, dir+"/S", f.src)
	makeTree(t, dir+"/D", f.dst)
	for name, content := range f.files {
		if usesWords(f.args) && strings.HasSuffix(name, ".f") {
			content = strings.ReplaceAll(content, "!", "x")
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rules, del, err := buildArgs(t, dir, f.args)
	var got outcome
	if err == nil {
		got, err = copyOutcome(t, dir+"/S", dir+"/D", rules, del)
	}
	want, exit := rsyncOutcome(t, dir, f.args...)
	if (err != nil) != (exit != 0) {
		t.Errorf("seed %d, %q: error %v, rsync exits %d", seed, f.args, err, exit)
		return got
	}
	if err == nil && (!slices.Equal(got.created, want.created) || !slices.Equal(got.deleted, want.deleted)) {
		t.Errorf("seed %d, %q:\n created but rsync did not %q\n not created but by rsync  %q\n deleted but rsync did not %q\n not deleted but by rsync  %q\n files %q",
			seed, f.args, without(got.created, want.created), without(want.created, got.created),
			without(got.deleted, want.deleted), without(want.deleted, got.deleted), f.files)
	}
	return got
}
