package filter

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
)

// naive says what wildmatch means without any thought of cost: every '*' is
// tried with every length.
func naive(p string, t []byte) bool {
	if p == "" {
		return len(t) == 0
	}
	if p[0] == '*' {
		rest := strings.TrimLeft(p, "*")
		for n := 0; ; n++ {
			if naive(rest, t[n:]) {
				return true
			}
			if n == len(t) || len(p)-len(rest) == 1 && t[n] == '/' {
				return false
			}
		}
	}
	if len(t) == 0 {
		return false
	}
	next, same := element(p, 0, t[0])
	return next >= 0 && same && naive(p[next:], t[1:])
}

func FuzzWildmatch(f *testing.F) {
	for _, s := range [][2]string{
		{"a*b**c", "axb/y/c"}, {"*/[!a-c]*/**", "x/d/e/f"}, {"**/a*/b", "q/a/a1/b"}, {`\*[]a]?`, "*]x"},
		{"[[:alpha:]-z]", "-"}, {"a**b*c/d", "a/b/bc/c/d"}, {"[", "["}, {"**a**", "bab"}, {"*a/b*c", "a/ba/bc"},
	} {
		f.Add(s[0], []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, p string, text []byte) {
		if len(p) > 24 || len(text) > 24 || strings.Count(p, "*") > 8 {
			return
		}
		if got, want := wildmatch(p, text), naive(p, text); got != want {
			t.Errorf("wildmatch(%q, %q) = %v", p, text, got)
		}
	})
}

// FuzzRules parses text as every kind of rule source, asks the rules, and
// sends them through Encode and Decode.
func FuzzRules(f *testing.F) {
	for _, s := range []string{
		"- *.o\n+ /a/b/\n", "P x\n!\nH,!p y", ": .f\n:C\n-C", ".w- x", "exclude,s a\nclear", "-/ /a/**\n-! */", "!\n- a\r\n;c", ":ne- /.x/",
		"-x user.*\n+xs a.o\n!", ":x .f\n-x! d/a.o\nPx a*", "Hx a.o\n.x f",
	} {
		f.Add(s, "d/a.o", true)
	}
	f.Fuzz(func(t *testing.T, text, path string, isDir bool) {
		b := NewBuilder()
		b.ReadFile = func(string) ([]byte, error) { return nil, fs.ErrNotExist }
		for line := range strings.SplitSeq(text, "\n") {
			_ = b.Filter(line)
		}
		_ = b.Exclude(text)
		_ = b.ExcludeFrom("x", strings.NewReader(text), false)
		_ = b.IncludeFrom("x", strings.NewReader(text), true)
		r, err := b.Rules(Options{SourceRoot: "/s/t", DestRoot: "/"})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		same, err := Decode(r.Encode())
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		read := func(string) ([]byte, error) { return []byte(text), nil }
		for _, name := range []string{path, "d/" + path} {
			for _, side := range []Side{Sender, Receiver} {
				x, why := r.Root().Excluded(name, isDir, side)
				x2, why2 := same.Root().Excluded(name, isDir, side)
				if x != x2 || why != why2 {
					t.Errorf("%q decoded differs for %q: %v %q, %v %q", text, name, x, why, x2, why2)
				}
				if r.Root().NamesXattrs(side) != same.Root().NamesXattrs(side) || r.Root().ExcludedXattr(name, side) != same.Root().ExcludedXattr(name, side) {
					t.Errorf("%q decoded differs for the attribute %q", text, name)
				}
			}
			scope, err := r.Root().Enter("", read)
			if err != nil {
				return
			}
			if scope, err = scope.Enter("d", read); err != nil {
				return
			}
			scope.Doomed().Excluded(name, isDir, Receiver)
			if scope.ExcludedXattr(name, Sender) && !scope.NamesXattrs(Sender) {
				t.Errorf("%q: the attribute %q is excluded by rules that do not count", text, name)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	b := NewBuilder()
	for _, r := range []string{"- a/", ":ns- /.f", "+!p **/x/***", "-C", "-x! user.*", "Px a", ":x- .g"} {
		if err := b.Filter(r); err != nil {
			f.Fatal(err)
		}
	}
	r, err := b.Rules(Options{DeleteExcluded: true, SourceRoot: "/a", DestRoot: "/b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Encode())
	f.Add((*Rules)(nil).Encode())
	f.Add([]byte("drf1\x00\x00\x00\xff\xff\x03"))
	f.Add([]byte("drf1\x02\x00\x00\x00"))
	f.Add([]byte("drf1\x04\x00\x00\x01\x80\x20\x02\x06user.a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		again := r.Encode()
		if len(again) > len(data) {
			t.Errorf("%q encodes longer: %q", data, again)
		}
		back, err := Decode(again)
		if err != nil || !bytes.Equal(back.Encode(), again) {
			t.Errorf("%q: not stable: %v", data, err)
		}
	})
}
