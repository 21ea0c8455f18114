package config

import (
	"testing"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

func stringNode(t *testing.T, text string) ast.Node {
	t.Helper()
	f, err := parser.ParseBytes([]byte(text), 0)
	if err != nil {
		t.Fatal(err)
	}
	return f.Docs[0].Body
}

// recordAll returns an empty section.
func recordAll(r *reader, _ map[string]bool) *section {
	return &section{r: r, values: map[string]ast.Node{}}
}

func collect(s *section, asked map[string]bool) {
	for _, k := range s.known {
		asked[k] = true
	}
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ key, want string }{
		{"hots", "host"}, {"Host", "host"}, {"hostt", "host"}, {"know_hosts", "known_hosts"},
		{"zzzz", ""}, {"x", ""}, {"keepdaily", "keep_daily"},
	} {
		if got := nearest(c.key, harmlessKeys); got != c.want {
			t.Errorf("nearest(%s) = %q, want %q", c.key, got, c.want)
		}
	}
}
