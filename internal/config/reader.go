package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// reader collects the problems of one file.
type reader struct {
	*source
	dir      string // what relative paths are relative to
	problems []Problem
}

func (r *reader) add(path, format string, args ...any) {
	r.problems = append(r.problems, r.problem(path, fmt.Sprintf(format, args...)))
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	sortProblems(r.problems)
	return &Error{Problems: r.problems}
}

// maxDepth bounds nesting: the YAML parser recurses, and takes quadratic time.
const maxDepth = 50

// document returns the top-level section, or nil after adding what stops it.
func (r *reader) document(data []byte) *section {
	fail := func(line int, text string) *section {
		r.problems = append(r.problems, r.problemAt(line, "", text))
		return nil
	}
	if len(data) > MaxSize {
		return fail(1, fmt.Sprintf("is longer than %d bytes", MaxSize))
	}
	for i, line := range r.lines {
		if !utf8.ValidString(line) {
			return fail(i+1, "is not valid UTF-8")
		}
		if j := strings.IndexFunc(line, func(c rune) bool { return unicode.IsControl(c) && c != '\t' }); j >= 0 {
			return fail(i+1, "has a control character")
		}
	}
	if depth(data) > maxDepth {
		return fail(1, "is nested too deeply")
	}
	file, err := parse(data)
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			return fail(syntax.Token.Position.Line, notYAML(syntax.Message))
		}
		return fail(1, "not YAML")
	}
	switch {
	case len(file.Docs) != 1:
		return fail(1, "must be one YAML document")
	case file.Docs[0].Body == nil:
		return fail(1, "is empty")
	}
	body := file.Docs[0].Body
	if _, ok := body.(ast.MapNode); !ok || body.Type() == ast.AliasType {
		return fail(lineOf(body), "must be a list of keys with values")
	}
	return r.section("", body)
}

// parse is the library's parser; duplicate keys are left to section, which
// reports them together with everything else.
func parse(data []byte) (file *ast.File, err error) {
	defer func() {
		if recover() != nil { // the library has panicked on malformed input before
			file, err = nil, errors.New("malformed")
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// notYAML keeps of the library's message what is not quoted from the file.
func notYAML(message string) string {
	message, _, _ = strings.Cut(message, `"`)
	message, _, _ = strings.Cut(message, ": ")
	if message = strings.TrimRight(message, ": "); message == "" {
		return "not YAML"
	}
	return "not YAML: " + strings.ReplaceAll(message, "\t", `\t`)
}

// depth estimates how deeply a file nests, from above: brackets and the
// indicators that can open a block on the same line.
func depth(data []byte) int {
	deepest, open := 0, 0
	for _, line := range strings.Split(string(data), "\n") {
		inline := 0
		for i := range len(line) {
			switch c := line[i]; c {
			case '[', '{':
				open++
			case ']', '}':
				open = max(0, open-1)
			case '-', '?', ':':
				if i+1 == len(line) || line[i+1] == ' ' {
					inline++
				}
			}
			deepest = max(deepest, open+inline)
		}
	}
	return deepest
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 1
}

const notAKey = "has something that is not a key"

// section is one mapping. Each method that reads a key also declares it: close
// reports the keys that nobody read.
type section struct {
	r      *reader
	path   string
	values map[string]ast.Node
	order  []string
	known  []string
	// absent says that the file does not have this section, so that its
	// missing keys are not reported one by one.
	absent bool
}

func (r *reader) section(path string, n ast.Node) *section {
	s := &section{r: r, path: path, values: map[string]ast.Node{}}
	m, ok := n.(ast.MapNode)
	if !ok || n.Type() == ast.AliasType || n.Type() == ast.AnchorType || n.Type() == ast.TagType {
		r.add(path, "must be a section with keys of its own, not %s", kind(n))
		s.absent = true
		return s
	}
	for it := m.MapRange(); it.Next(); {
		kv := it.KeyValue()
		key := kv.Key.GetToken().Value
		line := kv.Key.GetToken().Position.Line
		switch key, isText := kv.Key.(*ast.StringNode); {
		case !isText || !printableKey(key.Value):
			r.problems = append(r.problems, r.problemAt(line, path, notAKey))
			continue
		case s.values[key.Value] != nil:
			r.problems = append(r.problems, r.problemAt(line, s.at(key.Value),
				fmt.Sprintf("is given twice, first in line %d", r.keyAt[s.at(key.Value)])))
			continue
		}
		r.keyAt[s.at(key)] = line
		s.values[key] = kv.Value
		s.order = append(s.order, key)
	}
	return s
}

func (s *section) at(key string) string {
	if s.path == "" {
		return key
	}
	return s.path + "." + key
}

func (s *section) has(key string) bool { return s.values[key] != nil }

func (s *section) problem(key, format string, args ...any) { s.r.add(s.at(key), format, args...) }

func (s *section) take(key string) (ast.Node, bool) {
	s.known = append(s.known, key)
	n, ok := s.values[key]
	return n, ok
}

// require reports the keys that are not there.
func (s *section) require(keys ...string) {
	for _, k := range keys {
		if !s.absent && !s.has(k) {
			s.problem(k, "is missing")
		}
	}
}

// refuse reports keys of the format that mean nothing beside other values.
func (s *section) refuse(why string, keys ...string) {
	for _, k := range keys {
		if _, ok := s.take(k); ok {
			s.problem(k, "%s", why)
		}
	}
}

// close reports the keys that are not of the format.
func (s *section) close() {
	for _, key := range s.order {
		if slices.Contains(s.known, key) {
			continue
		}
		if like := nearest(key, s.known); like != "" {
			s.problem(key, "unknown key; did you mean %s?", like)
		} else if _, bare := s.values[key].(*ast.NullNode); bare {
			// It may be a value that lost its key; it is not repeated.
			s.r.problems = append(s.r.problems, s.r.problemAt(s.r.keyAt[s.at(key)], s.path, notAKey))
		} else {
			s.problem(key, "unknown key; known here: %s", strings.Join(slices.Compact(slices.Sorted(slices.Values(s.known))), ", "))
		}
	}
}

// sub returns the section below key, absent if it is not there.
func (s *section) sub(key string) *section {
	n, ok := s.take(key)
	if !ok {
		return &section{r: s.r, path: s.at(key), absent: true}
	}
	return s.r.section(s.at(key), n)
}
