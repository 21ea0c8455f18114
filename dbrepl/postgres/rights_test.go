package postgres

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// kind is something that an active's database may have. In its statements @app is the
// application's role, @me drsync's on both servers, and @db the database.
type kind struct {
	name    string
	server  string // on the active's server, before
	active  string // in the active's database
	standby string // on the standby's server, before
	// finds is what the check says, "" is nothing fatal.
	finds string
	// notes is what it says that is not fatal.
	notes string
	// fix is what a reader decides on the standby where the check leaves that to him, and
	// there what he decides on the active.
	fix, there string
	look       string // a query whose rows must be the same on both sides, and some
}

var kinds = []kind{
	{name: "tables", active: "SET ROLE @app; CREATE SCHEMA s; CREATE TABLE s.t (n int PRIMARY KEY); INSERT INTO s.t VALUES (1)", look: "TABLE s.t"},
	{name: "settings of the database", server: "ALTER DATABASE @db SET work_mem = '5MB'; ALTER DATABASE @db SET search_path = s, public", look: "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND d.datname = '@db' AND setrole = 0 ORDER BY 1"},
	{name: "settings of a role", server: "ALTER ROLE @app IN DATABASE @db SET search_path = 'public'; ALTER ROLE @app IN DATABASE @db SET work_mem = '6MB'", look: "SELECT unnest(setconfig), r.rolname FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND d.datname = '@db' JOIN pg_roles r ON r.oid = setrole"},
	{name: "settings of a role for superusers", server: "ALTER ROLE @app IN DATABASE @db SET log_min_duration_statement = 100", finds: "cannot set log_min_duration_statement, which the active's database @db has for the role @app", look: "SELECT unnest(setconfig), r.rolname FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND d.datname = '@db' JOIN pg_roles r ON r.oid = setrole"},
	{name: "settings of another role", server: "CREATE ROLE @app_o; ALTER ROLE @app_o IN DATABASE @db SET work_mem = '6MB'", finds: "has no role @app_o", look: "SELECT unnest(setconfig), r.rolname FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND d.datname = '@db' JOIN pg_roles r ON r.oid = setrole"},
	{name: "settings of a superuser", server: "ALTER ROLE postgres IN DATABASE @db SET work_mem = '6MB'", finds: "for the role postgres", there: "ALTER ROLE postgres IN DATABASE @db RESET work_mem", look: "SELECT 1"},
	{name: "settings for superusers", server: "ALTER DATABASE @db SET log_min_duration_statement = 100; ALTER DATABASE @db SET session_replication_role = 'local'; ALTER DATABASE @db SET \"an.extension\" = 'x'", finds: "cannot set log_min_duration_statement", look: "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND d.datname = '@db' AND setrole = 0 AND EXISTS (SELECT FROM unnest(setconfig) v WHERE v LIKE 'an.ext%') ORDER BY 1"},
	{name: "empty lists of the database", server: "ALTER DATABASE @db SET search_path = ''; ALTER DATABASE @db SET temp_tablespaces = ''; ALTER DATABASE @db SET datestyle = ''", look: "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND d.datname = '@db' AND setrole = 0 ORDER BY 1"},
	{name: "empty lists of a role", server: "ALTER ROLE @app IN DATABASE @db SET search_path = ''; ALTER ROLE @app IN DATABASE @db SET temp_tablespaces = ''; ALTER ROLE @app IN DATABASE @db SET local_preload_libraries = ''; ALTER ROLE @app IN DATABASE @db SET datestyle = ''", look: "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND d.datname = '@db' AND setrole <> 0 ORDER BY 1"},
	{name: "empty lists of functions", active: "SET ROLE @app; CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = '' SET temp_tablespaces = '' SET local_preload_libraries = '' SET datestyle = '' AS 'SELECT 1'", look: "SELECT proconfig FROM pg_proc WHERE proname = 'f'"},
	{name: "lists of odd names", server: `ALTER DATABASE @db SET search_path = '', "$user", "A ""b", 'it''s, \', public; ALTER ROLE @app IN DATABASE @db SET datestyle = 'SQL, DMY'`, active: `SET ROLE @app; CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = '', "$user", "A ""b", 'it''s, \', public SET datestyle = German AS 'SELECT 1'`, look: "SELECT unnest(setconfig || proconfig) FROM pg_proc, pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase AND d.datname = '@db' WHERE proname = 'f' ORDER BY 1"},
	{name: "settings of literals", server: "ALTER DATABASE @db SET standard_conforming_strings = off; ALTER DATABASE @db SET array_nulls = off; ALTER DATABASE @db SET backslash_quote = off; ALTER DATABASE @db SET transform_null_equals = on; ALTER DATABASE @db SET default_toast_compression = 'pglz'", active: `SET array_nulls = on; SET ROLE @app; CREATE TABLE t (a text[], b text DEFAULT E'x\\y', CHECK (b <> E'\\')); INSERT INTO t VALUES (ARRAY[NULL, 'a'], E'x\\z'), (NULL, DEFAULT); CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT E'\\'$$; COMMENT ON TABLE t IS E'a\\b'`, look: "SELECT a[1] IS NULL, a::text, b, (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef), obj_description('t'::regclass), (SELECT prosrc FROM pg_proc WHERE proname = 'f') FROM t ORDER BY b"},
	{name: "settings with libraries", server: "ALTER DATABASE @db SET session_preload_libraries = 'auto_explain'", finds: "cannot set session_preload_libraries", there: "ALTER DATABASE @db RESET session_preload_libraries", look: "SELECT 1"},
	{name: "settings of functions", active: "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET log_min_messages = 'error' AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO @app", finds: "the active's function public.f() has", look: "SELECT proconfig FROM pg_proc WHERE proname = 'f'"},
	{name: "comments and limits", server: "COMMENT ON DATABASE @db IS 'c'; ALTER DATABASE @db CONNECTION LIMIT 6", active: "SET ROLE @app; CREATE TABLE t (n int); COMMENT ON TABLE t IS 'a'; COMMENT ON COLUMN t.n IS 'b'; COMMENT ON SCHEMA public IS 'p'", look: "SELECT description, d.datconnlimit FROM pg_description, pg_database d WHERE d.datname = '@db' AND objoid IN ('t'::regclass, 'public'::regnamespace) ORDER BY 1"},
	{name: "low limits", server: "ALTER DATABASE @db CONNECTION LIMIT 3", active: "SET ROLE @app; CREATE TABLE t AS SELECT 1 AS n", standby: "ALTER ROLE @me CONNECTION LIMIT 2", finds: "it admits 3 sessions", look: "TABLE t"},
	{name: "rights on the database", server: "CREATE ROLE @app_g; GRANT CONNECT, TEMPORARY ON DATABASE @db TO @app_g WITH GRANT OPTION; REVOKE TEMPORARY ON DATABASE @db FROM PUBLIC", finds: "has no role @app_g", look: "SELECT has_database_privilege('@app_g', '@db', 'TEMPORARY WITH GRANT OPTION')"},
	{name: "rights of a role", server: "CREATE ROLE @app_g", active: "SET ROLE @app; CREATE TABLE t (n int); GRANT SELECT ON t TO @app_g", standby: "CREATE ROLE @app_g", look: "SELECT has_table_privilege('@app_g', 't', 'SELECT')"},
	{name: "rights that another granted", server: "CREATE ROLE @app_g; CREATE ROLE @app_h", standby: "CREATE ROLE @app_g; CREATE ROLE @app_h", active: "SET ROLE @app; CREATE TABLE t (n int); GRANT SELECT ON t TO @app_g WITH GRANT OPTION; SET ROLE @app_g; GRANT SELECT ON t TO @app_h", finds: "what another than its owner granted on table", fix: "ALTER ROLE @me SUPERUSER", look: "SELECT has_table_privilege('@app_h', 't', 'SELECT')"},
	{name: "rights on what is PostgreSQL's", active: "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO @app", finds: "what was granted on function pg_read_file(text)", there: "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM @app", look: "SELECT 1"},
	{name: "rights on a language", active: "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC", notes: "language plpgsql", look: "SELECT 1"},
	{name: "rights taken from the owner", active: "SET ROLE @app; CREATE TABLE t AS SELECT 1 AS n; REVOKE ALL ON t FROM @app", finds: "own owners may not read public.t", look: "TABLE t"},
	{name: "default rights", active: "SET ROLE @app; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC", look: "SELECT defaclacl FROM pg_default_acl"},
	{name: "default rights of a superuser", active: "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO @app", finds: "no member of postgres", there: "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM @app", look: "SELECT 1"},
	{name: "tables of a superuser", active: "CREATE TABLE t AS SELECT 1 AS n", finds: "table public.t", there: "ALTER TABLE t OWNER TO @app", look: "TABLE t"},
	{name: "operators of a superuser", active: "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)", finds: "operator public.===", there: "ALTER OPERATOR === (int, int) OWNER TO @app", look: "SELECT 1 WHERE 1 === 1"},
	{name: "a schema public of a superuser", active: "ALTER SCHEMA public OWNER TO postgres", finds: "schema public", there: "ALTER SCHEMA public OWNER TO pg_database_owner", look: "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'public'"},
	{name: "a database of a superuser", server: "ALTER DATABASE @db OWNER TO postgres", finds: "the database itself", there: "ALTER DATABASE @db OWNER TO @app", look: "SELECT 1"},
	{name: "a database of a superuser on the standby", standby: "CREATE DATABASE @db", finds: "does not own the database @db", look: "SELECT datdba::regrole FROM pg_database WHERE datname = '@db'"},
	{name: "tables of another role", server: "CREATE ROLE @app_o", active: "CREATE SCHEMA s AUTHORIZATION @app_o; CREATE TABLE s.t AS SELECT 1 AS n; ALTER TABLE s.t OWNER TO @app_o", standby: "CREATE ROLE @app_o", finds: "no member of @app_o", look: "TABLE s.t"},
	{name: "tables in another's schema", server: "CREATE ROLE @app_o", active: "GRANT CREATE ON SCHEMA public TO @app_o; CREATE TABLE t AS SELECT 1 AS n; ALTER TABLE t OWNER TO @app_o", standby: "CREATE ROLE @app_o; GRANT @app_o TO @me", finds: "lies in the schema public of @app", there: "ALTER TABLE t OWNER TO @app", look: "TABLE t"},
	{name: "a role that is missing", server: "CREATE ROLE @app_o", active: "CREATE TABLE t AS SELECT 1 AS n; ALTER TABLE t OWNER TO @app_o; CREATE SCHEMA s AUTHORIZATION @app_o; ALTER TABLE t SET SCHEMA s", finds: "has no role @app_o", look: "TABLE s.t"},
	{name: "a trusted extension", active: "CREATE EXTENSION hstore; SET ROLE @app; CREATE TABLE t AS SELECT 'a=>1'::public.hstore AS h", look: "TABLE t"},
	{name: "an extension for superusers", active: "CREATE EXTENSION postgres_fdw", finds: "only a superuser may create the extension postgres_fdw", there: "DROP EXTENSION postgres_fdw", look: "SELECT 1"},
	{name: "rights on an extension's", active: "CREATE EXTENSION hstore; REVOKE EXECUTE ON FUNCTION akeys(hstore) FROM PUBLIC", notes: "function public.akeys(public.hstore)", look: "SELECT 1"},
	{name: "plpgsql anew", active: "DROP EXTENSION plpgsql; CREATE EXTENSION plpgsql", finds: "extension plpgsql was created anew", look: "SELECT extname FROM pg_extension"},
	{name: "a function in C", active: "CREATE FUNCTION f(internal) RETURNS internal LANGUAGE internal AS 'int4_sum'; ALTER FUNCTION f(internal) OWNER TO @app", finds: "function public.f(internal) in language internal", fix: "ALTER ROLE @me SUPERUSER", look: "SELECT prosrc FROM pg_proc WHERE proname = 'f'"},
	{name: "a leakproof function", active: "CREATE FUNCTION f() RETURNS int LEAKPROOF LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO @app", finds: "which is leakproof", fix: "ALTER ROLE @me SUPERUSER", look: "SELECT f()"},
	{name: "an operator class", active: "CREATE OPERATOR CLASS oc FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 btint4cmp(int, int); ALTER OPERATOR CLASS oc USING btree OWNER TO @app; ALTER OPERATOR FAMILY oc USING btree OWNER TO @app", finds: "operator class public.oc", fix: "ALTER ROLE @me SUPERUSER", look: "SELECT opcname FROM pg_opclass WHERE opcname = 'oc'"},
	{name: "casts", active: "SET ROLE @app; CREATE TYPE mood AS ENUM ('a'); CREATE TYPE pair AS (a int, b int); CREATE FUNCTION f(pair) RETURNS mood LANGUAGE sql AS 'SELECT ''a''::public.mood'; CREATE CAST (pair AS mood) WITH FUNCTION f(pair)", look: "SELECT (ROW(1, 2)::pair)::mood"},
	{name: "an event trigger", active: "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; ALTER FUNCTION f() OWNER TO @app; CREATE EVENT TRIGGER v ON ddl_command_end EXECUTE FUNCTION f()", finds: "event trigger v", fix: "ALTER ROLE @me SUPERUSER", look: "SELECT evtname FROM pg_event_trigger"},
	{name: "an event trigger of another superuser", server: "CREATE ROLE @app_o SUPERUSER", standby: "CREATE ROLE @app_o; ALTER ROLE @me SUPERUSER", active: "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER v ON ddl_command_end EXECUTE FUNCTION f(); ALTER EVENT TRIGGER v OWNER TO @app_o", finds: "@app_o is no superuser here", fix: "ALTER ROLE @app_o SUPERUSER", look: "SELECT evtowner::regrole FROM pg_event_trigger"},
	{name: "a publication of a table", active: "SET ROLE @app; CREATE TABLE t (n int); CREATE PUBLICATION p FOR TABLE t", look: "SELECT * FROM pg_publication_tables"},
	{name: "a publication of all tables", active: "CREATE PUBLICATION p FOR ALL TABLES", finds: "publication p of all tables", there: "DROP PUBLICATION IF EXISTS p", look: "SELECT 1"},
	{name: "a publication of a schema", active: "CREATE PUBLICATION p FOR TABLES IN SCHEMA public; ALTER PUBLICATION p OWNER TO @app", finds: "publication p of schemas", fix: "ALTER ROLE @me SUPERUSER", look: "SELECT pnnspid::regnamespace FROM pg_publication_namespace"},
	{name: "a foreign server", active: "CREATE FOREIGN DATA WRAPPER w OPTIONS (a 'b'); GRANT USAGE ON FOREIGN DATA WRAPPER w TO @app; SET ROLE @app; CREATE SERVER f FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR @app SERVER f OPTIONS (password 'x'); CREATE FOREIGN TABLE ft (n int) SERVER f", finds: "foreign-data wrapper w", notes: "foreign server f", fix: "ALTER ROLE @me SUPERUSER", look: "SELECT srvname, usename FROM pg_user_mappings"},
	{name: "large objects", active: "SELECT lo_from_bytea(4711, 'abc'); ALTER LARGE OBJECT 4711 OWNER TO @app", finds: "it may not read 1 large objects", look: "SELECT loid, data FROM pg_largeobject"},
	{name: "large objects of a superuser", active: "SELECT lo_from_bytea(4711, 'abc'); GRANT SELECT ON LARGE OBJECT 4711 TO @me", finds: "large object 4711", there: "ALTER LARGE OBJECT 4711 OWNER TO @app", look: "SELECT loid, data FROM pg_largeobject"},
	{name: "row security", active: "SET ROLE @app; CREATE TABLE t AS SELECT 1 AS n; CREATE POLICY p ON t TO @app USING (n > 0); ALTER TABLE t ENABLE ROW LEVEL SECURITY", finds: "row security hides rows from it", look: "TABLE t"},
	{name: "row security for the owner", server: "ALTER ROLE @me BYPASSRLS", active: "SET ROLE @app; CREATE TABLE t AS SELECT 1 AS n; ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", finds: "even from the owner of public.t", look: "TABLE t"},
	{name: "collations", active: `SET ROLE @app; CREATE COLLATION ci (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false); CREATE COLLATION posix (LOCALE = 'C.UTF-8'); CREATE TABLE t (a text COLLATE ci, b text COLLATE posix, c text COLLATE "C.utf8", d text COLLATE "de-x-icu")`, look: "SELECT attname, attcollation::regcollation FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"},
	{name: "a collation of no locale here", active: "CREATE COLLATION gone (LOCALE = 'C'); ALTER COLLATION gone OWNER TO @app; UPDATE pg_collation SET collcollate = 'xx_XX.utf8', collctype = 'xx_XX.utf8' WHERE collname = 'gone'", finds: "has not the locale of the collation gone", there: "DROP COLLATION gone", look: "SELECT 1"},
	{name: "a collation that PostgreSQL found there", active: `CREATE COLLATION pg_catalog."xx_XX" (LOCALE = 'C'); SET ROLE @app; CREATE TABLE t (a text COLLATE "xx_XX")`, finds: "has not the locale of the collation xx_XX", there: "ALTER TABLE t ALTER a TYPE text COLLATE \"C\"", look: "SELECT 't'::regclass"},
	{name: "a tablespace", server: "CREATE TABLESPACE @app_ts LOCATION '@dir'", active: "CREATE TABLE t TABLESPACE @app_ts AS SELECT 1 AS n; ALTER TABLE t OWNER TO @app; ALTER DATABASE @db SET default_tablespace = '@app_ts'", look: "TABLE t"},
	{name: "security labels", active: "SET ROLE @app; CREATE TABLE t (n int); RESET ROLE; INSERT INTO pg_seclabel VALUES ('t'::regclass, 'pg_class'::regclass, 0, 'nobody', 'x')", finds: "no provider of security labels nobody", there: "DELETE FROM pg_seclabel", look: "SELECT 't'::regclass"},
	{name: "other things of the application's", active: `SET ROLE @app; CREATE TEXT SEARCH CONFIGURATION c (COPY = simple); CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = simple); CREATE DOMAIN few AS int CHECK (VALUE < 9); CREATE TYPE r AS RANGE (SUBTYPE = float8);
		CREATE TABLE t (a few, b few); CREATE STATISTICS st ON a, b FROM t; CREATE AGGREGATE agg(int) (SFUNC = int4pl, STYPE = int); CREATE PROCEDURE pr() LANGUAGE sql AS 'SELECT 1'; CREATE VIEW v AS SELECT 1; CREATE RULE ru AS ON INSERT TO v DO INSTEAD NOTHING; CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one;
		CREATE SEQUENCE sq; CREATE UNLOGGED TABLE ul (n int); CREATE TABLE par (n int) PARTITION BY LIST (n); CREATE TABLE par1 PARTITION OF par DEFAULT; CREATE TABLE ch () INHERITS (t)`, look: "TABLE mv"},
}

