package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// numberParameter replaces the one "?" of a query by "$n". What stands in
// quotes or comments is no parameter.
func numberParameter(query string, n int) (string, error) {
	at := -1
	for i := 0; i < len(query); {
		if query[i] == '?' {
			if at >= 0 {
				return "", errors.New("the query has more than one parameter (?)")
			}
			at = i
		}
		i += max(1, quotedLength(query, i))
	}
	if at < 0 {
		return "", errors.New("the query has no parameter (?)")
	}
	return query[:at] + fmt.Sprintf("$%d", n) + query[at+1:], nil
}

var dollarQuote = regexp.MustCompile(`^\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$`)

// quotedLength is how many bytes of a query from i on are one quoted text, name
// or comment; 0 if none begins there. One without an end goes to the query's.
func quotedLength(query string, i int) int {
	rest := query[i:]
	switch {
	case rest[0] == '\'':
		escapes := i > 0 && (query[i-1] == 'E' || query[i-1] == 'e') && (i < 2 || !isWord(query[i-2]))
		return quoteEnd(rest, '\'', escapes)
	case rest[0] == '"':
		return quoteEnd(rest, '"', false)
	case strings.HasPrefix(rest, "--"):
		if n := strings.IndexByte(rest, '\n'); n >= 0 {
			return n + 1
		}
		return len(rest)
	case strings.HasPrefix(rest, "/*"):
		return commentEnd(rest)
	case rest[0] == '$' && (i == 0 || !isWord(query[i-1])):
		tag := dollarQuote.FindString(rest)
		if tag == "" {
			return 0
		}
		if n := strings.Index(rest[len(tag):], tag); n >= 0 {
			return n + 2*len(tag)
		}
		return len(rest)
	}
	return 0
}

func isWord(b byte) bool {
	return b == '_' || b == '$' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= 0x80
}

// quoteEnd is the length of a text that begins with a quote. A doubled quote is
// two texts beside each other, which comes to the same.
func quoteEnd(rest string, quote byte, escapes bool) int {
	for i := 1; i < len(rest); i++ {
		switch {
		case escapes && rest[i] == '\\':
			i++
		case escapes && rest[i] == quote && i+1 < len(rest) && rest[i+1] == quote:
			i++ // what follows is still a text with escapes
		case rest[i] == quote:
			return i + 1
		}
	}
	return len(rest)
}

// commentEnd is the length of a comment, in which there may be others.
func commentEnd(rest string) int {
	depth := 0
	for i := 0; i+1 < len(rest); {
		switch rest[i : i+2] {
		case "/*":
			depth++
			i += 2
		case "*/":
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return len(rest)
}
