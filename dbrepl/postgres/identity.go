package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// identity is what a server says of itself and of the account.
type identity struct {
	Version    string // as the server spells it: "15.18 (Debian 15.18-0+deb12u1)"
	Number     int    // 150018
	User       string // the account as the server knows it
	Superuser  bool
	CreateDB   bool
	BypassRLS  bool
	InRecovery bool   // it is a replica of another server
	Datadir    string // "" if the account may not know
}

func (id identity) major() int     { return id.Number / 10000 }
func (id identity) String() string { return fmt.Sprintf("PostgreSQL %s", id.Version) }

// oldest is the oldest major version that is supported.
const oldest = 12

func (s *server) identify(ctx context.Context, c *pgx.Conn) (id identity, err error) {
	err = c.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('server_version_num')::int, r.rolname::text,
			r.rolsuper, r.rolcreatedb, r.rolbypassrls, pg_is_in_recovery(),
			CASE WHEN r.rolsuper OR pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('data_directory', true) END
		FROM pg_roles r WHERE r.rolname = current_user`).
		Scan(&id.Version, &id.Number, &id.User, &id.Superuser, &id.CreateDB, &id.BypassRLS, &id.InRecovery, (*text)(&id.Datadir))
	if err != nil {
		return identity{}, fmt.Errorf("ask the %s database server who it is: %w", s.role, s.explain(ctx, err))
	}
	return id, nil
}

// text scans NULL as "".
type text string

func (t *text) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		*t = ""
	case string:
		*t = text(v)
	default:
		return fmt.Errorf("a text is a %T", v)
	}
	return nil
}

// sameServer says whether a session is on a server that a session is on already,
// by whatever addresses the two were reached: the name of one shows in the other.
func sameServer(ctx context.Context, there *server, c *pgx.Conn) (same bool, err error) {
	err = c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid())", there.name).Scan(&same)
	return same, err
}

// clock is how far a server's clock is from this host's.
type clock struct {
	skew, within time.Duration
}

// readClock asks a server for its time a few times and believes the answer
// that took least.
func readClock(ctx context.Context, c *pgx.Conn) (clock, error) {
	var best clock
	for i := range 3 {
		before := time.Now()
		var micros int64
		err := c.QueryRow(ctx, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").Scan(&micros)
		took := time.Since(before)
		if err != nil {
			return clock{}, err
		}
		if i == 0 || took/2 < best.within {
			best = clock{skew: time.UnixMicro(micros).Sub(before.Add(took / 2)).Round(time.Microsecond), within: took / 2}
		}
	}
	return best, nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes a text for a statement that takes no parameters, whatever
// standard_conforming_strings is.
func literal(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}
