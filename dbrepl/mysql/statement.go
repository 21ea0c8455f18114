package mysql

import (
	"slices"
	"strings"
)

// statement is what travels from the active as text and not as rows: its default
// schema ("" when none is told) and what it consists of.
type statement struct {
	schema string
	parts  []token
}

// readStatement reads what the server shows of an event: "use `art`; CREATE TABLE …".
func readStatement(info string) (s statement, ok bool) {
	if rest, uses := strings.CutPrefix(info, "use `"); uses {
		name, rest, ok := cutName("`" + rest)
		if !ok || !strings.HasPrefix(rest, "; ") {
			return s, false
		}
		s.schema, info = name, rest[len("; "):]
	}
	s.parts, ok = tokens(info)
	return s, ok && len(s.parts) > 0
}

// harmless says whether an applier that is held to one schema by its filter
// surely gets by a statement: because it can apply it, as it did on the active,
// or because the filter drops it. It knows few statements, of which each was
// tried; no is the answer to all others.
func harmless(info, ours string, mariaDB bool) bool {
	switch {
	case len(info) > maxStatement:
		return false
	case holdsTogether(info):
		return true
	}
	s, ok := readStatement(info)
	if !ok {
		return false
	}
	kind, rest := s.head()
	switch {
	case kind == "":
		return false
	case kind == "TEMPORARY" || kind == "ACCOUNTS":
		return true
	case len(rest) == 0 || !isName(rest[0]) || s.has(func(t token) bool { return t.kind == ';' || t.kind == '@' }):
		return false
	case kind == "DATABASE":
		return !s.mentions(ours)
	case s.schema == ours:
		return own(rest, ours, mariaDB)
	}
	// The filter goes by the tables that a statement names, whichever the
	// session's schema is.
	return !s.mentions(ours) && (s.schema != "" || len(rest) > 1 && rest[1].kind == '.')
}

// holdsTogether says whether a statement is only what row events stand between, or
// one about accounts, which changes tables of another schema. The latter are not
// taken apart, since they hold passwords in any form.
func holdsTogether(info string) bool {
	if rest, uses := strings.CutPrefix(info, "use `"); uses {
		_, info, _ = strings.Cut(rest, "`; ")
	}
	if info == "BEGIN" || info == "COMMIT" || info == "ROLLBACK" {
		return true
	}
	return slices.ContainsFunc([]string{
		"SAVEPOINT `", "ROLLBACK TO `",
		"CREATE USER ", "ALTER USER ", "DROP USER ", "RENAME USER ", "CREATE ROLE ", "DROP ROLE ", "SET PASSWORD ",
	}, func(begin string) bool { return len(info) > len(begin) && strings.EqualFold(info[:len(begin)], begin) })
}

// Words between the verb of a statement and what it is about.
var modifiers = []string{"OR", "REPLACE", "ONLINE", "OFFLINE", "IGNORE", "UNIQUE", "FULLTEXT", "SPATIAL", "LOCAL", "NO_WRITE_TO_BINLOG"}

// verbs are what can be done to what is known.
var verbs = map[string][]string{
	"CREATE":   {"TABLE", "INDEX", "SEQUENCE", "DATABASE", "SCHEMA"},
	"ALTER":    {"TABLE"}, // a filter of the applier keeps ALTER SEQUENCE out, without a word
	"DROP":     {"TABLE", "TABLES", "INDEX", "SEQUENCE", "DATABASE", "SCHEMA", "TEMPORARY"},
	"RENAME":   {"TABLE", "TABLES"},
	"TRUNCATE": {"TABLE"},
	"ANALYZE":  {"TABLE", "TABLES"},
	"OPTIMIZE": {"TABLE", "TABLES"},
}

// head returns what a statement is about, TABLE for instance, and what follows:
// names, first of all. It is "" when what is done to what is none of what is known.
func (s statement) head() (kind string, rest []token) {
	verb, words := s.parts[0].word, s.parts[1:]
	if accounts(verb, words) {
		return "ACCOUNTS", nil
	}
	words = skipWords(words, modifiers...)
	if verb == "TRUNCATE" && !wordsAt(words, "TABLE") {
		return "TABLE", words
	}
	if len(words) == 0 || !slices.Contains(verbs[verb], words[0].word) {
		return "", nil
	}
	kind, words = words[0].word, words[1:]
	switch kind {
	case "TEMPORARY":
		if !wordsAt(words, "TABLE", "IF", "EXISTS") {
			return "", nil
		}
		return kind, nil
	case "INDEX":
		on := slices.IndexFunc(words, func(t token) bool { return t.word == "ON" })
		if on < 0 {
			return "", nil
		}
		return "TABLE", words[on+1:]
	case "DATABASE", "SCHEMA":
		kind = "DATABASE"
	default:
		kind = "TABLE"
	}
	return kind, skipWords(words, "IF", "NOT", "EXISTS")
}

