package program_test

import (
	"regexp"
	"slices"
	"strings"
)

// exception takes out of a comparison what is known to differ, with the reason.
type exception struct {
	lines func([]string) []string
	tree  func(map[string]string) map[string]string
}

// exceptions is the whole list of what the two programs may do differently.
func exceptions(c diffCase, run command, rsync outcome) exception {
	var ex exception
	lines := func(f func([]string) []string) {
		before := ex.lines
		ex.lines = func(l []string) []string {
			if before != nil {
				l = before(l)
			}
			return f(l)
		}
	}
	// Which of several names of one file is copied and which are linked to it
	// follows from the order of the work; how many there are of each does not.
	if groups := hardLinked(c.nodes); len(groups) > 0 {
		lines(func(l []string) []string { return nameless(l, groups) })
	}
	return ex
}

// hardLinked returns the last elements of names that share an inode with others.
func hardLinked(nodes []node) map[string]bool {
	names := map[string]bool{}
	for _, n := range nodes {
		if n.kind == 'h' {
			names[last(n.path)] = true
			names[last(n.target)] = true
		}
	}
	return names
}

func last(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

var (
	itemized = regexp.MustCompile(`^([<>ch.*][fdLDS][-.+?a-zA-Z ]{9}) (.*)$`)
	linkedTo = regexp.MustCompile(` => .*$`)
)

func nameless(lines []string, groups map[string]bool) []string {
	lines = slices.Clone(lines)
	for i, l := range lines {
		m := itemized.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		name := linkedTo.ReplaceAllString(m[2], "")
		if groups[last(name)] {
			lines[i] = m[1] + " one of several names"
		}
	}
	slices.Sort(lines)
	return lines
}
