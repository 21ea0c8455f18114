package app

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxSystemYAML bounds a system.yaml in bytes; the longest sample has some 40 KB.
const maxSystemYAML = 256 << 10

// CompareSystemYAML returns the keys, as dotted paths in order, whose values
// differ between the system.yaml of two hosts or that only one of them has,
// apart from what must differ: the node, the databases, and the base URL. It
// never returns values, which may be secrets. Two values that are both encrypted
// are not compared, since equal texts encrypt differently.
func CompareSystemYAML(active, standby []byte) ([]string, error) {
	a, err := flattenYAML(active)
	if err != nil {
		return nil, fmt.Errorf("system.yaml of the active: %w", err)
	}
	s, err := flattenYAML(standby)
	if err != nil {
		return nil, fmt.Errorf("system.yaml of the standby: %w", err)
	}
	var differ []string
	for key, value := range a {
		if other, ok := s[key]; !ok || !sameSetting(value, other) {
			differ = append(differ, key)
		}
	}
	for key := range s {
		if _, ok := a[key]; !ok {
			differ = append(differ, key)
		}
	}
	differ = slices.DeleteFunc(differ, ofHost)
	slices.Sort(differ)
	return differ, nil
}

// ofHost reports whether a key is one that each host has for itself.
func ofHost(key string) bool {
	parts := strings.Split(key, ".")
	if len(parts) < 2 {
		return false
	}
	return parts[1] == "database" || parts[0] == "shared" && (parts[1] == "node" || parts[1] == "jfrogUrl")
}

// encrypted is a value after the application's first start: the key's id, the
// algorithm, the text.
var encrypted = regexp.MustCompile(`^[0-9A-Za-z]+\.aes[0-9a-z]*\.\S+$`)

func sameSetting(a, b any) bool {
	if x, ok := a.(string); ok {
		if y, ok := b.(string); ok && encrypted.MatchString(x) && encrypted.MatchString(y) {
			return true
		}
	}
	return reflect.DeepEqual(a, b)
}

// flattenYAML returns the leaves of a document by their dotted path.
func flattenYAML(text []byte) (map[string]any, error) {
	root, err := decodeYAML(text)
	if err != nil {
		return nil, err
	}
	leaves := map[string]any{}
	flatten("", root, leaves)
	return leaves, nil
}

func flatten(path string, value any, leaves map[string]any) {
	join := func(key string) string {
		if path == "" {
			return key
		}
		return path + "." + key
	}
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			flatten(join(key), inner, leaves)
		}
	case []any:
		for i, inner := range v {
			flatten(fmt.Sprintf("%s[%d]", path, i), inner, leaves)
		}
	case nil: // a key without value is as good as none
	default:
		leaves[path] = v
	}
}

// decodeYAML reads one document. Errors have a line but no text of the file.
func decodeYAML(text []byte) (any, error) {
	if len(text) > maxSystemYAML {
		return nil, fmt.Errorf("%d bytes are more than it can need (%d)", len(text), maxSystemYAML)
	}
	if err := boundNesting(text); err != nil {
		return nil, err
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, atLine(err)
	}
	if len(file.Docs) == 0 || len(file.Docs) == 1 && file.Docs[0].Body == nil {
		return nil, nil
	}
	if len(file.Docs) > 1 {
		return nil, errors.New("it holds several documents")
	}
	var alias aliasFinder
	ast.Walk(&alias, file.Docs[0].Body)
	if alias {
		return nil, errors.New("it uses YAML aliases, which drsync does not follow")
	}
	var root any
	if err := yaml.NodeToValue(file.Docs[0].Body, &root); err != nil {
		return nil, atLine(err)
	}
	if _, ok := root.(map[string]any); root != nil && !ok {
		return nil, errors.New("it is not a list of settings")
	}
	return root, nil
}

// maxNesting is far above any real file: one line nests rarely at all.
const maxNesting = 200

// boundNesting refuses a text that could make a recursive parser exhaust the
// stack: brackets in number, or a line of dashes or question marks.
func boundNesting(text []byte) error {
	if bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) > 4*maxNesting {
		return errors.New("it is nested too deeply")
	}
	for line := range bytes.Lines(text) {
		if bytes.Count(line, []byte("- "))+bytes.Count(line, []byte("? "))+bytes.Count(line, []byte("-\t"))+bytes.Count(line, []byte(": ")) > maxNesting {
			return errors.New("it is nested too deeply")
		}
		if indent := len(line) - len(bytes.TrimLeft(line, " \t")); indent > maxNesting && indent < len(bytes.TrimRight(line, "\r\n")) {
			return errors.New("it is nested too deeply")
		}
	}
	return nil
}

type aliasFinder bool

func (f *aliasFinder) Visit(n ast.Node) ast.Visitor {
	switch n.(type) {
	case *ast.AliasNode, *ast.AnchorNode, *ast.MergeKeyNode:
		*f = true
	}
	return f
}

func atLine(err error) error {
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		return fmt.Errorf("not valid YAML at line %d", at.GetToken().Position.Line)
	}
	return errors.New("not valid YAML")
}
