package filter

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// outcome is what a copy changes at the destination; directories end in '/'.
type outcome struct{ created, deleted []string }

// walker applies rules to two trees the way a copy with or without --delete does.
type walker struct {
	t        *testing.T
	src, dst string
	delete   bool
	out      outcome
}

func copyOutcome(t *testing.T, src, dst string, rules *Rules, del bool) (outcome, error) {
	t.Helper()
	w := &walker{t: t, src: src, dst: dst, delete: del}
	sender, err := rules.Root().Enter("", w.reader(src, ""))
	if err != nil {
		return outcome{}, err
	}
	receiver, err := rules.Root().Enter("", w.reader(dst, ""))
	if err != nil {
		return outcome{}, err
	}
	err = w.dir("", sender, receiver)
	slices.Sort(w.out.created)
	slices.Sort(w.out.deleted)
	return w.out, err
}

func (w *walker) reader(root, dir string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(root, dir, name)) }
}

type entry struct {
	path  string
	isDir bool
}

func (e entry) shown() string {
	if e.isDir {
		return e.path + "/"
	}
	return e.path
}

// list returns what of the directory is not excluded for side.
func (w *walker) list(root, dir string, s *Scope, side Side) []entry {
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	var in []entry
	for _, e := range entries {
		p := e.Name()
		if dir != "" {
			p = dir + "/" + p
		}
		if excluded, _ := s.Excluded(p, e.IsDir(), side); !excluded {
			in = append(in, entry{p, e.IsDir()})
		}
	}
	return in
}

// dir walks a directory that exists at the source and was not excluded.
func (w *walker) dir(dir string, sender, receiver *Scope) error {
	sent := w.list(w.src, dir, sender, Sender)
	has := func(path string) bool {
		return slices.ContainsFunc(sent, func(e entry) bool { return e.path == path })
	}
	if w.delete {
		for _, e := range w.list(w.dst, dir, receiver, Receiver) {
			if has(e.path) {
				continue
			}
			if _, err := w.remove(e, receiver); err != nil {
				return err
			}
		}
	}
	for _, e := range sent {
		if _, err := os.Lstat(filepath.Join(w.dst, e.path)); err != nil {
			w.out.created = append(w.out.created, e.shown())
		}
		if !e.isDir {
			continue
		}
		below, err := sender.Enter(e.path, w.reader(w.src, e.path))
		if err != nil {
			return err
		}
		other, err := receiver.Enter(e.path, w.reader(w.dst, e.path))
		if err != nil {
			return err
		}
		if err := w.dir(e.path, below, other); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes e unless something protected is left in it.
func (w *walker) remove(e entry, s *Scope) (gone bool, err error) {
	if e.isDir {
		below, err := s.Doomed().Enter(e.path, w.reader(w.dst, e.path))
		if err != nil {
			return false, err
		}
		children := w.list(w.dst, e.path, below, Receiver)
		all, err := os.ReadDir(filepath.Join(w.dst, e.path))
		if err != nil {
			return false, err
		}
		empty := len(children) == len(all)
		for _, c := range children {
			gone, err := w.remove(c, below)
			if err != nil {
				return false, err
			}
			empty = empty && gone
		}
		if !empty {
			return false, nil
		}
	}
	w.out.deleted = append(w.out.deleted, e.shown())
	return true, nil
}

// buildArgs builds the rules of rsync options, and says whether they delete.
func buildArgs(t *testing.T, cwd string, args []string) (*Rules, bool, error) {
	t.Helper()
	b := NewBuilder()
	b.ReadFile = func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(cwd, name)) }
	o := Options{SourceRoot: cwd + "/S", DestRoot: cwd + "/D"}
	nul, del := false, false
	for i := 0; i < len(args); i++ {
		var err error
		option, value, joined := strings.Cut(args[i], "=")
		if !joined && (option == "-f" || option == "--exclude" || option == "--include") {
			i++
			value = args[i]
		}
		switch option {
		case "-f":
			err = b.Filter(value)
		case "--exclude":
			err = b.Exclude(value)
		case "--include":
			err = b.Include(value)
		case "--exclude-from", "--include-from":
			f, openErr := os.Open(filepath.Join(cwd, value))
			if openErr != nil {
				return nil, false, openErr
			}
			if option == "--exclude-from" {
				err = b.ExcludeFrom(value, f, nul)
			} else {
				err = b.IncludeFrom(value, f, nul)
			}
			f.Close()
		case "-0":
			nul, b.From0 = true, true
		case "-FF":
			err = b.F()
			if err == nil {
				err = b.F()
			}
		case "-C":
			b.CVS()
		case "--del", "--delete-before":
			del = true
		case "--delete-excluded":
			del, o.DeleteExcluded = true, true
		default:
			t.Fatalf("the test does not know %s", args[i])
		}
		if err != nil {
			return nil, false, err
		}
	}
	r, err := b.Rules(o)
	return r, del, err
}

// makeTree creates names below base: "d/" is a directory, "l->t" a link.
func makeTree(t *testing.T, base string, names []string) {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.MkdirAll(base, 0o755))
	for _, n := range names {
		p := filepath.Join(base, n)
		if strings.HasSuffix(n, "/") {
			check(os.MkdirAll(p, 0o755))
			continue
		}
		check(os.MkdirAll(filepath.Dir(p), 0o755))
		if name, target, ok := strings.Cut(n, "->"); ok {
			check(os.Symlink(target, filepath.Join(base, name)))
			continue
		}
		check(os.WriteFile(p, []byte("x"), 0o644))
	}
}

// listing returns every name below base.
func listing(t *testing.T, base string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(base, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == base {
			return err
		}
		rel, err := filepath.Rel(base, p)
		if d.IsDir() {
			rel += "/"
		}
		all = append(all, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// without returns the sorted elements of a that are not in b.
func without(a, b []string) []string {
	var left []string
	for _, x := range a {
		if !slices.Contains(b, x) {
			left = append(left, x)
		}
	}
	slices.Sort(left)
	return left
}
