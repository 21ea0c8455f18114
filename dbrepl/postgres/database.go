package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// properties are what a database has beside its contents, and which roles its
// contents name.
type properties struct {
	Owner    string   `json:"owner"`
	Encoding string   `json:"encoding"`
	Provider string   `json:"provider"` // of the locale: c(ibc), i(cu) or b(uiltin)
	Collate  string   `json:"collate,omitempty"`
	CType    string   `json:"ctype,omitempty"`
	Locale   string   `json:"locale,omitempty"` // ICU's or the builtin provider's
	Rules    string   `json:"rules,omitempty"`  // ICU's
	Limit    int      `json:"limit"`            // of connections; -1 is none
	Public   []string `json:"public,omitempty"` // what everybody may do with it
	Grants   []grant  `json:"grants,omitempty"`
	Settings []preset `json:"settings,omitempty"`
	Roles    []string `json:"roles,omitempty"` // all that the database and its contents need
}

// grant is what a role may do with the database itself.
type grant struct {
	Role     string `json:"role"`
	Right    string `json:"right"`
	Grants   bool   `json:"grants,omitempty"` // it may pass the right on
	IsPublic bool   `json:"-"`
}

// preset is a setting that sessions in the database begin with.
type preset struct {
	Role  string `json:"role,omitempty"` // "" is all
	Name  string `json:"name"`
	Value string `json:"value"`
}

// readProperties reads what the session's own database is.
func readProperties(ctx context.Context, c *pgx.Conn) (properties, error) {
	var raw []byte
	var p properties
	err := c.QueryRow(ctx, `SELECT to_jsonb(d), r.rolname::text, pg_encoding_to_char(d.encoding)::text
		FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = current_database()`).Scan(&raw, &p.Owner, &p.Encoding)
	if err != nil {
		return p, err
	}
	// Which of these there are depends on the version.
	var d struct {
		Provider string `json:"datlocprovider"`
		Collate  string `json:"datcollate"`
		CType    string `json:"datctype"`
		ICU      string `json:"daticulocale"` // 15 and 16
		Locale   string `json:"datlocale"`    // 17
		Rules    string `json:"daticurules"`
		Limit    int    `json:"datconnlimit"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return p, fmt.Errorf("the database's own row: %w", err)
	}
	p.Provider, p.Collate, p.CType, p.Locale, p.Rules, p.Limit = d.Provider, d.Collate, d.CType, d.ICU+d.Locale, d.Rules, d.Limit
	if p.Provider == "" {
		p.Provider = "c"
	}
	if err := p.readGrants(ctx, c); err != nil {
		return p, err
	}
	if err := p.readSettings(ctx, c); err != nil {
		return p, err
	}
	p.Roles, err = column(ctx, c, rolesQuery)
	return p, err
}

func (p *properties) readGrants(ctx context.Context, c *pgx.Conn) error {
	rows, err := c.Query(ctx, `SELECT coalesce(r.rolname::text, ''), a.privilege_type, a.is_grantable, a.grantee = 0
		FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a LEFT JOIN pg_roles r ON r.oid = a.grantee
		WHERE d.datname = current_database() AND a.grantee <> d.datdba ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[grant])
	for _, g := range all {
		if g.IsPublic {
			p.Public = append(p.Public, g.Right)
		} else {
			p.Grants = append(p.Grants, g)
		}
	}
	return err
}

