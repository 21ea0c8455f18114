// Package filter holds rsync's filter rules: which names travel, which are
// hidden from the transfer, which are protected from deletion.
//
// It owns one invariant: for the same rules and the same names, a name is hidden
// or protected here exactly when rsync 3.5 would hide or protect it. Where rsync
// cannot be followed, building the rules or entering the directory is an error.
//
// Rules are written with a Builder and asked through a Scope, which follows the
// walk of a tree:
//
//	scope := rules.Root()
//	scope, err = scope.Enter("", readInRoot)       // the root's own per-directory files
//	scope, err = scope.Enter("etc", readInEtc)     // and so on, for every directory entered
//	hidden, why := scope.Excluded("etc/passwd", false, filter.Sender)
//
// An excluded directory must not be entered: its content is neither seen by the
// sender nor by the deletion. Names are bytes; nothing is folded or normalised.
//
// Two departures from rsync are meant to be safer than it. A rule that is too
// long or has a NUL byte, and a per-directory file that exists and cannot be
// read, are errors instead of being left out. A leading '/' in a per-directory
// file is anchored at that very directory even if its name has wildcard characters.
// One departure is a limit: a per-directory file named with a path (as -F does) is
// looked for inside the tree only, never in the directories above it.
package filter

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
)

// Side says for whom a rule is asked.
type Side uint8

const (
	Sender   Side = 1 << iota // is the name hidden from the transfer?
	Receiver                  // is the name protected from deletion?
)

// Rules is an ordered list of rules. It does not change after it was built and
// may be used by several goroutines. A nil *Rules has no rule.
type Rules struct {
	list  []*rule
	lists []*rule // the per-directory rules of list, in order
	opts  Options
	// xattrs are the sides on which these rules stand in for rsync's own about the
	// names of extended attributes.
	xattrs Side
}

// Options are what the whole list depends on.
type Options struct {
	// DeleteExcluded makes every rule that names no side one of the sender only, so
	// that excluded names are deleted at the receiver. Rules of Own keep their sides.
	DeleteExcluded bool
	// Pull says that the source is another host: as in rsync what the built-in rules
	// of CVS leave out is then not deleted by DeleteExcluded.
	Pull bool
	// SourceRoot and DestRoot are the absolute paths of the two trees. Only rules
	// with the modifier '/' look at them, and such a rule is an error without both.
	SourceRoot, DestRoot string
}

// Scope is the rules as they stand inside one directory, with the
// per-directory merge files read on the way down. It does not change and may
// be used by several goroutines. A nil *Scope has no rule.
type Scope struct {
	rules  *Rules
	merged []merged
	doomed bool
	side   Side // whose tree is walked; 0 is not known
	xattrs bool // merged has rules for names of extended attributes
}

// merged is what one per-directory rule has read so far.
type merged struct {
	by   *rule // nil when a deeper file cleared the rule
	list []*rule
}

// Root returns the scope around the transfer root, before any per-directory
// file is read; Enter("", …) reads those of the root itself. The root has no
// name and is never excluded.
func (r *Rules) Root() *Scope {
	if r == nil {
		return nil
	}
	s := &Scope{rules: r}
	for _, m := range r.lists {
		s.merged = append(s.merged, merged{by: m})
	}
	return s
}

// Len returns the number of rules, for reports. Rules of per-directory files
// are not among them.
func (r *Rules) Len() int {
	if r == nil {
		return 0
	}
	return len(r.list)
}

// PerDirectory reports whether Enter will read files.
func (r *Rules) PerDirectory() bool { return r != nil && len(r.lists) > 0 }

// Doomed returns the scope for walking a directory that is being deleted as a
// whole: perishable rules do not count in it, nor in any scope entered from it.
func (s *Scope) Doomed() *Scope {
	if s == nil || s.doomed {
		return s
	}
	d := *s
	d.doomed = true
	return &d
}

// For returns the scope for walking the tree of one side: per-directory files that
// are for the other alone are not read in it, nor in any scope entered from it.
func (s *Scope) For(side Side) *Scope {
	if s == nil || s.side == side {
		return s
	}
	one := *s
	one.side = side
	return &one
}

// Enter returns the scope of the directory path, a child of the directory s
// stands for (relative to the transfer root; "" for the root itself). read
// returns the content of a file in that directory, or an error that wraps
// fs.ErrNotExist; it is called only if there are per-directory rules, and never
// with a path. For the sender's side read must look at the source's copy, for the
// receiver's side at the destination's.
func (s *Scope) Enter(path string, read func(name string) ([]byte, error)) (*Scope, error) {
	if s == nil || len(s.merged) == 0 {
		return s, nil
	}
	next := &Scope{rules: s.rules, doomed: s.doomed, side: s.side, merged: slices.Clone(s.merged)}
	// A file may name further per-directory files, which are read here as well.
	for i := 0; i < len(next.merged); i++ {
		if by := next.merged[i].by; by == nil || by.sides != 0 && s.side != 0 && by.sides&s.side == 0 {
			continue
		}
		if err := next.readMerge(i, path, read); err != nil {
			return nil, err
		}
	}
	next.xattrs = slices.ContainsFunc(next.merged, func(m merged) bool { return slices.ContainsFunc(m.list, isXattr) })
	return next, nil
}

func (s *Scope) readMerge(i int, path string, read func(name string) ([]byte, error)) error {
	by := s.merged[i].by
	into := target{inherited: s.merged[i].list, scope: s, dir: path}
	if by.flags&noInherit != 0 {
		into.inherited = nil
	}
	content, err := read(by.pattern)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EISDIR):
		s.merged[i].list = into.inherited
		return nil
	case err != nil:
		return fmt.Errorf("read the filter file %q of directory %q: %w", by.pattern, path, err)
	}
	name := by.pattern
	if path != "" {
		name = path + "/" + by.pattern
	}
	p := parser{opts: s.rules.opts, nul: by.flags&nulEnds != 0}
	if err := p.file(&into, name, content, by); err != nil {
		return err
	}
	s.merged[i].list = into.all()
	if len(s.merged[i].list) > maxRules {
		return fmt.Errorf("%q: more than %d filter rules in force", name, maxRules)
	}
	return nil
}

// Excluded reports whether the first rule that matches path, as seen from
// side, excludes it, and the pattern of that rule ("" when none matched). path is
// relative to the transfer root and must be a name in the directory s stands for.
func (s *Scope) Excluded(path string, isDir bool, side Side) (excluded bool, rule string) {
	if s == nil || path == "" {
		return false, ""
	}
	var buf [textBuffer]byte
	q := query{scope: s, side: side, isDir: isDir, path: path, base: base(path), text: framed(buf[:0], path)}
	r := q.first(s.rules.list)
	if r == nil {
		return false, ""
	}
	if r.flags&ofCVS != 0 {
		return r.flags&include == 0, r.text + " [global CVS]"
	}
	return r.flags&include == 0, r.text
}
