package mysql

import (
	"context"
	"fmt"
	"strings"
)

// A table is filled before it has its secondary indexes: building one from
// sorted rows takes a fraction of what keeping it up to date row by row does.

// bare splits the statement that creates a table into one that leaves out what
// can be added when the rows are there, and what was left out: the definitions
// of keys, and of foreign keys, as they stand in the statement. The server shows
// one definition per line; a line break within a text is an escape.
func bare(ddl string) (create string, keys, foreign []string) {
	lines := strings.Split(ddl, "\n")
	end := 1
	for end < len(lines) && strings.HasPrefix(lines[end], "  ") {
		end++
	}
	if end == len(lines) || !strings.HasPrefix(lines[end], ")") {
		return ddl, nil, nil // not as the server shows it
	}
	var stay []string
	for _, line := range lines[1:end] {
		def := strings.TrimRight(strings.TrimPrefix(line, "  "), ", ") // MySQL puts a blank behind a parser
		switch {
		case strings.HasPrefix(def, "CONSTRAINT ") && strings.Contains(def, "` FOREIGN KEY ("):
			foreign = append(foreign, def)
		case isKey(def) && !needed(def, lines[1:end]):
			keys = append(keys, def)
		default:
			stay = append(stay, "  "+def)
		}
	}
	return lines[0] + "\n" + strings.Join(stay, ",\n") + "\n" + strings.Join(lines[end:], "\n"), keys, foreign
}

// isKey says whether a line defines an index other than the primary key.
func isKey(def string) bool {
	for _, kind := range []string{"KEY `", "UNIQUE KEY `", "FULLTEXT KEY `", "SPATIAL KEY `"} {
		if strings.HasPrefix(def, kind) {
			// One without overlaps belongs to a period, one by hash to a hidden column.
			return !strings.Contains(def, "WITHOUT OVERLAPS") && !strings.Contains(def, "USING HASH")
		}
	}
	return false
}

// needed says whether the table cannot exist without an index: its first column
// counts up, and no other index need begin with that.
func needed(def string, lines []string) bool {
	_, columns, _ := strings.Cut(def, " (")
	if !strings.HasPrefix(columns, "`") {
		return false // an expression
	}
	first, _, ok := cutName(columns)
	if !ok {
		return true
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "  "+quote(first)+" ") && strings.Contains(line, "AUTO_INCREMENT") {
			return true
		}
	}
	return false
}

// cutName takes a quoted name off the front.
func cutName(s string) (name, rest string, ok bool) {
	s = s[1:]
	for i := 0; i < len(s); i++ {
		if s[i] != '`' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '`' {
			i++
			continue
		}
		return strings.ReplaceAll(s[:i], "``", "`"), s[i+1:], true
	}
	return "", "", false
}

// addKeys returns the statements that add what bare left out of a table: all
// ordinary keys at once, so that the rows are read once, and one statement for
// each kind that the server builds only alone.
func addKeys(table string, keys []string) []string {
	var together, statements []string
	for _, k := range keys {
		if strings.HasPrefix(k, "FULLTEXT") || strings.HasPrefix(k, "SPATIAL") {
			statements = append(statements, "ALTER TABLE "+quote(table)+" ADD "+k)
			continue
		}
		together = append(together, "ADD "+k)
	}
	if len(together) > 0 {
		statements = append([]string{"ALTER TABLE " + quote(table) + " " + strings.Join(together, ", ")}, statements...)
	}
	return statements
}

// addForeign returns the statement that adds foreign keys to a table.
func addForeign(table string, foreign []string) string {
	return "ALTER TABLE " + quote(table) + " ADD " + strings.Join(foreign, ", ADD ")
}

// requireKeys asks the server whether a table has every definition that was
// left out at first.
func requireKeys(ctx context.Context, c asker, t table, defs []string) error {
	ddl, err := readDDL(ctx, c, t)
	if err != nil {
		return err
	}
	have := make(map[string]bool)
	for line := range strings.Lines(ddl) {
		have[strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), ","))] = true
	}
	for _, d := range defs {
		if !have[d] {
			return fmt.Errorf("table %s: the standby's server did not take %s as it is", t.name, d)
		}
	}
	return nil
}
