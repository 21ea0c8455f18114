package filter

import "strings"

// token is one rule as it was written.
type token struct {
	rule    rule
	pattern string
	clear   bool
	text    string // all of it, for errors
	rest    string // what follows
}

// words are the long names of the rules.
var words = [...]struct {
	word   string
	letter byte
}{
	{"clear", '!'}, {"dir-merge", ':'}, {"exclude", '-'}, {"hide", 'H'}, {"include", '+'},
	{"merge", '.'}, {"protect", 'P'}, {"risk", 'R'}, {"show", 'S'},
}

// token takes the first rule of s, which is not empty. by is what the rules of
// this file take over.
func (p *parser) token(s string, by rule, old bool) (token, error) {
	tok := token{rule: rule{flags: by.flags & handedDown}, text: s}
	r := &tok.rule
	switch {
	case by.flags&noPrefixes != 0:
		tok.clear = s[0] == '!' && by.flags&cvsIgnore != 0
	case old:
		switch {
		case strings.HasPrefix(s, "- "):
			r.flags &^= include
			s = s[2:]
		case strings.HasPrefix(s, "+ "):
			r.flags |= include
			s = s[2:]
		default:
			tok.clear = s[0] == '!'
		}
	default:
		var err error
		if s, err = p.prefix(&tok, s, by.flags&wordSplit != 0); err != nil {
			return tok, err
		}
	}
	if by.sides != 0 {
		if r.sides != 0 {
			return tok, p.wrong(tok.text, "the rule names a side, and so does the one that merges its file")
		}
		r.sides = by.sides
	}
	tok.pattern = s
	if by.flags&wordSplit != 0 {
		n := 0
		for n < len(s) && !isSpace(s[n]) {
			n++
		}
		tok.pattern, tok.rest = s[:n], s[n:]
	}
	switch {
	case tok.clear && by.flags&noPrefixes == 0 && !old:
		if tok.pattern != "" {
			return tok, p.wrong(tok.text, "nothing may follow '!'")
		}
	case tok.clear:
		tok.clear = len(tok.pattern) == 1
	case tok.pattern == "" && r.flags&cvsIgnore == 0:
		return tok, p.wrong(tok.text, "unexpected end of filter rule")
	}
	return tok, nil
}

// prefix reads the kind of a rule and its modifiers, up to the one space or
// underscore before the pattern, and returns what follows.
func (p *parser) prefix(tok *token, s string, split bool) (string, error) {
	letter, at := s[0], 1 // at is where the modifiers start
	for _, w := range words {
		if n := len(w.word); strings.HasPrefix(s, w.word) && (len(s) == n || isSpace(s[n]) || s[n] == '_' || s[n] == ',') {
			letter, at = w.letter, n
		}
	}
	if at < len(s) && s[at] == ',' {
		at++
	}
	r := &tok.rule
	sided := false
	switch letter {
	case '-':
	case '+':
		r.flags |= include
	case ':':
		r.flags |= perDir
	case '.':
		r.flags |= single
	case 'H', 'S':
		sided, r.sides = true, Sender
	case 'P', 'R':
		sided, r.sides = true, Receiver
	case '!':
		tok.clear = true
		return s[at:], nil
	default:
		return "", p.wrong(tok.text, "not a filter rule; it starts with one of + - . : H S P R ! or such a word")
	}
	if letter == 'S' || letter == 'R' {
		r.flags |= include
	}
	for ; at < len(s) && s[at] != ' ' && s[at] != '_'; at++ {
		if split && isSpace(s[at]) {
			return s[at:], nil
		}
		if !r.modify(s[at], sided) {
			return "", p.wrong(tok.text, "the modifier %q does not fit this rule", s[at])
		}
	}
	if at < len(s) {
		at++
	}
	return s[at:], nil
}

// modify applies one modifier, and reports whether it may stand here.
func (r *rule) modify(m byte, sided bool) bool {
	merge := r.flags&(perDir|single) != 0
	switch m {
	case '-', '+':
		if !merge || r.flags&noPrefixes != 0 {
			return false
		}
		r.flags |= noPrefixes
		if m == '+' {
			r.flags |= include
		}
	case '/':
		r.flags |= absolute
	case '!':
		if merge {
			return false
		}
		r.flags |= negate
	case 'C':
		if r.flags&noPrefixes != 0 || sided {
			return false
		}
		r.flags |= noPrefixes | wordSplit | noInherit | cvsIgnore
	case 'e', 'n', 'w':
		if !merge {
			return false
		}
		r.flags |= map[byte]flags{'e': excludeSelf, 'n': noInherit, 'w': wordSplit}[m]
	case 'p':
		r.flags |= perishable
	case 'r', 's':
		if sided {
			return false
		}
		if m == 's' {
			r.sides |= Sender
		} else {
			r.sides |= Receiver
		}
	case 'x':
		r.flags |= xattr
	default:
		return false
	}
	return true
}
