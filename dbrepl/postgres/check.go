package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Check asks both servers what would stop or spoil a run.
func (e *Engine) Check(ctx context.Context) ([]dbrepl.Finding, error) {
	p, err := e.aside().inspect(ctx)
	if err != nil {
		return nil, e.failed("check", err)
	}
	return p.findings, nil
}

// pair is what is known about the two servers before a capture.
type pair struct {
	active, standby identity
	properties      properties // of the active's database
	programs        programs
	missing         []string // roles that the standby lacks
	findings        []dbrepl.Finding
}

func (p *pair) fatal(subject, problem, fix string) {
	p.findings = append(p.findings, dbrepl.Finding{Fatal: true, Subject: subject, Problem: problem, Fix: fix})
}

func (p *pair) note(subject, problem, fix string) {
	p.findings = append(p.findings, dbrepl.Finding{Subject: subject, Problem: problem, Fix: fix})
}

func (e *Engine) inspect(ctx context.Context) (*pair, error) {
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	a, err := e.active.connect(ctx, e.opt.Name)
	if err != nil {
		return nil, err
	}
	defer end(a)
	s, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return nil, err
	}
	defer end(s)
	p := &pair{}
	if p.active, err = e.active.identify(ctx, a); err != nil {
		return nil, err
	}
	if p.standby, err = e.standby.identify(ctx, s); err != nil {
		return nil, err
	}
	if e.alter != nil {
		e.alter(p)
	}
	same, err := sameServer(ctx, e.active, s)
	if err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	if same {
		p.fatal("standby server", "it is the active server itself", "set the address of this host's own server for the standby")
		return p, nil
	}
	if !p.compareServers() {
		return p, nil
	}
	if p.programs, err = findPrograms(ctx, p.active.major()); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p.fatal("this host", err.Error(), hint.Of(err))
	}
	size, err := e.inspectActive(ctx, a, p)
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	if err := e.inspectStandby(ctx, s, p); err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	if err := e.inspectRights(ctx, a, s, p); err != nil {
		return nil, err
	}
	e.inspectSpace(p, size)
	return p, nil
}

// compareServers finds what two servers must have in common, and says whether
// it is worth while to look further.
func (p *pair) compareServers() bool {
	if p.active.major() < oldest {
		p.fatal("active server", fmt.Sprintf("it is %s; drsync knows PostgreSQL %d and newer", p.active, oldest), "upgrade it")
	}
	if a, s := p.active.major(), p.standby.major(); a != s {
		p.fatal("standby server", fmt.Sprintf("it is %s, the active is %s; only servers of the same major version are a pair", p.standby, p.active),
			fmt.Sprintf("install PostgreSQL %d on the standby", a))
	}
	if p.active.InRecovery {
		p.fatal("active server", "it is a replica itself", "set the address of its primary for the active")
	}
	if p.standby.InRecovery {
		p.fatal("standby server", "it is a replica, into which nothing can be loaded", "use mode: replication, or promote it")
	}
	return p.findings == nil
}

// unreadable lists what of the active's database the account may not read.
const unreadable = `SELECT format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname, c.relname)
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'S', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
		AND NOT (has_schema_privilege(n.oid, 'USAGE') AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END)
	ORDER BY 1`

// hiding lists the tables whose rows are not all shown to the account.
const hiding = `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE row_security_active(c.oid) AND c.relkind IN ('r', 'p') ORDER BY 1`

// closedObjects counts the large objects that the account may not read.
const closedObjects = `SELECT count(*)::text FROM pg_largeobject_metadata m WHERE NOT current_setting('lo_compat_privileges')::bool AND NOT pg_has_role(m.lomowner, 'USAGE') AND NOT EXISTS (
	SELECT FROM aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))`

// reading is how an account comes to be allowed to read the active's database.
func (p *pair) reading(user string) string {
	if p.active.major() < 14 {
		return fmt.Sprintf("GRANT USAGE ON SCHEMA … TO %[1]s; GRANT SELECT ON ALL TABLES IN SCHEMA … TO %[1]s; GRANT SELECT ON ALL SEQUENCES IN SCHEMA … TO %[1]s", quote(user))
	}
	return "GRANT pg_read_all_data TO " + quote(user)
}

// bypassing lets an account see the rows that row security hides.
func bypassing(user string) string { return "ALTER ROLE " + quote(user) + " BYPASSRLS" }

// inspectActive looks at what is to be captured, and how big it is.
func (e *Engine) inspectActive(ctx context.Context, c *pgx.Conn, p *pair) (size int64, err error) {
	if p.properties, err = readProperties(ctx, c); err != nil {
		return 0, err
	}
	account := "active account " + p.active.User
	closed, err := column(ctx, c, unreadable)
	if err != nil {
		return 0, err
	}
	if closed != nil {
		p.fatal(account, "it may not read "+some(closed, ""), p.reading(p.active.User))
	}
	// With row_security off the question whether rows would be hidden is an error
	// only for whoever reads the table.
	hidden, err := column(ctx, c, hiding)
	if err != nil {
		return 0, err
	}
	if hidden != nil {
		p.fatal(account, "row security hides rows from it in "+some(hidden, ""), bypassing(p.active.User))
	}
	if !p.active.Superuser {
		objects, err := column(ctx, c, closedObjects)
		if err != nil {
			return 0, err
		}
		if len(objects) == 1 && objects[0] != "0" {
			p.fatal(account, "it may not read "+objects[0]+" large objects",
				fmt.Sprintf("ALTER ROLE %s IN DATABASE %s SET lo_compat_privileges = on -- which lets it read, and write, all large objects there and nothing else; GRANT SELECT ON LARGE OBJECT … is for one, and not for what is still to come", quote(p.active.User), quote(e.opt.Name)))
		}
	}
	if subscriptions, err := column(ctx, c, "SELECT s.oid::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()"); err == nil && subscriptions != nil {
		p.note("active database "+e.opt.Name, "its subscriptions are not copied", "create them on the standby after a failover")
	}
	err = c.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&size)
	return size, err
}

