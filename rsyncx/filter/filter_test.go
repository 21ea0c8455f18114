package filter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
)

func mustRules(t testing.TB, o Options, filters ...string) *Rules {
	t.Helper()
	b := NewBuilder()
	for _, f := range filters {
		if err := b.Filter(f); err != nil {
			t.Fatal(err)
		}
	}
	r, err := b.Rules(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNilHasNoRule(t *testing.T) {
	var r *Rules
	s, err := r.Root().Enter("d", func(string) ([]byte, error) { t.Error("a file was read"); return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	if x, why := s.Doomed().Excluded("a", false, Sender); x || why != "" {
		t.Errorf("excluded by %q", why)
	}
	if r.Len() != 0 || r.PerDirectory() {
		t.Error("a nil list has rules")
	}
	back, err := Decode(r.Encode())
	if err != nil || back.Len() != 0 {
		t.Errorf("decoded: %d rules, %v", back.Len(), err)
	}
}

func TestOwnRulesWin(t *testing.T) {
	b := NewBuilder()
	for _, f := range []string{"+ /etc/node.id", "R *", "!", "S *"} {
		if err := b.Filter(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Own("/etc/node.id", Sender|Receiver); err != nil {
		t.Fatal(err)
	}
	if err := b.Own("- odd", Receiver); err != nil {
		t.Fatal(err)
	}
	if err := b.Filter("!"); err != nil {
		t.Fatal(err)
	}
	r, err := b.Rules(Options{DeleteExcluded: true})
	if err != nil {
		t.Fatal(err)
	}
	s := r.Root()
	for _, c := range []struct {
		path string
		side Side
		want bool
	}{
		{"etc/node.id", Sender, true}, {"etc/node.id", Receiver, true}, {"x/etc/node.id", Sender, false},
		{"- odd", Receiver, true}, {"- odd", Sender, false}, {"odd", Receiver, false},
	} {
		if got, why := s.Excluded(c.path, false, c.side); got != c.want {
			t.Errorf("%s for side %d: %v because of %q", c.path, c.side, got, why)
		}
	}
	if err := b.Own("a", 0); err == nil {
		t.Error("a rule without a side was taken")
	}
}

func TestDoomedIgnoresPerishable(t *testing.T) {
	s := mustRules(t, Options{}, "-p *.tmp", ":p .f", "- *.keep").Root()
	read := func(string) ([]byte, error) { return []byte("- *.f\n"), nil }
	live, err := s.Enter("d", read)
	if err != nil {
		t.Fatal(err)
	}
	below, err := s.Doomed().Enter("d", read)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		live, doomed bool
	}{{"d/a.tmp", true, false}, {"d/a.f", true, false}, {"d/a.keep", true, true}, {"d/a", false, false}} {
		if got, _ := live.Excluded(c.name, false, Receiver); got != c.live {
			t.Errorf("%s in a live directory: %v", c.name, got)
		}
		if got, _ := below.Excluded(c.name, false, Receiver); got != c.doomed {
			t.Errorf("%s in a doomed directory: %v", c.name, got)
		}
	}
}

func TestRuleText(t *testing.T) {
	s := mustRules(t, Options{}, "- /work/", "+ *.c", "- *").Root()
	for _, c := range []struct {
		path string
		dir  bool
		want bool
		why  string
	}{{"work", true, true, "/work/"}, {"a.c", false, false, "*.c"}, {"work", false, true, "*"}} {
		got, why := s.Excluded(c.path, c.dir, Sender)
		if got != c.want || why != c.why {
			t.Errorf("%s: %v because of %q", c.path, got, why)
		}
	}
}

func TestErrorsNameTheRule(t *testing.T) {
	one := func(f func(b *Builder) error) error { return f(NewBuilder()) }
	for _, c := range []struct {
		err  error
		want string
	}{
		{one(func(b *Builder) error { return b.Filter("foo") }), `filter rule "foo": not a filter rule; it starts with one of + - . : H S P R ! or such a word`},
		{one(func(b *Builder) error { return b.Filter("-") }), `filter rule "-": unexpected end of filter rule`},
		{one(func(b *Builder) error { return b.Filter("-q a") }), `filter rule "-q a": the modifier 'q' does not fit this rule`},
		{one(func(b *Builder) error { return b.Filter("!a") }), `filter rule "!a": nothing may follow '!'`},
		{one(func(b *Builder) error { return b.Filter(". x") }), `filter rule ". x": no file can be read here`},
		{one(func(b *Builder) error { return b.Filter(": ..") }), `filter rule ": ..": it does not name a file`},
		{one(func(b *Builder) error { return b.Exclude("a\x00b") }), `filter rule "a\x00b": a NUL byte cannot be part of a name`},
		{one(func(b *Builder) error {
			return b.ExcludeFrom("list", strings.NewReader("a\r\n- \n\n+ \n"), false)
		}), "list:2: a filter rule is wrong: unexpected end of filter rule\nlist:4: a filter rule is wrong: unexpected end of filter rule"},
		{one(func(b *Builder) error {
			_ = b.Filter("-/ a/b")
			_, err := b.Rules(Options{SourceRoot: "/s"})
			return err
		}), `filter rule "a/b": the modifier / needs the absolute paths of both trees, which are not known here`},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("error %v\n want %s", c.err, c.want)
		}
	}
	err := one(func(b *Builder) error { return b.Exclude(strings.Repeat("x", maxPattern+1)) })
	var re *RuleError
	if !errors.As(err, &re) || re.Reason != "the pattern is too long" {
		t.Errorf("over-long pattern: %v", err)
	}
}

func TestMergeFiles(t *testing.T) {
	b := NewBuilder()
	b.ReadFile = func(name string) ([]byte, error) {
		if n := 0; name != "missing" {
			_, _ = fmt.Sscan(name, &n)
			if n > 0 {
				return fmt.Appendf(nil, ". %d\n- f%d\n", n-1, n), nil
			}
			return []byte("- last\n"), nil
		}
		return nil, fs.ErrNotExist
	}
	if err := b.Filter(". missing"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `". missing"`) {
		t.Errorf("a missing merge file: %v", err)
	}
	if err := b.Filter(fmt.Sprintf(". %d", maxNesting-1)); err != nil {
		t.Errorf("%d merge files within each other: %v", maxNesting, err)
	}
	if err := b.Filter(fmt.Sprintf(". %d", maxNesting)); err == nil || !strings.Contains(err.Error(), "nested deeper than 32") {
		t.Errorf("one more: %v", err)
	}
}

func TestEnterErrors(t *testing.T) {
	denied := errors.New("permission denied")
	s := mustRules(t, Options{}, ": .f").Root()
	for _, c := range []struct {
		content string
		err     error
		want    string
	}{
		{"", denied, `read the filter file ".f" of directory "d": permission denied`},
		{"- a\nbogus", nil, `d/.f:2: a filter rule is wrong: not a filter rule`},
		{". other", nil, "a per-directory file cannot merge another file once"},
		{": a/b", nil, "a per-directory file cannot name one by a path"},
		{"-/ /a", nil, "needs the absolute paths"},
	} {
		_, err := s.Enter("d", func(string) ([]byte, error) { return []byte(c.content), c.err })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.content, err)
		}
		if strings.Contains(err.Error(), "bogus") {
			t.Errorf("%v tells what is in the file", err)
		}
		if c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%v does not wrap the cause", err)
		}
	}
}

// A file of the other host cannot have any number of files read.
func TestPerDirectoryFilesAreBounded(t *testing.T) {
	var many strings.Builder
	for i := range maxPerDir + 1 {
		fmt.Fprintf(&many, ": f%d\n", i)
	}
	reads := 0
	_, err := mustRules(t, Options{}, ": .f").Root().Enter("", func(name string) ([]byte, error) {
		if reads++; name == ".f" {
			return []byte(many.String()), nil
		}
		return nil, fs.ErrNotExist
	})
	if err == nil || !strings.Contains(err.Error(), "more than 100 per-directory files") || reads > maxPerDir {
		t.Errorf("%d files read, error %.100v", reads, err)
	}
	b := NewBuilder()
	if err := b.ExcludeFrom("x", strings.NewReader(strings.Repeat("a\n", maxRules+1)), false); err == nil {
		t.Error("too many rules were taken")
	}
	if err := b.ExcludeFrom("x", io.LimitReader(endless{}, maxFile+10), false); err == nil {
		t.Error("an endless file was taken")
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// A scope is not changed by what is entered from it.
func TestScopesAreIndependent(t *testing.T) {
	root := mustRules(t, Options{}, ": .f").Root()
	enter := func(s *Scope, path, content string) *Scope {
		t.Helper()
		in, err := s.Enter(path, func(string) ([]byte, error) {
			if content == "" {
				return nil, fs.ErrNotExist
			}
			return []byte(content), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	d := enter(root, "d", "- a\n")
	de := enter(d, "d/e", "- /b\n")
	df := enter(d, "d/f", "!\n- c\n")
	dg := enter(d, "d/g", "")
	for _, c := range []struct {
		s    *Scope
		path string
		want bool
	}{
		{root, "a", false}, {d, "d/a", true}, {d, "d/b", false}, {de, "d/e/a", true}, {de, "d/e/b", true},
		{df, "d/f/a", false}, {df, "d/f/c", true}, {dg, "d/g/a", true}, {dg, "d/g/b", false},
	} {
		if got, _ := c.s.Excluded(c.path, false, Sender); got != c.want {
			t.Errorf("%s: %v", c.path, got)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := mustRules(t, Options{}, "- a", ": .f").Encode()
	for n := range good {
		if _, err := Decode(good[:n]); !errors.Is(err, errEncoding) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for name, data := range map[string][]byte{
		"more":       append(bytes.Clone(good), 0),
		"version":    append([]byte("drf2"), good[4:]...),
		"many":       []byte("drf1\x00\x00\x00\xff\xff\xff\x7f"),
		"no side":    []byte("drf1\x00\x00\x00\x01\x00\x00\x01a"),
		"no name":    []byte("drf1\x00\x00\x00\x01\x00\x03\x00"),
		"merge ..":   []byte("drf1\x00\x00\x00\x01\x20\x03\x02.."),
		"not normal": []byte("drf1\x00\x00\x00\x01\x02\x03\x010"),
		"bad flags":  []byte("drf1\x00\x00\x00\x01\x40\x03\x01a"),
	} {
		if r, err := Decode(data); err == nil {
			t.Errorf("%s: accepted %d rules", name, r.Len())
		}
	}
}

func TestExcludedAllocatesNothing(t *testing.T) {
	s := mustRules(t, Options{}, "- a", "- *.o", "- /x/**/y", "- **/z", "- q/***", "-! [a-z]*").Root()
	if n := testing.AllocsPerRun(100, func() { s.Excluded("some/long/path/to/a.name", true, Receiver) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkExcluded(b *testing.B) {
	var list []string
	for i := range 50 {
		switch i % 5 {
		case 0:
			list = append(list, fmt.Sprintf("- /work%d/", i))
		case 1:
			list = append(list, fmt.Sprintf("- *.x%d", i))
		case 2:
			list = append(list, fmt.Sprintf("- name%d", i))
		case 3:
			list = append(list, fmt.Sprintf("- /data/tmp%d*/", i))
		case 4:
			list = append(list, fmt.Sprintf("- cache%d/**", i))
		}
	}
	for _, n := range []int{5, 50} {
		s := mustRules(b, Options{}, list[:n]...).Root()
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Excluded("var/data/repositories/libs-release/org/example/thing-1.0.jar", false, Sender)
			}
		})
	}
}
