package mysql

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/drsync/drsync/dbrepl"
)

// definitionDifferences finds what is not defined alike on both sides. broken
// says whether a view of the active is of no use there either: such a one is
// never captured.
func definitionDifferences(there, here schema, broken func(object) bool) (all []found) {
	add := func(name, format string, args ...any) {
		all = append(all, found{dbrepl.Difference{Table: name, Text: fmt.Sprintf(format, args...)}, -1})
	}
	if there.charset != here.charset || there.collation != here.collation {
		add("", "the database's collation is %s, on the active %s", here.collation, there.collation)
	}
	for _, t := range there.tables {
		for _, h := range here.tables {
			if h.name != t.name {
				continue
			}
			if a, s := lineOf(t.ddl, h.ddl); a != s {
				add(t.name, "defined differently: %s, on the active %s", orNothing(s), orNothing(a))
			}
		}
	}
	same := func(o object) func(object) bool {
		return func(p object) bool { return p.Kind == o.Kind && p.Name == o.Name }
	}
	for _, o := range there.objects {
		i := slices.IndexFunc(here.objects, same(o))
		switch {
		case i < 0 && o.Kind == "VIEW" && broken(o):
		case i < 0:
			add(o.String(), "only the active has it")
		case !o.alike(here.objects[i]):
			add(o.String(), "defined differently")
		}
	}
	for _, o := range here.objects {
		if !slices.ContainsFunc(there.objects, same(o)) {
			add(o.String(), "only the standby has it")
		}
	}
	return all
}

// alike compares what matters of two objects. Whether an event is enabled does
// not: on the standby none is. Of a definition that an account may not see only the
// rest is compared: see unread.
func (o object) alike(p object) bool {
	seen := o.SQL != "" && p.SQL != ""
	return (!seen || o.SQL == p.SQL && o.Bytes == p.Bytes) && o.Mode == p.Mode && o.Definer == p.Definer && o.Zone == p.Zone
}

func (o object) isRoutine() bool {
	return slices.Contains([]string{"FUNCTION", "PROCEDURE", "PACKAGE", "PACKAGE BODY"}, o.Kind)
}

// unread says of which objects of both sides the definition could not be compared.
func unread(there, here schema) []string {
	var names []string
	for _, o := range there.objects {
		for _, h := range here.objects {
			if h.Kind == o.Kind && h.Name == o.Name && (o.SQL == "" || h.SQL == "") {
				names = append(names, o.String())
			}
		}
	}
	if names == nil {
		return nil
	}
	return []string{"definitions that drsync's account on the standby may not read (drsync check says what to grant): " + someOf(names)}
}

func orNothing(line string) string {
	if line == "" {
		return "nothing"
	}
	return line
}

var directories = regexp.MustCompile(` (DATA|INDEX) DIRECTORY='[^']*'`)

// lineOf returns the first line in which two definitions of a table differ, of
// either. The columns must have one order; keys and constraints may have been
// added in another. Partitions, directories and where AUTO_INCREMENT is are not
// compared.
func lineOf(there, here string) (a, s string) {
	columns := func(ddl string) (ordered, others []string) {
		lines := strings.Split(directories.ReplaceAllString(shape(withoutPartitions(ddl)), ""), "\n")
		for i, l := range lines {
			l = strings.TrimSuffix(strings.TrimSpace(l), ",")
			if i == 0 || strings.HasPrefix(l, "`") || strings.HasPrefix(l, ")") {
				ordered = append(ordered, l)
			} else {
				others = append(others, l)
			}
		}
		slices.Sort(others)
		return ordered, others
	}
	c1, o1 := columns(there)
	c2, o2 := columns(here)
	all1, all2 := slices.Concat(c1, o1), slices.Concat(c2, o2)
	a, s = firstWithout(all1, all2), firstWithout(all2, all1)
	if a == s && !slices.Equal(c1, c2) {
		return strings.Join(c1, ", "), strings.Join(c2, ", ")
	}
	return a, s
}

func firstWithout(lines, others []string) string {
	for _, l := range lines {
		if !slices.Contains(others, l) {
			return l
		}
	}
	return ""
}