// TestWhatTheReadmesAccountsCanCopy makes each kind of thing on the active and copies
// it by the accounts that the README tells to create. Either the check is content,
// and a run and a failover bring it, or its advice makes that so, and
// without the advice the load would have failed.
func TestWhatTheReadmesAccountsCanCopy(t *testing.T) {
	t.Parallel()
	active, standby := testenv.Postgres(t), testenv.Postgres(t)
	if got, err := standby.Query("postgres", "SELECT (current_setting('server_version_num')::int >= 150000)::text"); err != nil || got[0] != "true" {
		t.Skipf("not all of these statements are known before PostgreSQL 15 (%v)", err)
	}
	space := filepath.Join(filepath.Dir(active.Datadir), "space")
	must(t, active.Command("mkdir", space).Run())
	for _, k := range kinds {
		t.Run(strings.ReplaceAll(k.name, " ", "_"), func(t *testing.T) {
			l := newLab(t, active, standby)
			app, me := "app_"+l.name, "me_"+l.name
			names := strings.NewReplacer("@app", app, "@me", me, "@db", l.name, "@dir", space)
			active.Exec(t, "postgres", names.Replace("CREATE ROLE @app LOGIN; CREATE ROLE @me LOGIN PASSWORD 'x' IN ROLE pg_read_all_data; ALTER DATABASE @db OWNER TO @app"))
			standby.Exec(t, "postgres", names.Replace("CREATE ROLE @app LOGIN PASSWORD 'x'; CREATE ROLE @me LOGIN CREATEDB PASSWORD 'x' IN ROLE @app"))
			run := func(server *testenv.PostgresServer, database, statements string) {
				t.Helper()
				if statements != "" {
					server.Exec(t, database, names.Replace(statements))
				}
			}
			run(active, "postgres", k.server)
			run(active, l.name, k.active)
			run(standby, "postgres", k.standby)
			e := l.engine(t, func(o *Options) {
				o.Active.User, o.Active.Password, o.Standby.User, o.Standby.Password = me, "x", me, "x"
			})
			l.copiesOrFixes(t, e, k, names)
			if _, err := e.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			want, got := l.mustQuery(t, active, names.Replace(k.look)), l.mustQuery(t, standby, names.Replace(k.look))
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("arrived as %q, is %q", got, want)
			}
		})
	}
}