// accounts says whether a statement is about what accounts may do, or lets the
// server read that again. The filter drops the former; a routine that rights are
// given on would have to be there.
func accounts(verb string, words []token) bool {
	switch verb {
	case "GRANT", "REVOKE":
		return !slices.ContainsFunc(words, func(t token) bool { return slices.Contains([]string{"PROCEDURE", "FUNCTION", "PACKAGE"}, t.word) })
	case "FLUSH":
		return len(words) == 1 && (words[0].word == "PRIVILEGES" || words[0].word == "TABLES")
	}
	return false
}

func wordsAt(words []token, want ...string) bool {
	for i, w := range want {
		if i >= len(words) || words[i].word != w {
			return false
		}
	}
	return true
}

func skipWords(words []token, skip ...string) []token {
	for len(words) > 0 && slices.Contains(skip, words[0].word) {
		words = words[1:]
	}
	return words
}

func (s statement) has(what func(token) bool) bool { return slices.ContainsFunc(s.parts, what) }

// mentions says whether anything in a statement could be the name of a schema.
func (s statement) mentions(schema string) bool {
	return strings.EqualFold(s.schema, schema) || s.has(func(t token) bool { return strings.EqualFold(t.text, schema) })
}

func isName(t token) bool { return t.kind == 'w' || t.kind == 'n' }

// Words that make a statement about a table depend on more than the schema's
// definitions: files, rows, other tables, keys, plugins, how the table lies on the
// disk, a lock within a time.
var beyond = []string{
	"DIRECTORY", "TABLESPACE", "SELECT", "UNION", "CONNECTION", "ENCRYPTION", "ENCRYPTED", "ENCRYPTION_KEY_ID", "PARSER",
	"SECONDARY_ENGINE", "INSTANT", "NOCOPY", "WAIT", "NOWAIT", "TEMPORARY",
}

// partitioning are the words of partitions, which a standby of MariaDB has none of.
var partitioning = []string{"PARTITION", "PARTITIONS", "PARTITIONING", "SUBPARTITION", "SUBPARTITIONS"}

var engines = []string{"INNODB", "MYISAM", "ARIA", "MEMORY"}

// own says whether a statement about tables is about those of our schema alone,
// and can be applied where these are.
func own(rest []token, ours string, mariaDB bool) bool {
	for i, t := range rest {
		switch {
		case t.kind == '.' && (i == 0 || !isName(rest[i-1]) || rest[i-1].text != ours),
			strings.EqualFold(t.text, markerTable),
			slices.Contains(beyond, t.word),
			mariaDB && slices.Contains(partitioning, t.word):
			return false
		case t.word == "ENGINE":
			next := rest[i+1:]
			if len(next) > 0 && next[0].kind == '=' {
				next = next[1:]
			}
			if len(next) == 0 || !slices.Contains(engines, strings.ToUpper(next[0].text)) {
				return false
			}
		}
	}
	return true
}

// kindsOfStatements are the words that may be told of a statement; what it holds may be secret.
var kindsOfStatements = []string{"TABLE", "TABLES", "INDEX", "VIEW", "TRIGGER", "PROCEDURE", "FUNCTION", "PACKAGE", "EVENT", "DATABASE", "SCHEMA", "SEQUENCE", "USER", "SERVER", "TABLESPACE", "INTO", "FROM"}

// kindOfStatement names a statement by one or two words.
func kindOfStatement(info string) string {
	s, ok := readStatement(info)
	if !ok || s.parts[0].word == "" || len(s.parts[0].word) > 20 {
		return "a statement that drsync does not read"
	}
	name := s.parts[0].word
	for _, t := range s.parts[1:min(len(s.parts), 16)] {
		if slices.Contains(kindsOfStatements, t.word) {
			name += " " + t.word
			break
		}
	}
	if s.has(func(t token) bool { return slices.Contains(partitioning, t.word) }) {
		name += " … PARTITION"
	}
	return name
}
