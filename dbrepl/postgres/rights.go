package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// inspectRights looks whether the standby's account can make all that the
// active's database consists of. It asks the active's catalogues and, where the
// standby's server can say no without anything being made, the server.
func (e *Engine) inspectRights(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	for _, look := range []func(context.Context, *pgx.Conn, *pgx.Conn, *pair) error{
		e.inspectLimits, e.inspectExtensions, e.inspectOwners, e.inspectSettings, e.inspectCollations, e.inspectLabels,
		e.inspectPowers, e.inspectPowerfulOwners, e.inspectReadable, e.inspectMappings,
	} {
		if err := look(ctx, a, s, p); err != nil {
			return err
		}
	}
	return nil
}

// inspectLimits finds limits of sessions that are too low for a capture: one that
// holds the snapshot, one that watches, one to see whether the server lives, and those of the programs.
func (e *Engine) inspectLimits(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	need := e.opt.Jobs + 4
	if n := p.properties.Limit; n >= 0 && n < need && !p.active.Superuser {
		p.fatal("active database "+e.opt.Name, fmt.Sprintf("it admits %d sessions, and a capture has up to %d", n, need), fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d -- or more, with those of the application", quote(e.opt.Name), need))
	}
	for _, side := range []struct {
		server *server
		conn   *pgx.Conn
		id     identity
	}{{e.active, a, p.active}, {e.standby, s, p.standby}} {
		var n int
		if err := side.conn.QueryRow(ctx, "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user").Scan(&n); err != nil {
			return side.server.explain(ctx, err)
		}
		if n >= 0 && n < need && !side.id.Superuser {
			p.fatal(side.server.role+" account "+side.id.User, fmt.Sprintf("it may have %d sessions, and a capture has up to %d", n, need), fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", quote(side.id.User), need))
		}
	}
	return nil
}

const notOfExtension = ` NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '%[1]s'::regclass AND d.objid = %[1]s.oid AND d.deptype IN ('e', 'i')) `

func made(catalogue string) string {
	return catalogue + " WHERE " + catalogue + ".oid >= 16384 AND" + fmt.Sprintf(notOfExtension, catalogue)
}

// powers lists what only a superuser can make. An ordinary account of the active
// sees all of it.
func powers(major int) string {
	all := []string{
		`SELECT 'event trigger ' || quote_ident(evtname) FROM ` + made("pg_event_trigger"),
		`SELECT 'foreign-data wrapper ' || quote_ident(fdwname) FROM ` + made("pg_foreign_data_wrapper"),
		`SELECT 'language ' || quote_ident(lanname) FROM ` + made("pg_language"),
		`SELECT 'publication ' || quote_ident(pubname) || ' of all tables' FROM ` + made("pg_publication") + ` AND puballtables`,
		`SELECT 'function ' || pg_proc.oid::regprocedure || CASE WHEN proleakproof THEN ', which is leakproof' WHEN NOT l.lanpltrusted THEN ' in language ' || quote_ident(l.lanname) ELSE ', which has a support function' END
			FROM pg_language l JOIN pg_proc ON l.oid = prolang WHERE pg_proc.oid >= 16384 AND (proleakproof OR NOT lanpltrusted AND prokind <> 'a' OR prosupport <> 0) AND` + fmt.Sprintf(notOfExtension, "pg_proc"),
		`SELECT 'base type ' || format_type(oid, NULL) FROM ` + made("pg_type") + ` AND typtype = 'b' AND typcategory <> 'A'`,
		`SELECT pg_describe_object('pg_opfamily'::regclass, oid, 0) FROM ` + made("pg_opfamily"),
		`SELECT pg_describe_object('pg_opclass'::regclass, oid, 0) FROM ` + made("pg_opclass"),
		`SELECT pg_describe_object('pg_cast'::regclass, oid, 0) || ' without a function' FROM ` + made("pg_cast") + ` AND castmethod = 'b'`,
		`SELECT pg_describe_object('pg_ts_parser'::regclass, oid, 0) FROM ` + made("pg_ts_parser"),
		`SELECT pg_describe_object('pg_ts_template'::regclass, oid, 0) FROM ` + made("pg_ts_template"),
		`SELECT pg_describe_object('pg_am'::regclass, oid, 0) FROM ` + made("pg_am"),
		`SELECT 'what another than its owner granted on ' || pg_describe_object(class, oid, 0) FROM ` + listed + ` l WHERE NOT given AND EXISTS (SELECT FROM aclexplode(acl) x WHERE x.grantor <> owner)`,
		`SELECT 'what was granted on ' || what FROM ` + altered + ` g (what, open) WHERE NOT open`,
	}
	if major >= 15 {
		all = append(all, `SELECT 'publication ' || quote_ident(pubname) || ' of schemas' FROM `+made("pg_publication")+` AND EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = pg_publication.oid)`)
	}
	return strings.Join(all, "\nUNION ALL ") + "\nORDER BY 1"
}

// listed is what has a list of rights: the catalogue, number, owner and list of it,
// the letter of its kind, and whether it was not the database's owners who made it.
const listed = ` (SELECT o.class, o.oid, o.owner, o.acl, o.kind, o.kind <> 'L' AND (o.oid < 16384 OR x.objid IS NOT NULL) AS given FROM (
	SELECT 'pg_class'::regclass::oid, oid, relowner, relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relnamespace FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
	UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, proacl, 'f', pronamespace FROM pg_proc
	UNION ALL SELECT 'pg_type'::regclass, oid, typowner, typacl, 'T', typnamespace FROM pg_type
	UNION ALL SELECT 'pg_language'::regclass, oid, lanowner, lanacl, 'l', 0 FROM pg_language
	UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner, nspacl, 'n', 0 FROM pg_namespace WHERE (nspname !~ '^pg_' OR nspname = 'pg_catalog') AND nspname <> 'information_schema' AND (nspname <> 'public' OR nspowner = 10)
	UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner, fdwacl, 'F', 0 FROM pg_foreign_data_wrapper
	UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner, srvacl, 'S', 0 FROM pg_foreign_server
	UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner, lomacl, 'L', 0 FROM pg_largeobject_metadata
	) o (class, oid, owner, acl, kind, space) LEFT JOIN pg_namespace n ON n.oid = o.space LEFT JOIN pg_depend x ON x.classid = o.class AND x.objid = o.oid AND x.deptype = 'e'
	WHERE n.oid IS NULL OR (n.nspname !~ '^pg_' OR n.nspname = 'pg_catalog') AND n.nspname <> 'information_schema') `

// altered is what PostgreSQL or an extension made and somebody gave other rights.
// One who is not its owner gets an error when he grants some, but where everybody has
// one a warning only: then they stay as they were.
const altered = ` (SELECT pg_describe_object(class, l.oid, 0), EXISTS (SELECT FROM aclexplode(coalesce(initprivs, acldefault(kind, owner))) x WHERE x.grantee = 0)
	FROM ` + listed + ` l LEFT JOIN pg_init_privs i ON i.classoid = class AND i.objoid = l.oid AND i.objsubid = 0
	WHERE given AND ARRAY(SELECT x::text FROM unnest(coalesce(acl, acldefault(kind, owner))) x ORDER BY 1) <> ARRAY(SELECT x::text FROM unnest(coalesce(initprivs, acldefault(kind, owner))) x ORDER BY 1)) `

// inspectPowers finds what an ordinary account cannot load.
func (e *Engine) inspectPowers(ctx context.Context, a, _ *pgx.Conn, p *pair) error {
	if p.standby.Superuser {
		return nil
	}
	all, err := column(ctx, a, powers(p.active.major()))
	if err != nil {
		return e.active.explain(ctx, err)
	}
	if all != nil {
		p.fatal("standby account "+p.standby.User, "only a superuser may load "+some(all, ""), p.superuser("better drop on the active what nobody needs of it, or take it back"))
	}
	lost, err := column(ctx, a, "SELECT what FROM "+altered+" g (what, open) WHERE open ORDER BY 1")
	if err != nil {
		return e.active.explain(ctx, err)
	}
	if lost != nil {
		p.note("standby account "+p.standby.User, "rights that the active's database has changed on what PostgreSQL or an extension made are not copied: on "+some(lost, ""), p.superuser("change them on the standby after a failover"))
	}
	// To say again what PostgreSQL's own extension is for is its owner's, and it is there already.
	commented, err := column(ctx, a, "SELECT extname::text FROM pg_extension WHERE extname = 'plpgsql' AND oid >= 16384 AND obj_description(oid, 'pg_extension') IS NOT NULL")
	if err != nil {
		return e.active.explain(ctx, err)
	}
	if commented != nil {
		p.fatal("active database "+e.opt.Name, "its extension plpgsql was created anew and has a comment, which on the standby only a superuser may make", "COMMENT ON EXTENSION plpgsql IS NULL")
	}
	return nil
}

// inspectPowerfulOwners finds who has to be a superuser, since what belongs to him
// may belong to nobody else.
func (e *Engine) inspectPowerfulOwners(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	owners, err := column(ctx, a, `SELECT DISTINCT rolname::text FROM pg_roles r WHERE rolsuper AND (EXISTS (SELECT FROM `+made("pg_event_trigger")+` AND evtowner = r.oid)
		OR EXISTS (SELECT FROM `+made("pg_foreign_data_wrapper")+` AND fdwowner = r.oid) OR EXISTS (SELECT FROM `+made("pg_publication")+` AND puballtables AND pubowner = r.oid)) ORDER BY 1`)
	if err != nil {
		return e.active.explain(ctx, err)
	}
	plain, err := column(ctx, s, "SELECT rolname::text FROM pg_roles WHERE NOT rolsuper AND rolname = ANY ($1) ORDER BY 1", owners)
	if err != nil {
		return e.standby.explain(ctx, err)
	}
	for _, name := range plain {
		p.fatal("standby server", "the role "+name+" is no superuser here, as it is on the active, and owns there an event trigger, a foreign-data wrapper or a publication of all tables",
			fmt.Sprintf("-- as on the active: ALTER ROLE %s SUPERUSER; or give these to another superuser there", quote(name)))
	}
	return nil
}

// inspectReadable finds what the account could load on the standby and not count.
func (e *Engine) inspectReadable(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	var all, bypasses bool
	err := s.QueryRow(ctx, `SELECT rolsuper OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_read_all_data' AND pg_has_role(oid, 'USAGE')), rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user`).Scan(&all, &bypasses)
	if err != nil {
		return e.standby.explain(ctx, err)
	}
	account := "standby account " + p.standby.User
	const tables = ` FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND` + ownSchema + `
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') `
	if !bypasses {
		forced, err := column(ctx, a, "SELECT format('%I.%I', n.nspname, c.relname)"+tables+"AND c.relrowsecurity AND c.relforcerowsecurity ORDER BY 1")
		if err != nil {
			return e.active.explain(ctx, err)
		}
		if forced != nil {
			p.fatal(account, "row security hides rows even from the owner of "+some(forced, "")+", and so from it", fmt.Sprintf("ALTER ROLE %s BYPASSRLS", quote(p.standby.User)))
		}
	}
	if all {
		return nil
	}
	closed, err := column(ctx, a, "SELECT format('%I.%I', n.nspname, c.relname)"+tables+"AND NOT (has_table_privilege(c.relowner, c.oid, 'SELECT') AND has_schema_privilege(c.relowner, n.oid, 'USAGE')) ORDER BY 1")
	if err != nil {
		return e.active.explain(ctx, err)
	}
	if closed != nil {
		fix := fmt.Sprintf("GRANT pg_read_all_data TO %s", quote(p.standby.User))
		if p.standby.major() < 14 {
			fix = "-- on the active, GRANT SELECT on them and USAGE on their schemas to their owners"
		}
		p.fatal(account, "their own owners may not read "+some(closed, "")+", and so it may not either", fix)
	}
	return nil
}

// inspectMappings says that what logs in to foreign servers does not come along.
func (e *Engine) inspectMappings(ctx context.Context, a, _ *pgx.Conn, p *pair) error {
	if p.active.Superuser {
		return nil
	}
	all, err := column(ctx, a, "SELECT DISTINCT srvname::text FROM pg_user_mappings WHERE umoptions IS NULL ORDER BY 1")
	if err != nil {
		return e.active.explain(ctx, err)
	}
	if all != nil {
		p.note("active account "+p.active.User, "what it may not see is not copied: options, like the password, of user mappings of the foreign server "+some(all, ""), "-- after a failover: ALTER USER MAPPING … OPTIONS (…)")
	}
	return nil
}

// inspectLabels finds security labels of which the standby knows no provider.
func (e *Engine) inspectLabels(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	all, err := column(ctx, a, "SELECT DISTINCT provider FROM pg_seclabel ORDER BY 1")
	if err != nil {
		return e.active.explain(ctx, err)
	}
	for _, provider := range all {
		err := takenBack(ctx, s, "SECURITY LABEL FOR "+quote(provider)+" ON ROLE "+quote(p.standby.User)+" IS NULL")
		if err != nil && !isServerError(err) {
			return e.standby.explain(ctx, err)
		}
		if hasCode(err, codeInvalidParameter) {
			p.fatal("standby server", "it has no provider of security labels "+provider+", which the active's database uses", "-- load it as on the active: shared_preload_libraries in postgresql.conf")
		}
	}
	return nil
}

// takenBack executes a statement in a transaction that comes to nothing.
func takenBack(ctx context.Context, c *pgx.Conn, statement string) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, statement)
	if rerr := tx.Rollback(ctx); rerr != nil {
		return rerr
	}
	return err
}