// inspectStandby looks whether the standby can take the database.
func (e *Engine) inspectStandby(ctx context.Context, c *pgx.Conn, p *pair) error {
	account := "standby account " + p.standby.User
	if !p.standby.Superuser && !p.standby.CreateDB {
		p.fatal(account, "it may not create databases", fmt.Sprintf("ALTER ROLE %s CREATEDB", quote(p.standby.User)))
	}
	var err error
	if p.missing, err = missingRoles(ctx, c, p.properties.Roles); err != nil {
		return err
	}
	if p.missing != nil {
		p.fatal("standby server", "it has no role "+some(p.missing, "")+", which the active's database names", createRoles(p.missing)+" -- pg_dumpall --roles-only on the active shows what they may do there")
	}
	rows, err := c.Query(ctx, `SELECT d.datname::text, pg_has_role(d.datdba, 'USAGE'), coalesce(shobj_description(d.oid, 'pg_database'), '') LIKE $2
		FROM pg_database d WHERE d.datname = ANY ($1)`, []string{e.opt.Name, e.stagingName(), e.prevName()}, commentPrefix+"%")
	if err != nil {
		return err
	}
	var name string
	var owned, ours bool
	_, err = pgx.ForEachRow(rows, []any{&name, &owned, &ours}, func() error {
		if !owned {
			p.fatal(account, "it does not own the database "+name, fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", quote(name), quote(p.properties.Owner)))
		}
		if !ours && name == e.opt.Name {
			p.note("standby database "+name, "drsync did not make it; the first publish puts it aside as "+e.prevName()+", and the one after drops it", "")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e.inspectLocale(ctx, c, p)
}

// missingRoles says which roles the standby lacks.
func missingRoles(ctx context.Context, c *pgx.Conn, roles []string) ([]string, error) {
	return column(ctx, c, "SELECT n FROM unnest($1::text[]) n WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = n)", roles)
}

func createRoles(names []string) string {
	var all []string
	for _, name := range names {
		all = append(all, "CREATE ROLE "+quote(name))
	}
	return strings.Join(all, "; ")
}

// inspectLocale tries, in a transaction that is taken back, whether this host
// knows the database's locale.
func (e *Engine) inspectLocale(ctx context.Context, c *pgx.Conn, p *pair) error {
	if p.properties.Provider != "c" {
		return nil
	}
	for _, locale := range []string{p.properties.Collate, p.properties.CType} {
		if locale == "C" || locale == "POSIX" {
			continue
		}
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "CREATE COLLATION pg_temp.drsync_probe (LOCALE = "+literal(locale)+")")
		if rerr := tx.Rollback(ctx); rerr != nil {
			return rerr
		}
		if hasCode(err, codeUndefinedObject, codeInvalidParameter) {
			p.fatal("standby server", fmt.Sprintf("this host has no locale %s, which the active's database has", locale), "install it (Debian: dpkg-reconfigure locales) and restart the standby's server")
			return nil
		}
	}
	return nil
}

// inspectExtensions finds the extensions that the standby cannot create.
func (e *Engine) inspectExtensions(ctx context.Context, a, s *pgx.Conn, p *pair) error {
	used, err := e.missingExtensions(ctx, a, s, p)
	if err != nil {
		return err
	}
	if p.standby.Superuser || p.standby.major() < 13 || len(used) == 0 {
		return nil
	}
	powerful, err := column(ctx, s, `SELECT DISTINCT name::text FROM pg_available_extension_versions WHERE name = ANY ($1) AND superuser AND NOT trusted ORDER BY 1`, used)
	if err != nil {
		return e.standby.explain(ctx, err)
	}
	if powerful != nil {
		p.fatal("standby account "+p.standby.User, "only a superuser may create the extension "+some(powerful, ""), p.superuser("better drop it on the active, if nothing needs it there"))
	}
	return nil
}

// missingExtensions finds the extensions that this host has no files of, and
// returns all that the active's database uses.
func (e *Engine) missingExtensions(ctx context.Context, a, s *pgx.Conn, p *pair) (used []string, err error) {
	used, err = column(ctx, a, "SELECT extname::text FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1")
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	missing, err := column(ctx, s, "SELECT n FROM unnest($1::text[]) n WHERE NOT EXISTS (SELECT FROM pg_available_extensions e WHERE e.name = n)", used)
	if err != nil {
		return nil, e.standby.explain(ctx, err)
	}
	if missing != nil {
		p.fatal("standby server", "it lacks the extension "+some(missing, "")+", which the active's database uses", "install on this host the package that the active has it from")
	}
	return used, nil
}

// canRestore looks whether the standby can take a kept dump, without the active.
func (e *Engine) canRestore(ctx context.Context, d definition) (programs, error) {
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return programs{}, err
	}
	defer end(c)
	id, err := e.standby.identify(ctx, c)
	if err != nil {
		return programs{}, err
	}
	if id.major() < d.Number/10000 {
		return programs{}, hint.With(fmt.Errorf("the dump is of PostgreSQL %d, the standby's server is %s", d.Number/10000, id), "restore it with a server that is at least as new")
	}
	missing, err := missingRoles(ctx, c, d.Properties.Roles)
	if err != nil {
		return programs{}, e.standby.explain(ctx, err)
	}
	if missing != nil {
		return programs{}, hint.With(fmt.Errorf("the standby has no role %s, which the dump names", some(missing, "")), createRoles(missing))
	}
	return findPrograms(ctx, max(id.major(), d.Programs))
}
