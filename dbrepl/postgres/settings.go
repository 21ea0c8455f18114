package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/drsync/drsync/internal/hint"
)

// errNotMember says that the account cannot become the role whose setting it is.
var errNotMember = errors.New("the account is no member of the role")

// set makes v a setting of a database. Of a role's the role itself may do that, and so
// may who is a member of it; an account that may alter others needs not be one.
func (v preset) set(ctx context.Context, tx pgx.Tx, database string) error {
	if v.Role == "" {
		_, err := tx.Exec(ctx, "ALTER DATABASE "+quote(database)+" SET "+v.assignment())
		return err
	}
	return v.setFor(ctx, tx, database)
}

func (v preset) setFor(ctx context.Context, tx pgx.Tx, database string) error {
	statement := "ALTER ROLE " + quote(v.Role) + " IN DATABASE " + quote(database) + " SET " + v.assignment()
	err := within(ctx, tx, statement)
	if !hasCode(err, codeNoPrivilege) {
		return err
	}
	if rerr := within(ctx, tx, "SET LOCAL ROLE "+quote(v.Role)); rerr != nil {
		return fmt.Errorf("%w: %w", errNotMember, err)
	}
	return within(ctx, tx, statement)
}

// within executes a statement so that the transaction can go on after an error.
func within(ctx context.Context, tx pgx.Tx, statement string) error {
	return pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
		_, err := inner.Exec(ctx, statement)
		return err
	})
}

// rehearse tries, in a transaction that is taken back, whether the account may
// make v a setting and the server takes the value. There is no database to try one
// of a database with, so it is tried with the account itself, which may always be altered by itself.
func (v preset) rehearse(ctx context.Context, c *pgx.Conn, database string) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // or the session is gone, and the transaction with it
	if v.Role != "" {
		return v.setFor(ctx, tx, database)
	}
	_, err = tx.Exec(ctx, "ALTER ROLE CURRENT_USER IN DATABASE "+quote(database)+" SET "+v.assignment())
	return err
}

// loading are the settings with which one names a library that the server loads.
var loading = []string{"dynamic_library_path", "session_preload_libraries"}

// functionSettings lists what the active's functions set for themselves.
const functionSettings = `SELECT DISTINCT ON (v) '', split_part(v, '=', 1), substr(v, strpos(v, '=') + 1), p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, unnest(p.proconfig) v
	WHERE` + ownSchema + `AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') ORDER BY v, 4`

// inspectSettings rehearses each setting that the standby's database and its
// functions are to get.
func (e *Engine) inspectSettings(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	type trial struct {
		preset
		Function string
	}
	rows, err := a.Query(ctx, functionSettings)
	if err != nil {
		return e.active.explain(ctx, err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t trial, err error) {
		return t, row.Scan(&t.Role, &t.Name, &t.Value, &t.Function)
	})
	if err != nil {
		return e.active.explain(ctx, err)
	}
	for _, v := range p.properties.Settings {
		all = append(all, trial{preset: v})
	}
	for _, t := range all {
		if t.Role != "" && slices.Contains(p.missing, t.Role) {
			continue
		}
		err := t.rehearse(ctx, s, e.opt.Maintenance)
		var said *pgconn.PgError
		switch {
		case err == nil:
			continue
		case !errors.As(err, &said):
			return e.standby.explain(ctx, err)
		}
		of := "the active's database " + e.opt.Name + " has"
		if t.Role != "" {
			of += " for the role " + t.Role
		} else if t.Function != "" {
			of = "the active's function " + t.Function + " has"
		}
		fix := p.allowing(ctx, s, t.preset, err)
		if !hasCode(err, codeNoPrivilege) {
			fix = "-- set it on the active to a value that both servers take"
		}
		p.fatal("standby account "+p.standby.User, fmt.Sprintf("it cannot set %s, which %s: %s", t.Name, of, said.Message), fix)
	}
	return nil
}

// allowing is how the standby's account comes to be allowed a setting.
func (p *pair) allowing(ctx context.Context, s *pgx.Conn, v preset, err error) string {
	who := p.standby.User
	if v.Role != "" {
		who = v.Role
	}
	super := false
	if errors.Is(err, errNotMember) {
		if qerr := s.QueryRow(ctx, "SELECT rolsuper FROM pg_roles WHERE rolname = $1", v.Role).Scan(&super); qerr == nil && !super {
			return p.joining(holder{Role: v.Role}, false, false)
		}
	}
	if super || p.standby.major() < 15 || slices.Contains(loading, v.Name) {
		return p.superuser("better take the setting away on the active, if nothing needs it there")
	}
	return fmt.Sprintf("GRANT SET ON PARAMETER %s TO %s", v.identifier(), quote(who))
}

// adviseSetting adds what can be done about a setting that was refused.
func adviseSetting(err error) error {
	if hasCode(err, codeNoPrivilege) {
		return hint.With(err, "drsync check says which right is missing")
	}
	return err
}
