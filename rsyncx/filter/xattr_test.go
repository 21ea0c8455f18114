package filter

import (
	"io/fs"
	"testing"
)

// TestXattrRules lists what rsync 3.5 does with names of extended attributes.
func TestXattrRules(t *testing.T) {
	type counts struct{ sender, receiver bool } // rules do, not rsync's own
	both, neither := counts{true, true}, counts{}
	for _, c := range []struct {
		rules          []string
		o              Options
		counts         counts
		name           string
		hidden, shield bool
	}{
		{rules: []string{"- user.a"}, counts: neither, name: "user.a"},
		{rules: []string{"-x user.a"}, counts: both, name: "user.a", hidden: true, shield: true},
		{rules: []string{"-x user.a"}, counts: both, name: "user.b"},
		{rules: []string{"-x user.a"}, o: Options{DeleteExcluded: true}, counts: both, name: "user.a", hidden: true},
		{rules: []string{"-xr *"}, counts: both, name: "user.a", shield: true},
		{rules: []string{"-xr *"}, o: Options{Pull: true}, counts: counts{receiver: true}, name: "user.a", shield: true},
		{rules: []string{"Px *"}, o: Options{Pull: true}, counts: counts{receiver: true}, name: "user.a", shield: true},
		{rules: []string{"-xs *"}, o: Options{Pull: true}, counts: both, name: "user.a", hidden: true},
		{rules: []string{"Hx user.a"}, counts: both, name: "user.a", hidden: true},
		{rules: []string{"+x user.a", "-x user.*"}, counts: both, name: "user.a"},
		{rules: []string{"Sx user.a", "-x *"}, counts: both, name: "user.a", shield: true},
		{rules: []string{"Rx user.a", "-x *"}, counts: both, name: "user.a", hidden: true},
		{rules: []string{"-x! user.*"}, counts: both, name: "trusted.t", hidden: true, shield: true},
		{rules: []string{"-x! user.*"}, counts: both, name: "user.a"},
		{rules: []string{"-xp user.*"}, counts: both, name: "user.a", hidden: true, shield: true},
		{rules: []string{"-x user.a/"}, counts: both, name: "user.a"}, // an attribute is no directory
		{rules: []string{"-x! user.a/"}, counts: both, name: "user.b", hidden: true, shield: true},
		{rules: []string{"-x /user.a"}, counts: both, name: "user.a", hidden: true, shield: true},
		{rules: []string{"-x **/user.a"}, counts: both, name: "user.a", hidden: true, shield: true},
		{rules: []string{"-x a"}, counts: both, name: "user.x/a", hidden: true, shield: true},
		{rules: []string{"-x/ user.a"}, o: Options{SourceRoot: "/s", DestRoot: "/d"}, counts: both, name: "user.a", hidden: true, shield: true},
		{rules: []string{"-x/ /s/user.a"}, o: Options{SourceRoot: "/s", DestRoot: "/d"}, counts: both, name: "user.a", hidden: true},
		// A rule that was cleared is remembered where it was written.
		{rules: []string{"-x user.a", "!"}, counts: both, name: "user.a"},
		{rules: []string{"-x user.a", "!"}, o: Options{Pull: true}, counts: counts{receiver: true}, name: "user.a"},
		// So is one that names a file, whose rules it does not make such.
		{rules: []string{":x .f"}, o: Options{Pull: true}, counts: both, name: "user.a"},
		{rules: []string{":xr .f"}, o: Options{Pull: true}, counts: counts{receiver: true}, name: "user.a"},
		{rules: []string{".x f"}, o: Options{Pull: true}, counts: counts{receiver: true}, name: "user.a"},
		{rules: []string{".x f"}, counts: both, name: "user.a"},
	} {
		b := NewBuilder()
		b.ReadFile = func(string) ([]byte, error) { return []byte("- user.a\n"), nil }
		for _, text := range c.rules {
			if err := b.Filter(text); err != nil {
				t.Fatal(err)
			}
		}
		r, err := b.Rules(c.o)
		if err != nil {
			t.Fatal(err)
		}
		sent, err := Decode(r.Encode())
		if err != nil {
			t.Fatalf("%q: %v", c.rules, err)
		}
		for i, s := range []*Scope{r.Root(), sent.Root()} {
			if got := (counts{s.NamesXattrs(Sender), s.NamesXattrs(Receiver)}); got != c.counts {
				t.Errorf("%q, %+v, sent %d: they count %+v", c.rules, c.o, i, got)
			}
			if h, p := s.ExcludedXattr(c.name, Sender), s.ExcludedXattr(c.name, Receiver); h != c.hidden || p != c.shield {
				t.Errorf("%q, %+v, sent %d: %q is hidden %v, protected %v", c.rules, c.o, i, c.name, h, p)
			}
			for _, side := range []Side{Sender, Receiver} {
				if x, _ := s.Excluded("user.z", false, side); x {
					t.Errorf("%q: a file is excluded", c.rules)
				}
			}
		}
	}
}

// TestXattrRulesOfDirectories looks at rules in per-directory files.
func TestXattrRulesOfDirectories(t *testing.T) {
	r := mustRules(t, Options{Pull: true}, ": .f")
	files := map[string]string{"": "- a\n", "d": "-x user.a\n-x /user.b\n"}
	enter := func(s *Scope, dir string) *Scope {
		s, err := s.Enter(dir, func(name string) ([]byte, error) {
			if text, ok := files[dir]; ok && name == ".f" {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	root := enter(r.Root(), "")
	d := enter(root, "d")
	below := enter(d, "d/e")
	for _, c := range []struct {
		name    string
		scope   *Scope
		counts  bool
		a, b, f bool
	}{{"the root", root, false, false, false, true}, {"d", d, true, true, false, true}, {"d/e", below, true, true, false, true}, {"x", enter(root, "x"), false, false, false, true}} {
		f, _ := c.scope.Excluded("a", false, Sender)
		if c.scope.NamesXattrs(Sender) != c.counts || c.scope.ExcludedXattr("user.a", Sender) != c.a || c.scope.ExcludedXattr("user.b", Sender) != c.b || f != c.f {
			t.Errorf("%s: rules count %v, user.a %v, user.b %v, the file a %v", c.name, c.scope.NamesXattrs(Sender),
				c.scope.ExcludedXattr("user.a", Sender), c.scope.ExcludedXattr("user.b", Sender), f)
		}
	}
}

// TestDecodeXattrs refuses what no Builder makes.
func TestDecodeXattrs(t *testing.T) {
	for _, bad := range []string{
		"drf1\x02\x00\x00\x00",                       // the sender's alone
		"drf1\x08\x00\x00\x00",                       // no side
		"drf1\x00\x00\x00\x01\x80\x20\x02\x06user.a", // a rule, and none counts
		"drf1\x04\x00\x00\x01\x80\x20\x01\x06user.a", // the sender's rule, and it does not
	} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%q is taken for rules", bad)
		}
	}
	if _, err := Decode([]byte("drf1\x04\x00\x00\x01\x80\x20\x02\x06user.a")); err != nil {
		t.Error(err)
	}
}
