package cli

import (
	"errors"
	"strings"
)

// SplitLine splits a line into words as a shell does: at blanks outside of
// quotes, with '…', "…" and \ taken away. Nothing is expanded, and no
// other character has a meaning.
func SplitLine(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	in := false // word has begun, though it may be empty
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\n', '\r':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		case '\'':
			n := strings.IndexByte(line[i+1:], '\'')
			if n < 0 {
				return nil, errors.New("a ' is not closed")
			}
			word.WriteString(line[i+1 : i+1+n])
			i += n + 1
			in = true
		case '"':
			n, err := quoted(&word, line[i+1:])
			if err != nil {
				return nil, err
			}
			i += n
			in = true
		case '\\':
			i++
			switch {
			case i == len(line):
				return nil, errors.New("a backslash is the last character")
			case line[i] != '\n':
				word.WriteByte(line[i])
				in = true
			}
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// quoted copies what is up to the closing double quote of s and returns how
// many bytes that took, the quote included.
func quoted(word *strings.Builder, s string) (int, error) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return i + 1, nil
		case s[i] == '\\' && i+1 < len(s) && strings.IndexByte("\"\\$`\n", s[i+1]) >= 0:
			i++
			if s[i] != '\n' {
				word.WriteByte(s[i])
			}
		default:
			word.WriteByte(s[i])
		}
	}
	return 0, errors.New("a \" is not closed")
}
