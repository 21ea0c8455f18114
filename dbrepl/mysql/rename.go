package mysql

import (
	"regexp"
	"slices"
	"strings"
)

// renameObjects makes the objects of a dump name the target where they name the
// schema that they were captured from. fold says that names of schemas are the
// same in any case.
func (k *copier) renameObjects(fold bool) {
	objects := slices.Clone(k.g.Objects)
	for i := range objects {
		renamed, doubtful := renameSchema(objects[i], k.source, k.target, fold)
		if renamed != objects[i].SQL {
			if objects[i].Bytes != "" {
				k.warn("%s names the database %s and was made by a client of the character set %s: texts in it with a character set of their own may be other ones", objects[i], k.source, objects[i].Client)
			}
			objects[i].SQL, objects[i].Bytes = renamed, ""
		}
		if doubtful {
			k.warn("%s uses %s as a name of something else too and is left as it is: it may go on using the database %s", objects[i], k.source, k.source)
		}
	}
	k.g.Objects = objects
}

// word is an identifier in a statement.
type word struct {
	start, end int    // as it is written
	name       string // without quotes
}

// renameSchema replaces the name of a schema in the statement of an object: the
// word before a dot. A statement where the same word stands alone too is left as
// it is, and doubtful: it may be the alias of a table.
func renameSchema(o object, from, to string, fold bool) (sql string, doubtful bool) {
	var qualifies []word
	alone := false
	for _, w := range words(o.SQL, o.Mode) {
		before, after := lastByte(o.SQL[:w.start]), firstByte(o.SQL[w.end:])
		switch {
		case w.name != from && !(fold && strings.EqualFold(w.name, from)) || before == '.' || before == '@' || after == '@':
		case after == '.':
			qualifies = append(qualifies, w)
		default:
			alone = true
		}
	}
	if len(qualifies) == 0 || alone {
		return o.SQL, len(qualifies) > 0
	}
	var b strings.Builder
	last := 0
	for _, w := range qualifies {
		b.WriteString(o.SQL[last:w.start] + quote(to))
		last = w.end
	}
	return b.String() + o.SQL[last:], false
}

func lastByte(s string) byte {
	if s = strings.TrimRight(s, " \t\r\n"); s != "" {
		return s[len(s)-1]
	}
	return 0
}

func firstByte(s string) byte {
	if s = strings.TrimLeft(s, " \t\r\n"); s != "" {
		return s[0]
	}
	return 0
}

// lexemes match what a statement consists of, one piece at a time: quoted text,
// comments, words, and everything else. The second is for a session where a
// backslash is nothing special.
var lexemes = [2]*regexp.Regexp{
	lexeme(`'(?:[^'\\]|\\.|\'\')*'`, `"(?:[^"\\]|\\.|"")*"`),
	lexeme(`'(?:[^']|\'\')*'`, `"(?:[^"]|"")*"`),
}

func lexeme(single, double string) *regexp.Regexp {
	return regexp.MustCompile("(?s)^(?:" +
		"`((?:[^`]|``)*)`" + // 1: a quoted name
		"|(" + double + ")" + // 2: a text, or a name
		"|" + single +
		`|/\*.*?\*/|#[^\n]*|--[\s][^\n]*` +
		`|([\p{L}\p{N}_$]+)` + // 3: a word
		"|.)")
}

// words returns the identifiers of a statement in order, with some words that
// are none.
func words(sql, mode string) (all []word) {
	lex := lexemes[0]
	if strings.Contains(mode, "NO_BACKSLASH_ESCAPES") {
		lex = lexemes[1]
	}
	for at := 0; at < len(sql); {
		m := lex.FindStringSubmatchIndex(sql[at:])
		piece := func(i int) string { return sql[at+m[2*i] : at+m[2*i+1]] }
		switch {
		case m[2] >= 0:
			all = append(all, word{at, at + m[1], strings.ReplaceAll(piece(1), "``", "`")})
		case m[4] >= 0 && strings.Contains(mode, "ANSI_QUOTES"):
			text := piece(2)
			all = append(all, word{at, at + m[1], strings.ReplaceAll(text[1:len(text)-1], `""`, `"`)})
		case m[6] >= 0:
			all = append(all, word{at, at + m[1], piece(3)})
		}
		at += m[1]
	}
	return all
}
