package filter

import (
	"errors"
	"strings"
)

type flags uint16

const (
	include     flags = 1 << iota // else exclude
	dirOnly                       // the pattern ended in '/'
	negate                        // '!': matches what the pattern does not
	absolute                      // '/': matched against the absolute path
	perishable                    // 'p'
	perDir                        // ':': pattern is the name of a file in every directory
	single                        // '.': never kept in a list
	noInherit                     // 'n'
	wordSplit                     // 'w'
	noPrefixes                    // '-' or '+' of a merge rule: its lines are patterns
	cvsIgnore                     // 'C'
	excludeSelf                   // 'e'
	xattr                         // 'x': about names of extended attributes, not of files
	nulEnds                       // the rules of the file end with NUL
	ofCVS                         // one of those that "-C" stands for

	// handedDown is what the rules of a file take over from the rule that names it.
	handedDown = absolute | include | dirOnly | negate | perishable
	// kept is what a rule in a list may have.
	kept = handedDown | perDir | noInherit | wordSplit | noPrefixes | cvsIgnore | xattr | nulEnds | ofCVS
)

// rule is one compiled rule. It does not change once it is in a list that is asked.
type rule struct {
	flags   flags
	sides   Side   // 0 only for a per-directory rule that names none
	pattern string // without the '/' that made it dirOnly
	text    string // as it is shown
	anchor  string // the directory of the file, for a leading '/' in a per-directory file

	how   how
	lit   string // what how works with
	tail  int    // elements, for tailWild
	slash bool   // the text starts with "/", so that "**/x" matches at the top
	dir3  bool   // the text of a directory ends with "/", for "dir/***"
}

// how says which comparison a pattern needs, and with which part of the path.
type how uint8

const (
	nameLiteral how = iota // the last element is lit
	nameSuffix             // the last element ends in lit ("*lit")
	nameWild               // the last element matches lit
	pathLiteral            // the whole path is lit
	tailLiteral            // the last elements are lit
	pathWild               // the whole path matches lit
	tailWild               // the last tail elements match lit
	anyWild                // the path matches lit from its start or after any '/'
)

// compile returns the rule with pattern and what r already says of it.
func compile(pattern string, r rule) (*rule, error) {
	switch {
	case pattern == "":
		return nil, errors.New("unexpected end of filter rule")
	case len(pattern) > maxPattern:
		return nil, errors.New("the pattern is too long")
	case strings.IndexByte(pattern, 0) >= 0:
		return nil, errors.New("a NUL byte cannot be part of a name")
	}
	if len(pattern) > 1 && pattern[len(pattern)-1] == '/' {
		pattern = pattern[:len(pattern)-1]
		r.flags |= dirOnly
	}
	r.pattern, r.text = pattern, pattern
	if r.flags&dirOnly != 0 {
		r.text += "/"
	}
	if r.flags&perDir != 0 {
		r.pattern = pattern[strings.LastIndexByte(pattern, '/')+1:]
		if r.pattern == "" || r.pattern == "." || r.pattern == ".." {
			return nil, errors.New("it does not name a file")
		}
		return &r, nil
	}
	r.prepare()
	return &r, nil
}

// prepare chooses how the pattern is compared.
func (r *rule) prepare() {
	p := r.pattern
	slashes := strings.Count(p, "/")
	wild := strings.ContainsAny(p, "*?[")
	wild2 := strings.Contains(p, "**")
	anchored := p[0] == '/'
	r.lit = p
	if anchored {
		r.lit = p[1:]
	}
	r.slash = strings.HasPrefix(p, "**") && r.flags&absolute == 0
	r.dir3 = wild2 && strings.HasSuffix(p, "***")
	switch {
	case slashes == 0 && !wild2 && !wild:
		r.how = nameLiteral
	case slashes == 0 && !wild2:
		r.how = nameWild
		if p[0] == '*' && !strings.ContainsAny(p[1:], `*?[\`) {
			r.how, r.lit = nameSuffix, p[1:]
		}
	case !wild && anchored:
		r.how = pathLiteral
	case !wild:
		r.how = tailLiteral
	case anchored, strings.HasPrefix(p, "**"):
		r.how = pathWild
	case wild2:
		r.how = anyWild
	default:
		r.how, r.tail = tailWild, slashes+1
	}
}

// settle fixes what depends on the options of the whole list.
func (r *rule) settle(o Options) error {
	if r.sides == 0 && r.flags&perDir == 0 {
		r.sides = Sender | Receiver
		if o.DeleteExcluded {
			r.sides = Sender
		}
	}
	if r.flags&absolute != 0 && (o.SourceRoot == "" || o.DestRoot == "") {
		return errors.New("the modifier / needs the absolute paths of both trees, which are not known here")
	}
	return nil
}