func (p *properties) readSettings(ctx context.Context, c *pgx.Conn) error {
	rows, err := c.Query(ctx, `SELECT coalesce(r.rolname::text, ''), split_part(v, '=', 1), substr(v, strpos(v, '=') + 1)
		FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole,
			unnest(s.setconfig) v
		WHERE d.datname = current_database() ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	p.Settings, err = pgx.CollectRows(rows, pgx.RowToStructByPos[preset])
	return err
}

// rolesQuery lists the roles that the database and what is in it belong to, are
// named in their rights or have settings there. What belongs to the first superuser is
// not among the server's dependencies, and what an extension made is given to nobody.
const rolesQuery = `SELECT r.rolname::text FROM pg_roles r WHERE r.rolname !~ '^pg_' AND (
	EXISTS (SELECT FROM pg_shdepend s JOIN pg_database d ON d.datname = current_database()
		WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND (s.dbid = d.oid OR s.dbid = 0 AND s.classid = 'pg_database'::regclass AND s.objid = d.oid)
			AND NOT (s.deptype = 'o' AND (s.classid = 'pg_extension'::regclass
				OR EXISTS (SELECT FROM pg_depend x WHERE x.classid = s.classid AND x.objid = s.objid AND x.deptype = 'e'))))
	OR EXISTS (SELECT FROM pg_database d WHERE d.datname = current_database() AND d.datdba = r.oid)
	OR EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database() AND s.setrole = r.oid)
	OR EXISTS (SELECT FROM ` + owned + ` o WHERE o.owner = r.oid)) ORDER BY 1`

// column returns the first column of a query as texts, nil if it has no rows.
func column(ctx context.Context, c *pgx.Conn, query string, args ...any) ([]string, error) {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.AppendRows([]string(nil), rows, pgx.RowTo[string])
}

// createStatement makes an empty database like the one that p is of.
func (p properties) createStatement(name string) (string, error) {
	s := "CREATE DATABASE " + quote(name) + " TEMPLATE template0 OWNER " + quote(p.Owner) + " ENCODING " + literal(p.Encoding) +
		" LC_COLLATE " + literal(p.Collate) + " LC_CTYPE " + literal(p.CType)
	switch p.Provider {
	case "c":
		return s, nil
	case "i":
		s += " LOCALE_PROVIDER icu ICU_LOCALE " + literal(p.Locale)
		if p.Rules != "" {
			s += " ICU_RULES " + literal(p.Rules)
		}
		return s, nil
	case "b":
		return s + " LOCALE_PROVIDER builtin BUILTIN_LOCALE " + literal(p.Locale), nil
	}
	return "", fmt.Errorf("the database's locale provider %q is not known", p.Provider)
}

const fence = "default_transaction_read_only"

// dress gives a new database the rights and settings of the one that p is of,
// and if it is to be published keeps writers out until it is promoted.
func (p properties) dress(ctx context.Context, c *pgx.Conn, name string, fenced bool) error {
	database := quote(name)
	statements := []string{"REVOKE ALL ON DATABASE " + database + " FROM PUBLIC"}
	for _, right := range p.Public {
		statements = append(statements, "GRANT "+right+" ON DATABASE "+database+" TO PUBLIC")
	}
	for _, g := range p.Grants {
		s := "GRANT " + g.Right + " ON DATABASE " + database + " TO " + quote(g.Role)
		if g.Grants {
			s += " WITH GRANT OPTION"
		}
		statements = append(statements, s)
	}
	for _, v := range p.Settings {
		if v.Role == "" && v.Name == fence && fenced {
			continue
		}
		if err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { return v.set(ctx, tx, name) }); err != nil {
			return adviseSetting(fmt.Errorf("set %s of %s: %w", v.Name, name, err))
		}
	}
	if p.Limit != -1 {
		statements = append(statements, fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d", database, p.Limit))
	}
	if fenced {
		statements = append(statements, "ALTER DATABASE "+database+" SET "+fence+" = on")
	}
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (v preset) assignment() string {
	value := literal(v.Value)
	if folds, ok := lists[strings.ToLower(v.Name)]; ok {
		if names, ok := elements(v.Value, folds); ok {
			value = strings.Join(names, ", ")
		}
	}
	return v.identifier() + " = " + value
}

// identifier is the name for a statement. One with a dot is an extension's; each part is
// quoted by itself.
func (v preset) identifier() string { return pgx.Identifier(strings.Split(v.Name, ".")).Sanitize() }

// validate judges what came from a token or a kept dump.
func (p properties) validate() error {
	for _, right := range append(grantsOf(p.Grants), p.Public...) {
		if right != "CREATE" && right != "CONNECT" && right != "TEMPORARY" {
			return fmt.Errorf("a right %q is not known", right)
		}
	}
	if p.Owner == "" || p.Encoding == "" {
		return errors.New("the database's owner or encoding is missing")
	}
	return nil
}

func grantsOf(all []grant) (rights []string) {
	for _, g := range all {
		rights = append(rights, g.Right)
	}
	return rights
}

// dropDatabase drops one of the engine's own databases if it exists. Whoever is
// connected to it is disconnected if force is given.
func (e *Engine) dropDatabase(ctx context.Context, c *pgx.Conn, name string, force bool) error {
	oid, err := databaseID(ctx, c, name)
	if err != nil || oid == 0 {
		// Without this question an account that may not drop it would be refused
		// although there is nothing to drop, before Check can say what it lacks.
		return err
	}
	if force {
		// Not by DROP … WITH (FORCE), which versions before 13 do not know. What has no
		// user is the server's own work, which DROP ends and an ordinary account may not.
		if _, err := c.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = $1 AND usesysid IS NOT NULL AND pid <> pg_backend_pid()", oid); err != nil {
			return fmt.Errorf("end the sessions in %s: %w", name, err)
		}
	}
	if _, err := c.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)); err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	return nil
}

// databaseID returns the number of a database, or 0 if there is none.
func databaseID(ctx context.Context, c *pgx.Conn, name string) (uint32, error) {
	var oid uint32
	err := c.QueryRow(ctx, "SELECT oid FROM pg_database WHERE datname = $1", name).Scan(&oid)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return oid, err
}
