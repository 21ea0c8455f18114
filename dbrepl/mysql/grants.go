package mysql

import (
	"regexp"
	"slices"
	"strings"
)

// grant is one line of SHOW GRANTS that matters here: privileges on a pattern
// of schemas, or on one table.
type grant struct {
	revoked    bool
	privileges []string // upper case
	schema     string   // "*" for all, otherwise a pattern with % and _
	table      string   // "*" or a name
}

var grantLine = regexp.MustCompile(
	`(?is)^(GRANT|REVOKE) (.+?) ON (?:TABLE )?(\*|` + grantName + `)\.(\*|` + grantName + `) (?:TO|FROM) `)

const grantName = "`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\""

var columnList = regexp.MustCompile(`\([^)]*\)`)

// parseGrants reads the lines of SHOW GRANTS. Grants of roles, proxies and
// routines are not about tables and are left out, and so is a privilege on some
// columns of a table, which is less than what is needed.
func parseGrants(lines []string) []grant {
	var all []grant
	for _, line := range lines {
		m := grantLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		g := grant{revoked: strings.EqualFold(m[1], "REVOKE"), schema: unquote(m[3]), table: unquote(m[4])}
		masked := columnList.ReplaceAllString(m[2], "(")
		for p := range strings.SplitSeq(masked, ",") {
			if p = strings.ToUpper(strings.TrimSpace(p)); p != "" && !strings.Contains(p, "(") {
				g.privileges = append(g.privileges, p)
			}
		}
		all = append(all, g)
	}
	return all
}

func unquote(s string) string {
	if len(s) < 2 || (s[0] != '`' && s[0] != '"') {
		return s
	}
	q := s[:1]
	return strings.ReplaceAll(s[1:len(s)-1], q+q, q)
}

// privileges is what an account may do.
type privileges []grant

// has says whether the account has a privilege on all of a schema, or with
// schema "*" everywhere.
func (all privileges) has(privilege, schema string) bool { return all.hasTable(privilege, schema, "*") }

// hasTable says whether the account has a privilege on a table.
func (all privileges) hasTable(privilege, schema, table string) bool {
	found := false
	for _, g := range all {
		here := slices.Contains(g.privileges, privilege) || slices.Contains(g.privileges, "ALL PRIVILEGES")
		covers := g.schema == "*" ||
			schema != "*" && likeMatch(g.schema, schema) && (g.table == "*" || g.table == table)
		if !covers || !here {
			continue
		}
		if g.revoked {
			return false
		}
		found = true
	}
	return found
}

// likeMatch matches a name with a schema pattern of a grant: % is any string, _
// any character, and a backslash takes the meaning of the next.
func likeMatch(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	// Greedy with one place to go back to, so that no pattern takes long.
	backP, backN := -1, 0
	i, j := 0, 0
	for j < len(n) {
		switch {
		case i < len(p) && p[i] == '%':
			backP, backN = i, j
			i++
			continue
		case i < len(p) && p[i] == '_':
			i++
			j++
			continue
		case i+1 < len(p) && p[i] == '\\' && p[i+1] == n[j]:
			i += 2
			j++
			continue
		case i < len(p) && p[i] != '\\' && p[i] == n[j]:
			i++
			j++
			continue
		}
		if backP < 0 {
			return false
		}
		backN++
		i, j = backP+1, backN
	}
	for i < len(p) && p[i] == '%' {
		i++
	}
	return i == len(p)
}

// asPattern writes a schema name as a pattern of a GRANT that matches only it.
func asPattern(name string) string {
	return quote(strings.NewReplacer(`\`, `\\`, `_`, `\_`, `%`, `\%`).Replace(name))
}

// asAccount writes user@host as a GRANT wants it.
func asAccount(user string) string {
	at := strings.LastIndexByte(user, '@')
	if at < 0 {
		return text(user)
	}
	return text(user[:at]) + "@" + text(user[at+1:])
}
