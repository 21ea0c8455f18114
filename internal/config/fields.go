package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// The methods here read one key of a section each. What is wrong with it is
// reported, and the result is then the default or zero.

// text returns the text at key. ok is false if it is absent or was reported.
func (s *section) text(key string) (text string, ok bool) {
	n, ok := s.take(key)
	if !ok {
		return "", false
	}
	return s.r.text(s.at(key), n)
}

func (r *reader) text(path string, n ast.Node) (string, bool) {
	var text string
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = strings.TrimRight(n.Value.Value, "\n")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		r.add(path, "must be text, not %s; put it in quotes", kind(n))
		return "", false
	case *ast.NullNode:
		r.add(path, "is empty")
		return "", false
	default:
		r.add(path, "must be text, not %s", kind(n))
		return "", false
	}
	switch {
	case strings.TrimSpace(text) == "":
		r.add(path, "is empty")
	case strings.ContainsFunc(text, func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' }):
		r.add(path, "has a control character")
	default:
		return text, true
	}
	return "", false
}

func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode:
		return "nothing"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.AliasNode, *ast.AnchorNode:
		return "an anchor or alias, which drsync does not use"
	case *ast.TagNode:
		return "a YAML tag, which drsync does not use"
	}
	return "text"
}

// line is text without a line break.
func (s *section) line(key string) string {
	text, ok := s.text(key)
	if ok && strings.ContainsAny(text, "\n\t") {
		s.problem(key, "must be a single line without tabs")
		return ""
	}
	return text
}

// name is a line for a host, an account or a file name on a command line: no
// space, and no '-' that a program would take for an option.
func (s *section) name(key string) string {
	text := s.line(key)
	if strings.HasPrefix(text, "-") || strings.ContainsAny(text, " ") {
		s.problem(key, "%q must not begin with '-' or have spaces", text)
		return ""
	}
	return text
}

// absolute is an absolute path, cleaned.
func (s *section) absolute(key string) string {
	text := s.line(key)
	switch {
	case text == "":
		return ""
	case !filepath.IsAbs(text):
		s.problem(key, "%q must be an absolute path", text)
		return ""
	}
	return filepath.Clean(text)
}

// directory is an absolute path other than the root.
func (s *section) directory(key string) string {
	path := s.absolute(key)
	if path == "/" {
		s.problem(key, "must not be the root directory")
		return ""
	}
	return path
}

// words is a command line, split into words.
func (s *section) words(key string) []string {
	words, err := SplitWords(s.line(key))
	if err != nil {
		s.problem(key, "%v", err)
	}
	return words
}

// directories is a list of absolute paths other than the root.
func (s *section) directories(key string) []string {
	var all []string
	for _, path := range s.list(key) {
		if !filepath.IsAbs(path) {
			s.problem(key, "%q must be an absolute path", path)
			continue
		}
		if path = filepath.Clean(path); path == "/" {
			s.problem(key, "must not have the root directory")
			continue
		}
		all = append(all, path)
	}
	return all
}

// file is the path of a file on this host, relative to the configuration's directory.
func (s *section) file(key string) string {
	text := s.line(key)
	switch {
	case text == "":
		return ""
	case strings.HasPrefix(text, "~"):
		s.problem(key, "%q: ~ is not expanded; write the whole path", text)
		return ""
	}
	return s.r.resolve(text)
}

func (r *reader) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.dir, path)
}

// choice is one of works; planned are values of the format that this version
// cannot honour. The default is "" or one of works.
func (s *section) choice(key, byDefault string, works []string, planned ...string) string {
	text, ok := s.text(key)
	switch {
	case !ok:
		return byDefault
	case slices.Contains(works, text):
		return text
	case slices.Contains(planned, text):
		s.problem(key, "this version cannot do %q; it can: %s", text, strings.Join(works, ", "))
	default:
		s.problem(key, "%q is not one of %s", text, strings.Join(slices.Concat(works, planned), ", "))
	}
	return ""
}

// integer is a whole number within bounds.
func (s *section) integer(key string, byDefault, least, most int) int {
	n, ok := s.take(key)
	if !ok {
		return byDefault
	}
	in, ok := n.(*ast.IntegerNode)
	if !ok || in.Token.Type != token.IntegerType {
		s.problem(key, "must be a whole number, not %s", kind(n))
		return byDefault
	}
	v, err := strconv.ParseInt(in.Token.Value, 10, 32)
	if err != nil || int(v) < least || int(v) > most {
		s.problem(key, "%s is not a whole number from %d to %d", in.Token.Value, least, most)
		return byDefault
	}
	return int(v)
}

// flag is true or false; it is false by default.
func (s *section) flag(key string) bool {
	n, ok := s.take(key)
	if !ok {
		return false
	}
	b, ok := n.(*ast.BoolNode)
	if !ok {
		s.problem(key, "must be true or false, not %s", kind(n))
		return false
	}
	return b.Value
}

// rate is a number of bytes per second with a unit; 0 is none.
func (s *section) rate(key string) int64 {
	n, ok := s.take(key)
	if !ok {
		return 0
	}
	if kind(n) == "a number" {
		s.problem(key, "has no unit; write 500K, 10M or 1G: bytes per second in powers of 1024")
		return 0
	}
	text, ok := s.r.text(s.at(key), n)
	if !ok {
		return 0
	}
	v, err := ParseRate(text)
	if err != nil {
		s.problem(key, "%v", err)
		return 0
	}
	return v
}

// duration is a length of time of at least least.
func (s *section) duration(key string, byDefault, least time.Duration) time.Duration {
	n, ok := s.take(key)
	if !ok {
		return byDefault
	}
	if _, number := n.(ast.ScalarNode); number && kind(n) == "a number" {
		s.problem(key, "has no unit; write 90s, 30m, 24h, 7d or 2w")
		return byDefault
	}
	text, ok := s.r.text(s.at(key), n)
	if !ok {
		return byDefault
	}
	d, err := ParseDuration(text)
	switch {
	case err != nil:
		s.problem(key, "%v", err)
	case d < least:
		s.problem(key, "%q is too short; the least is %v", text, least)
	default:
		return d
	}
	return byDefault
}

// percent is a percentage, as a part of 1.
func (s *section) percent(key string, byDefault float64) float64 {
	n, ok := s.take(key)
	if !ok {
		return byDefault
	}
	if kind(n) == "a number" {
		s.problem(key, "must be a percentage such as 5%%")
		return byDefault
	}
	text, ok := s.r.text(s.at(key), n)
	if !ok {
		return byDefault
	}
	p, err := ParsePercent(text)
	if err != nil {
		s.problem(key, "%v", err)
		return byDefault
	}
	return p
}

// list is a list of texts.
func (s *section) list(key string) []string {
	n, ok := s.take(key)
	if !ok {
		return nil
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		s.problem(key, "must be a list, not %s", kind(n))
		return nil
	}
	var all []string
	for i, v := range seq.Values {
		path := fmt.Sprintf("%s[%d]", s.at(key), i)
		s.r.keyAt[path] = lineOf(v)
		if text, ok := s.r.text(path, v); ok {
			all = append(all, text)
		}
	}
	if len(seq.Values) == 0 {
		s.problem(key, "is an empty list")
	}
	return all
}

// secret is a reference to a secret. Its text is never part of a message.
func (s *section) secret(key string) Secret {
	n, ok := s.take(key)
	if !ok {
		return Secret{}
	}
	var text string
	if str, ok := n.(*ast.StringNode); ok {
		text = str.Value
	}
	secret, err := parseSecret(text, s.r.resolve)
	if err != nil {
		s.problem(key, "%v", err)
	}
	return secret
}