// copiesOrFixes follows the check's advice until it has none, and then publishes.
func (l *lab) copiesOrFixes(t *testing.T, e *Engine, k kind, names *strings.Replacer) {
	t.Helper()
	var said []string
	for range 5 {
		findings, err := e.Check(t.Context())
		must(t, err)
		if k.notes != "" {
			wantFinding(t, findings, false, k.notes)
		}
		findings = slices.DeleteFunc(findings, func(f dbrepl.Finding) bool { return !f.Fatal })
		if len(findings) == 0 {
			break
		}
		for _, f := range findings {
			said = append(said, f.Subject+": "+f.Problem)
			t.Logf("%s: %s\n%s", f.Subject, f.Problem, f.Fix)
		}
		l.loadFails(t, e)
		for _, f := range findings {
			l.follow(t, f, k, names)
		}
	}
	all := strings.Join(said, "\n")
	if k.finds == "" && all != "" || !strings.Contains(all, names.Replace(k.finds)) {
		t.Errorf("found %q, want %q", all, names.Replace(k.finds))
	}
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	must(t, err)
	must(t, c.Publish(t.Context()))
}

// follow does what a finding says, on the server that it names. What begins as a
// comment leaves the decision to the reader, who takes it for the kind of thing.
func (l *lab) follow(t *testing.T, f dbrepl.Finding, k kind, names *strings.Replacer) {
	t.Helper()
	if !strings.HasPrefix(f.Fix, "--") {
		if strings.Contains(f.Fix, "SUPERUSER") {
			t.Errorf("the advice is no comment: %s", f.Fix)
		}
		if strings.HasPrefix(f.Subject, "active") {
			l.active.Exec(t, l.name, f.Fix)
		} else {
			l.standby.Exec(t, "postgres", f.Fix)
		}
		return
	}
	if k.fix == "" && k.there == "" {
		t.Errorf("it is left to the reader: %s", f.Fix)
	}
	if k.fix != "" {
		l.standby.Exec(t, "postgres", names.Replace(k.fix))
	}
	if k.there != "" {
		l.active.Exec(t, l.name, names.Replace(k.there))
	}
}

