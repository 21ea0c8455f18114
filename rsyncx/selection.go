package rsyncx

import (
	"fmt"
	"slices"
	"strings"

	"github.com/drsync/drsync/rsyncx/filter"
)

// Selection says which names of one directory WalkOptions.Only and Flat let a
// walk look at. A Source goes from the root's selection to those of the
// directories below. It does not change, and may be used by several goroutines.
type Selection struct {
	only []string // what lies strictly below this directory, although all may be looked at
	cut  int      // length of this directory's path with the slash behind it
	all  bool
	flat bool
}

// Select returns the selection of the root. Paths that are none, or do not
// ascend strictly, are an error.
func (o *WalkOptions) Select() (Selection, error) {
	for i, path := range o.Only {
		if err := CheckPath(path); err != nil {
			return Selection{}, fmt.Errorf("restrict the walk: %w", err)
		}
		if i > 0 && !comesAfter(o.Only[i-1], path) {
			return Selection{}, fmt.Errorf("restrict the walk: %q comes after %q", Printable(path), Printable(o.Only[i-1]))
		}
	}
	s := Selection{only: o.Only, all: o.Only == nil, flat: o.Flat}
	if len(s.only) > 0 && s.only[0] == "" {
		s.only, s.all = s.only[1:], true
	}
	return s, nil
}

// All reports whether every name is to be looked at. Otherwise only Names are,
// and the Dir is Partial.
func (s Selection) All() bool { return s.all }

// Rules reports whether the per-directory filter files of the directory count.
// As in rsync those of the root do not when it only leads to what was asked for,
// and those of no directory that only leads when the walk is flat.
func (s Selection) Rules() bool { return s.all || s.cut > 0 && !s.flat }

// Names returns what to look at unless All, ascending.
func (s Selection) Names() []string {
	if s.all {
		return nil
	}
	return s.Expected()
}

// Expected returns the names in the directory that were asked for or lead to what was,
// ascending, whether All or not.
func (s Selection) Expected() []string {
	var names []string
	for _, path := range s.only {
		name, _, _ := strings.Cut(path[s.cut:], "/")
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
	}
	return names
}

// Enter returns the selection of the directory name in this one, and whether
// the walk goes into it.
func (s Selection) Enter(name string) (Selection, bool) {
	in := Selection{only: s.below(name), cut: s.cut + len(name) + 1, flat: s.flat}
	switch {
	case s.all && !s.flat:
		in.all = true
		return in, true
	case s.Asked(name) && !s.flat:
		in.all = true // and still leads to what is asked for below
		return in, true
	}
	return in, len(in.only) > 0
}

// Asked reports whether name itself is among the paths asked for.
func (s Selection) Asked(name string) bool {
	i, found := s.find(name)
	return found && len(s.only[i]) == s.cut+len(name)
}

// names reports whether name is among the paths asked for, or leads to one.
func (s Selection) names(name string) bool {
	_, found := s.find(name)
	return found
}

// Leads reports whether name leads to something below it that was asked for.
// Filter rules do not apply to it then.
func (s Selection) Leads(name string) bool { return len(s.below(name)) > 0 }

// entered is what Enter returns for a directory name that rules may hide: when
// they do, it only leads to what is asked for below.
func (s Selection) entered(name, path string, rules *filter.Scope) (Selection, bool) {
	in, into := s.Enter(name)
	if in.all && len(in.only) > 0 && rules != nil {
		hidden, _ := rules.Excluded(path, true, filter.Sender)
		in.all = !hidden
	}
	return in, into
}

// Missing returns the paths that were asked for and are not there, when name is
// not, or is there and no directory.
func (s Selection) Missing(name string, there bool) []string {
	missing := s.below(name)
	if i, found := s.find(name); found && !there && s.Asked(name) {
		return s.only[i : i+1+len(missing)]
	}
	return missing
}

// below returns the paths that lie strictly below name.
func (s Selection) below(name string) []string {
	i, found := s.find(name)
	if !found {
		return nil
	}
	if s.Asked(name) {
		i++
	}
	n := 0
	for _, path := range s.only[i:] {
		if first, _, more := strings.Cut(path[s.cut:], "/"); first != name || !more {
			break
		}
		n++
	}
	return s.only[i : i+n]
}

// find returns the first path whose next component is name.
func (s Selection) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.only, name, func(path, name string) int {
		first, _, _ := strings.Cut(path[s.cut:], "/")
		return strings.Compare(first, name)
	})
}

// at is Enter for a path below the directory.
func (s Selection) at(path string) (_ Selection, into bool) {
	into = true
	for name := range strings.SplitSeq(path, "/") {
		if path == "" {
			break
		}
		if s, into = s.Enter(name); !into {
			return s, false
		}
	}
	return s, into
}
