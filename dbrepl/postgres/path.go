package postgres

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/internal/hint"
)

// from matches the relations that a question names without their schemas.
var from = regexp.MustCompile(`(?i)\b(?:FROM|JOIN)\s+([a-z_][a-z0-9_]*)\s*([.(]?)`)

// usePath lets the relations of a question be found where the application has them.
// Its role may have a search path that no other session has; so a relation of which
// there is one is taken wherever it is. Of several, the database's own search_path
// tells which the application uses, if no role has another: a list of blobs that is
// read from another table than the application's would lose those it lacks.
func usePath(ctx context.Context, c *pgx.Conn, query string) error {
	var names []string
	for _, m := range from.FindAllStringSubmatch(query, -1) {
		if m[2] == "" {
			names = append(names, strings.ToLower(m[1]))
		}
	}
	slices.Sort(names)
	var path []string
	for _, name := range slices.Compact(names) {
		in, err := column(ctx, c, `SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relname = $1 AND c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1`, name)
		if err != nil {
			return err
		}
		switch len(in) {
		case 0: // as the server will say
		case 1:
			path = append(path, quote(in[0]))
		default:
			own, err := databasePath(ctx, c)
			if err != nil {
				return err
			}
			if own == "" {
				return hint.With(fmt.Errorf("the schemas %s each have a table %s, and the database does not tell which is the application's", some(in, ""), name),
					"rename those that it does not use; or, if no role has a search_path of its own, run on the active: ALTER DATABASE … SET search_path = the application's schema")
			}
			path = append([]string{own}, path...)
		}
	}
	if path == nil {
		_, err := c.Exec(ctx, "RESET search_path")
		return err
	}
	_, err := c.Exec(ctx, "SELECT set_config('search_path', $1, false)", strings.Join(slices.Compact(path), ", "))
	return err
}

// databasePath is the search_path that a database gives all its sessions: "" if it
// has none, or a role other than this session's has one of its own.
func databasePath(ctx context.Context, c *pgx.Conn) (string, error) {
	const set = "FROM pg_db_role_setting s, unnest(s.setconfig) v JOIN pg_database d ON d.datname = current_database() WHERE v LIKE 'search\\_path=%' AND "
	roles, err := column(ctx, c, `SELECT s.setrole::text `+set+`s.setrole <> 0 AND s.setdatabase IN (0, d.oid) AND s.setrole NOT IN (SELECT oid FROM pg_roles WHERE rolname IN (session_user, current_user))`)
	if err != nil || roles != nil {
		return "", err
	}
	own, err := column(ctx, c, `SELECT substr(v, length('search_path=') + 1) `+set+`s.setrole = 0 AND s.setdatabase = d.oid`)
	if err != nil || own == nil {
		return "", err
	}
	return own[0], nil
}