// loadFails copies and publishes without regard to what the check found.
func (l *lab) loadFails(t *testing.T, e *Engine) {
	t.Helper()
	p, err := e.inspect(t.Context())
	must(t, err)
	must(t, e.claim(t.Context()))
	g, err := e.copyDatabase(t.Context(), p, dbrepl.CaptureOptions{})
	if err == nil {
		err = e.publish(t.Context(), g)
	}
	if err == nil {
		t.Fatalf("it can be copied, and the check says %v", p.findings)
	} else {
		t.Logf("without: %v", err)
	}
	must(t, e.dropStaging(t.Context()))
}

// aLimitOfTwo lets two sessions of an ordinary account into the standby's database.
func aLimitOfTwo(t *testing.T, l *lab) {
	app, filler := "app_"+l.name, "filler_"+l.name
	l.active.Exec(t, "postgres", "CREATE ROLE "+app+"; ALTER DATABASE "+l.name+" OWNER TO "+app+"; ALTER DATABASE "+l.name+" CONNECTION LIMIT 2")
	l.standby.Exec(t, "postgres", "CREATE ROLE "+app+"; CREATE ROLE "+filler+" LOGIN CREATEDB IN ROLE "+app)
	l.onActive(t, "SET ROLE "+app+"; CREATE TABLE t AS SELECT 1 AS n")
	e := l.engine(t, func(o *Options) { o.Standby.User, o.Jobs = filler, 4 })
	for range 2 {
		l.sync(t, e)
	}
	if rows := l.mustQuery(t, l.standby, "SELECT datconnlimit FROM pg_database WHERE datname = current_database()"); rows[0] != "2" {
		t.Errorf("the limit is %s", rows)
	}
}

