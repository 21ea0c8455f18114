package mysql

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// trigger is what the statement of a trigger says before its body.
type trigger struct {
	head string // the statement up to the body
	on   string // when: "BEFORE INSERT"
	body string // as its author wrote it
}

// blanks are what a server takes for white space.
const blanks = " \t\r\n\f\v"

var errTriggerHead = errors.New("has a definition that drsync does not understand")

// readTrigger takes the statement of a trigger apart, which the server shows as
// its author wrote it, perhaps with a schema's name and with comments anywhere,
// but for the definer and for comments that are executed: what these say stands
// there by itself. mode is the SQL mode that it was written in.
func readTrigger(statement, mode string) (t trigger, err error) {
	h := &heading{rest: statement, modes: strings.Split(mode, ",")}
	h.next()
	ok := h.word("CREATE") && (!h.word("OR") || h.word("REPLACE")) && h.definer() && h.word("TRIGGER") &&
		(!h.word("IF") || h.word("NOT") && h.word("EXISTS")) && h.qualified()
	if !ok {
		return t, errTriggerHead
	}
	from := h.at(statement)
	if t.on, ok = h.events(); !ok {
		return t, errTriggerHead
	}
	if t.on == "" { // more than one, or of some columns only
		t.on = strings.TrimSpace(statement[from:h.at(statement)])
	}
	if !h.word("ON") || !h.qualified() || !h.word("FOR") || !h.word("EACH") || h.upper() != "ROW" {
		return t, errTriggerHead
	}
	t.body = h.rest
	h.next()
	if first := h.upper(); first == "FOLLOWS" || first == "PRECEDES" {
		// Alone it is the label of a body.
		if h.next(); h.isName() {
			t.body = h.rest
		}
	}
	if h.bad {
		return t, errTriggerHead
	}
	t.body = strings.TrimLeft(t.body, blanks)
	t.head = statement[:len(statement)-len(t.body)]
	if t.body = ended(t.body); t.body == "" {
		return t, errTriggerHead
	}
	return t, nil
}

// heading reads the words of a statement's beginning.
type heading struct {
	modes []string
	token string // the one that is looked at
	kind  byte   // 'w' a word, 'n' a name in quotes, 't' a text, 0 the end, or the sign itself
	rest  string // what follows it
	bad   bool   // what follows cannot be read
}

// at is where the token that is looked at begins.
func (h *heading) at(statement string) int { return len(statement) - len(h.rest) - len(h.token) }

func (h *heading) has(mode string) bool { return slices.Contains(h.modes, mode) }

// next goes on to the next token.
func (h *heading) next() {
	h.token, h.kind = "", 0
	for {
		h.rest = strings.TrimLeft(h.rest, blanks)
		switch s := h.rest; {
		case strings.HasPrefix(s, "#"), s == "--", strings.HasPrefix(s, "--") && s[2] <= ' ':
			_, h.rest, _ = strings.Cut(s, "\n")
		case strings.HasPrefix(s, "/*!"), strings.HasPrefix(s, "/*M!"):
			h.bad, h.rest = true, ""
			return
		case strings.HasPrefix(s, "/*"):
			var closed bool
			_, h.rest, closed = strings.Cut(s[2:], "*/")
			h.bad = h.bad || !closed
		case s == "":
			return
		default:
			h.cut()
			return
		}
	}
}

func (h *heading) cut() {
	s, n := h.rest, 1
	switch c := s[0]; {
	case c == '`' || c == '"' || c == '\'':
		h.kind = 't'
		if c == '`' || c == '"' && h.has("ANSI_QUOTES") {
			h.kind = 'n'
		}
		if n = h.quoted(s); n == 0 {
			h.bad, h.kind, h.rest = true, 0, ""
			return
		}
	case nameByte(c):
		h.kind = 'w'
		for n < len(s) && nameByte(s[n]) {
			n++
		}
	default:
		h.kind = c
	}
	h.token, h.rest = s[:n], s[n:]
}

// nameByte says whether a byte may be in a name without quotes.
func nameByte(c byte) bool { return wordByte(c) || c >= utf8.RuneSelf }

// quoted returns how long the text in quotes is that s begins with; 0 is that it does not end.
func (h *heading) quoted(s string) int {
	escapes := h.kind == 't' && !h.has("NO_BACKSLASH_ESCAPES")
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && escapes:
			i++
		case s[i] != s[0]:
		case i+1 < len(s) && s[i+1] == s[0]:
			i++
		default:
			return i + 1
		}
	}
	return 0
}

// upper is the token in upper case, if it is a word.
func (h *heading) upper() string {
	if h.kind != 'w' {
		return ""
	}
	return strings.ToUpper(h.token)
}

func (h *heading) isName() bool { return h.kind == 'w' || h.kind == 'n' }

// word goes on if the token is one of the given words.
func (h *heading) word(any ...string) bool {
	if !slices.Contains(any, h.upper()) {
		return false
	}
	h.next()
	return true
}

func (h *heading) sign(c byte) bool {
	if h.kind != c {
		return false
	}
	h.next()
	return true
}

// qualified reads a name, perhaps with a schema's.
func (h *heading) qualified() bool {
	for {
		if !h.isName() {
			return false
		}
		h.next()
		if !h.sign('.') {
			return true
		}
	}
}

// definer reads who the definer is, if that is told.
func (h *heading) definer() bool {
	if !h.word("DEFINER") {
		return true
	}
	account := func() bool {
		ok := h.isName() || h.kind == 't'
		h.next()
		return ok
	}
	return h.sign('=') && account() && (!h.sign('@') || account())
}

// events reads when a trigger acts: it is "" if that is more than one word can say.
func (h *heading) events() (on string, ok bool) {
	when := h.upper()
	if !h.word("BEFORE", "AFTER") {
		return "", false
	}
	what := h.upper()
	if !h.word("INSERT", "UPDATE", "DELETE") {
		return "", false
	}
	for on = when + " " + what; h.upper() != "ON"; on = "" {
		if h.kind == 0 || !h.isName() && h.kind != ',' {
			return "", false
		}
		h.next()
	}
	return on, true
}
