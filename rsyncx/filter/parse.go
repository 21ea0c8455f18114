package filter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// target is the list that rules are being added to: the global one, or that of
// one per-directory rule in one directory.
type target struct {
	local, inherited []*rule
	scope            *Scope // of the directory being entered; nil for the global list
	dir              string // its path
	xattrs           bool   // the modifier x was seen, even if its rule was cleared
}

func (t *target) all() []*rule {
	if len(t.local) == 0 {
		return t.inherited
	}
	return slices.Concat(t.local, t.inherited)
}

// clear is the rule '!'. A per-directory rule of this list may then be named
// again; an inherited one stays in force for the lists it is in.
func (t *target) clear() {
	if t.scope != nil {
		for i, m := range t.scope.merged {
			if slices.Contains(t.local, m.by) {
				t.scope.merged[i].by = nil
			}
		}
	}
	t.local, t.inherited = nil, nil
}

// reads reports whether the per-directory file name is read already; it would
// add nothing to name it a second time.
func (t *target) reads(name string) bool {
	if t.scope != nil {
		return slices.ContainsFunc(t.scope.merged, func(m merged) bool { return m.by != nil && m.by.pattern == name })
	}
	return slices.ContainsFunc(t.local, func(r *rule) bool { return r.flags&perDir != 0 && r.pattern == name })
}

// perDirs counts the per-directory files in force.
func (t *target) perDirs() int {
	n := 0
	if t.scope != nil {
		n = len(t.scope.merged)
	}
	for _, r := range t.local {
		if t.scope == nil && r.flags&perDir != 0 {
			n++
		}
	}
	return n
}

// parser turns text into rules of a target.
type parser struct {
	opts      Options                           // for the rules of per-directory files
	readFile  func(name string) ([]byte, error) // for merge rules
	cvsIgnore []string
	nul       bool // files end their rules with NUL
	old       bool // the file is one of patterns: --exclude-from
	depth     int

	name string // of the file being read
	line int
}

func (p *parser) wrong(text, format string, args ...any) error {
	return &RuleError{File: p.name, Line: p.line, Rule: text, Reason: fmt.Sprintf(format, args...)}
}

// maxErrors is how many wrong rules of one file are reported.
const maxErrors = 20

// file adds the rules of one file. by is the rule that names it, or says what
// its patterns are by default.
func (p parser) file(into *target, name string, content []byte, by *rule) error {
	if len(content) > maxFile {
		return fmt.Errorf("the filter rules of %s are larger than %d bytes", name, maxFile)
	}
	words := by.flags&wordSplit != 0
	p.name, p.line = name, 1
	var errs []error
	for len(content) > 0 && len(errs) < maxErrors {
		n := 0
		for n < len(content) && !p.ends(content[n], words) {
			n++
		}
		// A comment starts with the very first byte, and words know none.
		if n > 0 && (words || content[0] != '#' && content[0] != ';') {
			if err := p.text(into, string(content[:n]), *by, p.old); err != nil {
				errs = append(errs, err)
			}
		}
		if n == len(content) {
			break
		}
		if content[n] == '\n' || content[n] == 0 {
			p.line++
		}
		content = content[n+1:]
	}
	return errors.Join(errs...)
}

func (p *parser) ends(c byte, words bool) bool {
	if words && isSpace(c) {
		return true
	}
	if p.nul {
		return c == 0
	}
	return c == '\n' || c == '\r'
}

// text adds the rules of one option or line: one rule, or with by's wordSplit
// one a word. old is the syntax of --exclude and --include.
func (p *parser) text(into *target, s string, by rule, old bool) error {
	for {
		if by.flags&wordSplit != 0 {
			for s != "" && isSpace(s[0]) {
				s = s[1:]
			}
		}
		if s == "" {
			return nil
		}
		tok, err := p.token(s, by, old)
		if err != nil {
			return err
		}
		s = tok.rest
		if err := p.put(into, tok); err != nil {
			return err
		}
	}
}

