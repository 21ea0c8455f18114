package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// owned lists what of the session's database a dump gives to its owner: the
// catalogue, the number, the owner and the schema. What an extension made is the extension's, what a type made by itself comes with it, and the schema
// public has before version 15 the owner that every new database gives it.
const owned = ` (SELECT o.* FROM (
	SELECT 'pg_class'::regclass::oid, oid, relowner, relnamespace FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND relpersistence <> 't'
	UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, pronamespace FROM pg_proc
	UNION ALL SELECT 'pg_type'::regclass, oid, typowner, typnamespace FROM pg_type WHERE typtype IN ('d', 'e', 'r') OR typtype = 'b' AND typcategory <> 'A'
	UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner, oprnamespace FROM pg_operator
	UNION ALL SELECT 'pg_opclass'::regclass, oid, opcowner, opcnamespace FROM pg_opclass
	UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfowner, opfnamespace FROM pg_opfamily
	UNION ALL SELECT 'pg_collation'::regclass, oid, collowner, collnamespace FROM pg_collation
	UNION ALL SELECT 'pg_conversion'::regclass, oid, conowner, connamespace FROM pg_conversion
	UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgowner, cfgnamespace FROM pg_ts_config
	UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictowner, dictnamespace FROM pg_ts_dict
	UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxowner, stxnamespace FROM pg_statistic_ext
	UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner, 0 FROM pg_namespace WHERE nspname !~ '^pg_'
	UNION ALL SELECT 'pg_language'::regclass, oid, lanowner, 0 FROM pg_language
	UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner, 0 FROM pg_foreign_data_wrapper
	UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner, 0 FROM pg_foreign_server
	UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner, 0 FROM pg_publication
	UNION ALL SELECT 'pg_event_trigger'::regclass, oid, evtowner, 0 FROM pg_event_trigger
	UNION ALL SELECT 'pg_default_acl'::regclass, oid, defaclrole, 0 FROM pg_default_acl
	UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner, 0 FROM pg_largeobject_metadata
	) o (class, oid, owner, space) LEFT JOIN pg_namespace n ON n.oid = o.space
	WHERE (o.oid >= 16384 OR o.class = 'pg_largeobject'::regclass OR o.class = 'pg_namespace'::regclass AND o.oid = to_regnamespace('public')
			AND (o.owner <> 10 OR current_setting('server_version_num')::int >= 150000))
		AND coalesce(n.nspname !~ '^pg_' AND n.nspname <> 'information_schema', true)
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype IN ('e', 'i'))) `

// databaseOwner is the role that a database's owner is a member of by itself.
const databaseOwner = "pg_database_owner"

// ownersQuery lists the owners, how much is theirs, and some of it.
const ownersQuery = `SELECT r.rolname::text, count(*), (array_agg(o.what ORDER BY o.what))[1:3] FROM (
		SELECT owner, pg_describe_object(class, oid, 0) FROM ` + owned + ` o
		UNION ALL SELECT datdba, 'the database itself' FROM pg_database WHERE datname = current_database()) o (owner, what)
	JOIN pg_roles r ON r.oid = o.owner WHERE r.rolname <> '` + databaseOwner + `' GROUP BY 1 ORDER BY 1`

// holder is a role and what belongs to it in the active's database.
type holder struct {
	Role  string
	Count int64
	Some  []string
}

func (o holder) what() string {
	text := strings.Join(o.Some, ", ")
	if n := o.Count - int64(len(o.Some)); n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// inspectOwners looks whether the standby's account can give to each owner what is
// his: whoever is no superuser has to be a member of him, and to inherit what he may.
func (e *Engine) inspectOwners(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	rows, err := a.Query(ctx, ownersQuery)
	if err != nil {
		return e.active.explain(ctx, err)
	}
	owners, err := pgx.CollectRows(rows, pgx.RowToStructByPos[holder])
	if err != nil {
		return e.active.explain(ctx, err)
	}
	for _, o := range owners {
		if slices.Contains(p.missing, o.Role) {
			continue
		}
		var inherits, may, super bool
		err := s.QueryRow(ctx, `SELECT pg_has_role(oid, 'USAGE'), pg_has_role(oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END), rolsuper
			FROM pg_roles WHERE rolname = $1`, o.Role).Scan(&inherits, &may, &super)
		if err != nil {
			return e.standby.explain(ctx, err)
		}
		if !inherits || !may {
			p.fatal("standby account "+p.standby.User, fmt.Sprintf("it is no member of %s that inherits, to which of the active's database belong: %s", o.Role, o.what()), p.joining(o, may, super))
		}
	}
	return e.inspectSchemaOwners(ctx, a, s, p)
}

// joining is how the standby's account comes to be a member of an owner.
func (p *pair) joining(o holder, member, super bool) string {
	account := quote(p.standby.User)
	switch {
	case super:
		advice := "ALTER … OWNER TO the application's role"
		if slices.Contains(o.Some, "schema public") {
			advice += ", ALTER SCHEMA public OWNER TO " + databaseOwner
		}
		return p.superuser(o.Role + " is a superuser: better give these to another on the active (" + advice + ")")
	case p.standby.major() >= 16:
		return fmt.Sprintf("GRANT %s TO %s WITH INHERIT TRUE, SET TRUE", quote(o.Role), account)
	case member:
		return fmt.Sprintf("ALTER ROLE %s INHERIT", account)
	}
	return fmt.Sprintf("GRANT %s TO %s", quote(o.Role), account)
}

// superuser words as a comment, since it is for the reader to decide, that
// nothing less than a superuser would do.
func (p *pair) superuser(instead string) string {
	return fmt.Sprintf("-- %s; or, which lets this account and through it the active's database do anything on the standby's host: ALTER ROLE %s SUPERUSER", instead, quote(p.standby.User))
}

// inspectSchemaOwners finds owners whose objects lie in a schema in which they may
// not make any while a dump is loaded, since rights come after the objects.
// Only a superuser gives them all the same.
func (e *Engine) inspectSchemaOwners(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	if p.standby.Superuser {
		return nil
	}
	rows, err := a.Query(ctx, `SELECT r.rolname::text, CASE w.rolname WHEN '`+databaseOwner+`' THEN $1 ELSE w.rolname::text END, min(pg_describe_object(o.class, o.oid, 0)), n.nspname::text
		FROM `+owned+` o JOIN pg_namespace n ON n.oid = o.space JOIN pg_roles r ON r.oid = o.owner JOIN pg_roles w ON w.oid = n.nspowner
		WHERE o.owner <> n.nspowner AND NOT (n.nspname = 'public' AND current_setting('server_version_num')::int < 150000) GROUP BY 1, 2, 4 ORDER BY 1, 2, 4`, p.properties.Owner)
	if err != nil {
		return e.active.explain(ctx, err)
	}
	type pairing struct{ Owner, SchemaOwner, Object, Schema string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[pairing])
	if err != nil {
		return e.active.explain(ctx, err)
	}
	for _, o := range all {
		var may bool
		err := s.QueryRow(ctx, `SELECT coalesce((SELECT pg_has_role(r.oid, w.oid, 'USAGE') FROM pg_roles r, pg_roles w WHERE r.rolname = $1 AND w.rolname = $2), true)`, o.Owner, o.SchemaOwner).Scan(&may)
		if err != nil {
			return e.standby.explain(ctx, err)
		}
		if !may {
			p.fatal("standby account "+p.standby.User, fmt.Sprintf("%s belongs to %s and lies in the schema %s of %s; only a superuser can load that", o.Object, o.Owner, o.Schema, o.SchemaOwner),
				p.superuser("better give both to one role on the active"))
		}
	}
	return nil
}