// collationsQuery lists the collations that the active's database has or names,
// and says which of them PostgreSQL found on that host by itself.
const collationsQuery = `SELECT c.collname::text, c.collnamespace = 'pg_catalog'::regnamespace, c.collprovider::text, coalesce(to_jsonb(c)->>'collcollate', ''), coalesce(to_jsonb(c)->>'collctype', ''),
		coalesce(to_jsonb(c)->>'colliculocale', to_jsonb(c)->>'colllocale', '')
	FROM pg_collation c WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_collation'::regclass AND d.objid = c.oid AND d.deptype = 'e')
		AND CASE c.collnamespace WHEN 'pg_catalog'::regnamespace THEN EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_collation'::regclass AND d.refobjid = c.oid) ELSE c.oid >= 16384 END ORDER BY 1`

// inspectCollations tries which of the collations this host knows. PostgreSQL's own
// are those that it found on the host when the server's directory was made: a new
// database has no others.
func (e *Engine) inspectCollations(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	type collation struct {
		Name                          string
		Found                         bool
		Provider, Collate, CType, ICU string
	}
	rows, err := a.Query(ctx, collationsQuery)
	if err != nil {
		return e.active.explain(ctx, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[collation])
	if err != nil {
		return e.active.explain(ctx, err)
	}
	var lacking []string
	for _, c := range all {
		if c.Found {
			there, err := column(ctx, s, "SELECT oid::text FROM pg_collation WHERE oid < 16384 AND collname = $1 AND collnamespace = 'pg_catalog'::regnamespace AND collencoding IN (-1, pg_char_to_encoding($2))", c.Name, p.properties.Encoding)
			if err != nil {
				return e.standby.explain(ctx, err)
			}
			if there == nil {
				lacking = append(lacking, c.Name)
			}
			continue
		}
		locale := "PROVIDER = icu, LOCALE = " + literal(cmp.Or(c.ICU, c.Collate))
		if c.Provider == "c" {
			locale = "LC_COLLATE = " + literal(c.Collate) + ", LC_CTYPE = " + literal(c.CType)
		}
		if c.Provider != "c" && c.Provider != "i" {
			continue
		}
		err := takenBack(ctx, s, "CREATE COLLATION pg_temp.drsync_probe ("+locale+")")
		if err != nil && !isServerError(err) {
			return e.standby.explain(ctx, err)
		}
		if err != nil && !hasCode(err, codeNoPrivilege) {
			lacking = append(lacking, c.Name)
		}
	}
	slices.Sort(lacking)
	if lacking != nil {
		p.fatal("standby server", "this host has not the locale of the collation "+some(lacking, "")+", which the active's database uses",
			"-- install the locale here (Debian: dpkg-reconfigure locales) and restart the standby's server; where PostgreSQL was to find it by itself, give the columns on the active one that CREATE COLLATION made there")
	}
	return nil
}
