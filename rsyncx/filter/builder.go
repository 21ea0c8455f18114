package filter

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	maxRules   = 100_000  // in one list
	maxPattern = 4095     // bytes, as rsync's MAXPATHLEN allows
	maxFile    = 16 << 20 // bytes of one file of rules
	maxNesting = 32       // merge files within merge files
	maxPerDir  = 100      // per-directory files in force
)

// Builder collects rules in the order of a command line. Every method that takes
// text returns an error that names the rule, and what came before it stands. It
// must not be used by several goroutines at once.
type Builder struct {
	// ReadFile returns the content of a file named by a merge rule (". file").
	// Without it such a rule is an error.
	ReadFile func(name string) ([]byte, error)
	// From0 says that the files of merge rules hold rules ended by NUL bytes, not
	// lines. It applies to the rules added after it was set.
	From0 bool
	// CVSIgnore is the content of ~/.cvsignore and of the environment's
	// CVSIGNORE, for CVS and the rule "-C".
	CVSIgnore []string

	own  []*rule
	list target
	cvs  bool // CVS was called
	f    int  // how often F was called
}

// NewBuilder returns a Builder without rules.
func NewBuilder() *Builder { return &Builder{} }

func (b *Builder) parser() *parser {
	return &parser{readFile: b.ReadFile, cvsIgnore: b.CVSIgnore, nul: b.From0}
}

// Exclude adds the pattern of --exclude: "+ " in front makes it an include, a
// lone "!" clears what was added before, "" adds nothing.
func (b *Builder) Exclude(pattern string) error {
	return b.parser().text(&b.list, pattern, rule{}, true)
}

// Include adds the pattern of --include: "- " in front makes it an exclude, a
// lone "!" clears what was added before, "" adds nothing.
func (b *Builder) Include(pattern string) error {
	return b.parser().text(&b.list, pattern, rule{flags: include}, true)
}

// Filter adds the rule of --filter, for example "- *.o", "P /keep", ": .rules" or
// ". file".
func (b *Builder) Filter(text string) error {
	return b.parser().text(&b.list, text, rule{}, false)
}

// ExcludeFrom adds the patterns of --exclude-from, one a line, or each ended by
// a NUL byte. name is for errors. All wrong lines are reported at once.
func (b *Builder) ExcludeFrom(name string, r io.Reader, nul bool) error {
	return b.from(name, r, nul, rule{})
}

// IncludeFrom adds the patterns of --include-from; see ExcludeFrom.
func (b *Builder) IncludeFrom(name string, r io.Reader, nul bool) error {
	return b.from(name, r, nul, rule{flags: include})
}

func (b *Builder) from(name string, r io.Reader, nul bool, as rule) error {
	content, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return fmt.Errorf("read the filter rules of %s: %w", name, err)
	}
	p := b.parser()
	p.nul, p.old = nul, true
	return p.file(&b.list, name, content, &as)
}

// F adds the rule of -F; called a second time, that of the second -F.
func (b *Builder) F() error {
	b.f++
	switch b.f {
	case 1:
		return b.Filter(": /.rsync-filter")
	case 2:
		return b.Filter("- .rsync-filter")
	}
	return nil
}

// CVS adds the rules of -C at the very end, wherever it is called: the
// per-directory files .cvsignore, rsync's built-in list, and CVSIgnore.
func (b *Builder) CVS() { b.cvs = true }

// Own adds a rule of the program itself that excludes pattern for side (or both,
// joined by |). Such rules come before all others, cannot be cleared, and are not
// touched by Options.DeleteExcluded. The pattern is taken as it is, without prefixes.
func (b *Builder) Own(pattern string, side Side) error {
	if side == 0 || side&^(Sender|Receiver) != 0 {
		return fmt.Errorf("internal error: filter rule %q for side %d", pattern, side)
	}
	r, err := compile(pattern, rule{sides: side})
	if err != nil {
		return &RuleError{Rule: pattern, Reason: err.Error()}
	}
	b.own = append(b.own, r)
	return nil
}

// Rules returns the list. The Builder may be used further; the list stays as it is.
func (b *Builder) Rules(o Options) (*Rules, error) {
	all := target{local: slices.Concat(b.own, b.list.local)}
	if b.cvs {
		for _, text := range []string{":C", "-C"} {
			before := len(all.local)
			if err := b.parser().text(&all, text, rule{}, false); err != nil {
				return nil, err
			}
			for i := before; o.Pull && text == "-C" && i < len(all.local); i++ {
				all.local[i].sides = Sender | Receiver
			}
		}
	}
	if len(all.local) > maxRules {
		return nil, fmt.Errorf("more than %d filter rules", maxRules)
	}
	rules, err := newRules(all.local, o)
	if rules != nil {
		rules.settleXattrs(all.xattrs || b.list.xattrs)
	}
	return rules, err
}

func newRules(list []*rule, o Options) (*Rules, error) {
	r := &Rules{opts: o, list: make([]*rule, len(list))}
	var errs []error
	for i, from := range list {
		one := *from
		r.list[i] = &one
		if err := one.settle(o); err != nil {
			errs = append(errs, &RuleError{Rule: one.text, Reason: err.Error()})
		}
		if one.flags&perDir != 0 {
			r.lists = append(r.lists, &one)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r, nil
}

// ErrRule is wrapped by every *RuleError.
var ErrRule = errors.New("a filter rule is wrong")

// RuleError is what is wrong with one rule.
type RuleError struct {
	File   string // "" for a rule that was given directly
	Line   int    // from 1; 0 when File is ""
	Rule   string // not part of the text when File has it
	Reason string
}

func (e *RuleError) Is(target error) bool { return target == ErrRule }

func (e *RuleError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("filter rule %q: %s", e.Rule, e.Reason)
	}
	// The rule itself is not told: a merge file may be one that whoever reads this may not.
	return fmt.Sprintf("%s:%d: a filter rule is wrong: %s", e.File, e.Line, e.Reason)
}