// put carries out one rule.
func (p *parser) put(into *target, tok token) error {
	r := tok.rule
	into.xattrs = into.xattrs || r.flags&xattr != 0
	switch {
	case tok.clear:
		into.clear()
		return nil
	case r.flags&(single|perDir) != 0:
		return p.merge(into, tok)
	case r.flags&cvsIgnore != 0:
		return p.cvs(into, r)
	}
	return p.add(into, tok.pattern, r, tok.text)
}

func (p *parser) add(into *target, pattern string, r rule, text string) error {
	r.flags &= kept
	if p.nul && r.flags&perDir != 0 {
		r.flags |= nulEnds
	}
	if into.scope != nil && r.flags&(absolute|perDir) == 0 && strings.HasPrefix(pattern, "/") {
		r.anchor = into.dir
	}
	c, err := compile(pattern, r)
	if err == nil && into.scope != nil {
		err = c.settle(p.opts)
	}
	switch {
	case err != nil:
		return p.wrong(text, "%v", err)
	case len(into.local) >= maxRules:
		return p.wrong(text, "more than %d rules", maxRules)
	case c.flags&perDir != 0 && into.reads(c.pattern):
		return nil
	case c.flags&perDir != 0 && into.perDirs() >= maxPerDir:
		return p.wrong(text, "more than %d per-directory files", maxPerDir)
	}
	into.local = append(into.local, c)
	if c.flags&perDir != 0 && into.scope != nil {
		into.scope.merged = append(into.scope.merged, merged{by: c})
	}
	return nil
}

// merge carries out the rules '.' and ':'.
func (p *parser) merge(into *target, tok token) error {
	r, name := tok.rule, tok.pattern
	if name == "" {
		name = ".cvsignore"
	}
	if r.flags&excludeSelf != 0 {
		if err := p.add(into, name[strings.LastIndexByte(name, '/')+1:], rule{}, tok.text); err != nil {
			return err
		}
	}
	if r.flags&perDir != 0 {
		if into.scope != nil && strings.IndexByte(name, '/') >= 0 {
			return p.wrong(tok.text, "a per-directory file cannot name one by a path")
		}
		return p.add(into, name, r, tok.text)
	}
	switch {
	case into.scope != nil:
		return p.wrong(tok.text, "a per-directory file cannot merge another file once; only dir-merge is possible here")
	case p.readFile == nil:
		return p.wrong(tok.text, "no file can be read here")
	case p.depth >= maxNesting:
		return p.wrong(tok.text, "merge files are nested deeper than %d", maxNesting)
	}
	content, err := p.readFile(name)
	if err != nil {
		return fmt.Errorf("%w: %w", p.wrong(tok.text, "the file cannot be read"), err)
	}
	inner := *p
	inner.depth++
	inner.old = false
	return inner.file(into, name, content, &r)
}

// cvs adds the rules that the rule "-C" stands for.
func (p *parser) cvs(into *target, r rule) error {
	var list target
	builtIn := r
	builtIn.flags |= perishable
	if err := p.text(&list, cvsDefault, builtIn, false); err != nil {
		return err
	}
	for _, words := range p.cvsIgnore {
		if err := p.text(&list, words, r, false); err != nil {
			return err
		}
	}
	if into.scope != nil {
		for _, one := range list.local {
			if err := one.settle(p.opts); err != nil {
				return p.wrong(one.text, "%v", err)
			}
		}
	}
	for _, one := range list.local {
		one.flags |= ofCVS
	}
	into.local = append(into.local, list.local...)
	return nil
}

// cvsDefault are the names that CVS ignores, and the directories of version
// control systems.
const cvsDefault = "RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo" +
	" *~ #* .#* ,* _$* *$ *.old *.bak *.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe" +
	" *.Z *.elc *.ln core .svn/ .git/ .hg/ .bzr/"
