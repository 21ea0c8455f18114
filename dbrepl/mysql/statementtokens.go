package mysql

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxStatement bounds the statements of the active that are read for what they do.
const maxStatement = 64 << 10

// token is a part of a statement: a word, a name in quotes, a text, a number or a
// single sign.
type token struct {
	kind byte // 'w', 'n', 't', '0', or the sign itself
	text string
	word string // of a word, in upper case
}

// temporary is how MySQL writes down that a temporary table went.
const temporary = "/*!40005 TEMPORARY */"

// tokens takes a statement apart. It refuses whatever a server could read in
// another way than this does: which signs are quotes and escapes depends on the
// session's SQL mode and character set, which are not known here.
func tokens(s string) (all []token, ok bool) {
	if len(s) > maxStatement || !utf8.ValidString(s) || strings.ContainsAny(s, "\\\x00") {
		return nil, false
	}
	s = strings.ReplaceAll(s, temporary, "TEMPORARY")
	for s != "" {
		switch {
		case strings.ContainsRune(" \t\r\n", rune(s[0])):
			s = s[1:]
			continue
		case strings.HasPrefix(s, "/*"):
			if s, ok = cutComment(s); !ok {
				return nil, false
			}
			continue
		case s[0] == '#' || strings.HasPrefix(s, "--"):
			return nil, false
		}
		var t token
		if t, s, ok = cutToken(s); !ok {
			return nil, false
		}
		all = append(all, t)
	}
	return all, true
}

// cutComment takes a comment off the front, unless it is one that a server executes.
func cutComment(s string) (rest string, ok bool) {
	comment, rest, ok := strings.Cut(s[2:], "*/")
	if comment != "" && strings.ContainsRune("!+M", rune(comment[0])) {
		return "", false
	}
	return rest, ok
}

func cutToken(s string) (t token, rest string, ok bool) {
	switch c := s[0]; {
	case c == '`' || c == '"' || c == '\'':
		end := strings.IndexByte(s[1:], c)
		if end < 0 {
			return t, "", false
		}
		end += 2
		if strings.HasPrefix(s[end:], string(c)) {
			return t, "", false // a quote within
		}
		kind := byte('n')
		if c == '\'' {
			kind = 't'
		}
		return token{kind: kind, text: s[1 : end-1]}, s[end:], true
	case c >= '0' && c <= '9':
		n := 1
		for n < len(s) && (s[n] == '.' || wordByte(s[n])) {
			n++
		}
		if _, err := strconv.ParseFloat(s[:n], 64); err != nil {
			return t, "", false // a name can begin with a digit
		}
		return token{kind: '0', text: s[:n]}, s[n:], true
	case wordByte(c):
		n := 1
		for n < len(s) && wordByte(s[n]) {
			n++
		}
		return token{'w', s[:n], strings.ToUpper(s[:n])}, s[n:], true
	case c < 0x80:
		return token{kind: c, text: s[:1]}, s[1:], true
	}
	return t, "", false
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
