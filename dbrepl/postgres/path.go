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
// Its role may have a search path that no other session has, and that no other server
// knows of; so a relation of which there is one is taken wherever it is, and of several
// none: a list of blobs that is read from another table than the application's would
// lose those it lacks.
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
			return hint.With(fmt.Errorf("the schemas %s each have a table %s, and which is the application's only its own sessions know", some(in, ""), name),
				"on the active, rename those that it does not use")
		}
	}
	if path == nil {
		_, err := c.Exec(ctx, "RESET search_path")
		return err
	}
	_, err := c.Exec(ctx, "SELECT set_config('search_path', $1, false)", strings.Join(slices.Compact(path), ", "))
	return err
}
