// Package filter holds rsync's filter rules: which names travel, which are
// hidden from the transfer, which are protected from deletion.
package filter

// Side says for whom a rule is asked.
type Side uint8

const (
	Sender   Side = 1 << iota // is the name hidden from the transfer?
	Receiver                  // is the name protected from deletion?
)

// Rules is an ordered list of rules. It does not change after it was built and
// may be used by several goroutines. A nil *Rules has no rule.
type Rules struct{}

// Scope is the rules as they stand inside one directory, with the
// per-directory merge files read on the way down.
type Scope struct{}

// Root returns the scope of the transfer root.
func (r *Rules) Root() *Scope { return nil }

// Enter returns the scope of the child directory path (relative to the
// transfer root). read returns the content of a file in that directory, or an
// error that wraps fs.ErrNotExist; it is called only if there are
// per-directory rules.
func (s *Scope) Enter(path string, read func(name string) ([]byte, error)) (*Scope, error) {
	return s, nil
}

// Excluded reports whether the first rule that matches path, as seen from
// side, excludes it, and the text of that rule ("" when none matched).
func (s *Scope) Excluded(path string, isDir bool, side Side) (excluded bool, rule string) {
	return false, ""
}