// TestTheServersOwnWorkIsNotInTheWay publishes, as an account that may end nobody's
// sessions but its own, while the server cleans tables of the visible and of the staging database.
func TestTheServersOwnWorkIsNotInTheWay(t *testing.T) {
	t.Parallel()
	standby := testenv.Postgres(t, "autovacuum=on", "autovacuum_naptime=1s", "autovacuum_vacuum_cost_delay=100ms", "autovacuum_vacuum_cost_limit=1", "autovacuum_vacuum_insert_threshold=0", "autovacuum_vacuum_insert_scale_factor=0")
	l := newLab(t, testenv.Postgres(t), standby)
	l.active.Exec(t, "postgres", "CREATE ROLE app; ALTER DATABASE "+l.name+" OWNER TO app")
	standby.Exec(t, "postgres", "CREATE ROLE app; CREATE ROLE drsync LOGIN CREATEDB IN ROLE app")
	l.onActive(t, "SET ROLE app; CREATE TABLE t AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 20000) n")
	e := l.engine(t, func(o *Options) { o.Standby.User = "drsync" })
	l.sync(t, e)
	cleaned := func(database string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for {
			found, err := standby.Query("postgres", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = '"+database+"'")
			must(t, err)
			if len(found) > 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("nothing is cleaned in %s", database)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	must(t, err)
	cleaned(l.name)
	must(t, c.Publish(t.Context()))
	c, err = e.Capture(t.Context(), dbrepl.CaptureOptions{})
	must(t, err)
	cleaned(l.name + newSuffix)
	must(t, c.Discard(t.Context()))
}
