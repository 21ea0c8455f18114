package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// compareNamesTheDefinition changes definitions on the standby, one after the
// other, and finds each by its name.
func compareNamesTheDefinition(t *testing.T, l *lab) {
	l.onActive(t, `CREATE SCHEMA app; CREATE DOMAIN app.few AS int CHECK (VALUE > 0); CREATE TYPE app.mood AS ENUM ('sad', 'ok');
		CREATE TABLE app.a (id int PRIMARY KEY, m app.mood, x text COLLATE "C" DEFAULT 'é'); INSERT INTO app.a VALUES (1, 'ok'); CREATE TABLE app.gone (n int); ALTER TABLE app.gone ADD was int; ALTER TABLE app.gone DROP n;
		CREATE TABLE app.empty (n app.few NOT NULL, m int GENERATED ALWAYS AS (n * 2) STORED, i bigint GENERATED ALWAYS AS IDENTITY, CONSTRAINT big CHECK (m > 3)); CREATE INDEX one ON app.empty (m) WHERE m > 7;
		CREATE TABLE app.p (n int PRIMARY KEY, a int REFERENCES app.a) PARTITION BY RANGE (n); CREATE TABLE app.p1 PARTITION OF app.p FOR VALUES FROM (1) TO (9); CREATE INDEX ON app.p (a);
		CREATE FUNCTION app.f(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1'; CREATE FUNCTION app.n(app.mood) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION app.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
		CREATE AGGREGATE app.most(int) (sfunc = int4larger, stype = int);
		CREATE TRIGGER t BEFORE INSERT ON app.a FOR EACH ROW EXECUTE FUNCTION app.t(); CREATE TRIGGER s AFTER INSERT ON app.p FOR EACH ROW EXECUTE FUNCTION app.t();
		CREATE VIEW app.v AS SELECT id FROM app.a; CREATE MATERIALIZED VIEW app.mv AS SELECT 1 AS one; CREATE RULE r AS ON DELETE TO app.v DO INSTEAD NOTHING;
		CREATE SEQUENCE app.up; CREATE SEQUENCE app.down INCREMENT -3 MAXVALUE 100 MINVALUE -100 CYCLE CACHE 5; SELECT nextval('app.up'), nextval('app.up'), nextval('app.down'), nextval('app.down'); CREATE SEQUENCE app.unused;
		ALTER TABLE app.a ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON app.a USING (id > 0); CREATE STATISTICS app.st ON id, m FROM app.a;
		GRANT SELECT ON app.v TO PUBLIC; REVOKE SELECT ON app.v FROM PUBLIC;
		CREATE OPERATOR app.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq, COMMUTATOR = OPERATOR(app.===)); CREATE CAST (app.mood AS int) WITH FUNCTION app.n(app.mood); ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC;
		CREATE OPERATOR CLASS app.oc FOR TYPE int USING hash AS OPERATOR 1 app.===, FUNCTION 1 hashint4(int); CREATE COLLATION app.c (LOCALE = 'C'); CREATE TEXT SEARCH DICTIONARY app.d (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION app.ts (COPY = simple);
		CREATE PUBLICATION p FOR TABLE app.a WITH (publish = 'insert'); CREATE FOREIGN DATA WRAPPER w; CREATE SERVER f FOREIGN DATA WRAPPER w OPTIONS (host 'x'); CREATE USER MAPPING FOR PUBLIC SERVER f; CREATE EXTENSION hstore;
		COMMENT ON TABLE app.a IS 'the a'; COMMENT ON COLUMN app.a.x IS 'the x'; COMMENT ON SCHEMA public IS 'of all'; COMMENT ON CONSTRAINT big ON app.empty IS 'big'`)
	e := l.engine(t)
	l.sync(t, e)
	l.wantAlike(t, e)
	for _, c := range []struct{ change, back, want string }{
		{"SELECT setval('app.up', 1)", "SELECT setval('app.up', 2)", "value of sequence app.up: behind the active: 1, on the active 2"},
		{"SELECT setval('app.up', 9)", "", ""},
		{"ALTER SEQUENCE app.down RESTART WITH 50", "SELECT setval('app.down', -10)", "value of sequence app.down: behind the active"},
		{"ALTER SEQUENCE app.up INCREMENT 7", "ALTER SEQUENCE app.up INCREMENT 1", "sequence app.up: defined differently"},
		{"CREATE OR REPLACE FUNCTION app.f(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 2'", "CREATE OR REPLACE FUNCTION app.f(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1'", "function app.f(integer): defined differently"},
		{"CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION app.f()", "function app.f(): only the standby has it"},
		{"ALTER POLICY own ON app.a USING (id > 1)", "ALTER POLICY own ON app.a USING (id > 0)", "policy app.a.own: defined differently"},
		{"DROP POLICY own ON app.a", "CREATE POLICY own ON app.a USING (id > 0)", "policy app.a.own: only the active has it"},
		{"ALTER TABLE app.empty DROP CONSTRAINT big", "ALTER TABLE app.empty ADD CONSTRAINT big CHECK (m > 3); COMMENT ON CONSTRAINT big ON app.empty IS 'big'", "constraint app.empty.big: only the active has it"},
		{"ALTER TABLE app.p DROP CONSTRAINT p_pkey", "ALTER TABLE app.p ADD PRIMARY KEY (n)", "constraint app.p.p_pkey: only the active has it"},
		{"ALTER TABLE app.empty ADD zz int", "ALTER TABLE app.empty DROP zz", "column app.empty.zz: only the standby has it"},
		{"ALTER TABLE app.gone ALTER was TYPE bigint", "ALTER TABLE app.gone ALTER was TYPE int", "column app.gone.was: defined differently: bigint, on the active integer"},
		{"ALTER TABLE app.a ALTER x SET DEFAULT 'e'", "ALTER TABLE app.a ALTER x SET DEFAULT 'é'", "column app.a.x: defined differently"},
		{"CREATE VIEW app.new AS SELECT 1", "DROP VIEW app.new", "view app.new: only the standby has it"},
		{"CREATE OR REPLACE VIEW app.v AS SELECT id + 0 AS id FROM app.a", "CREATE OR REPLACE VIEW app.v AS SELECT id FROM app.a", "view app.v: defined differently"},
		{"ALTER TABLE app.a DISABLE TRIGGER t", "ALTER TABLE app.a ENABLE TRIGGER t", "trigger app.a.t: defined differently"},
		{"DROP INDEX app.one", "CREATE INDEX one ON app.empty (m) WHERE m > 7", "index app.empty.one: only the active has it"},
		{"ALTER TYPE app.mood RENAME VALUE 'sad' TO 'bad'", "ALTER TYPE app.mood RENAME VALUE 'bad' TO 'sad'", "type app.mood: defined differently"},
		{"GRANT SELECT ON app.v TO PUBLIC", "REVOKE SELECT ON app.v FROM PUBLIC", "view app.v: defined differently"},
		{"DROP RULE r ON app.v", "CREATE RULE r AS ON DELETE TO app.v DO INSTEAD NOTHING", "rule app.v.r: only the active has it"},
		{"DROP STATISTICS app.st", "CREATE STATISTICS app.st ON id, m FROM app.a", "statistics app.st: only the active has it"},
		{"CREATE SCHEMA other", "DROP SCHEMA other", "schema other: only the standby has it"},
		{"ALTER OPERATOR app.=== (int, int) SET (RESTRICT = eqsel)", "ALTER OPERATOR app.=== (int, int) SET (RESTRICT = NONE)", "operator app.===(integer,integer): defined differently"},
		{"CREATE OPERATOR app.!== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4ne)", "DROP OPERATOR app.!== (int, int)", "operator app.!==(integer,integer): only the standby has it"},
		{"ALTER OPERATOR FAMILY app.oc USING hash ADD FUNCTION 2 hashint4extended(int, bigint)", "ALTER OPERATOR FAMILY app.oc USING hash DROP FUNCTION 2 (int, int)", "operator family app.oc using hash: defined differently"},
		{"DROP CAST (app.mood AS int)", "CREATE CAST (app.mood AS int) WITH FUNCTION app.n(app.mood)", "cast from app.mood to integer: only the active has it"},
		{"DROP COLLATION app.c", "CREATE COLLATION app.c (LOCALE = 'C')", "collation app.c: only the active has it"},
		{"ALTER TEXT SEARCH DICTIONARY app.d (ACCEPT = false)", "ALTER TEXT SEARCH DICTIONARY app.d (ACCEPT)", "text search dictionary app.d: defined differently"},
		{"ALTER TEXT SEARCH CONFIGURATION app.ts ALTER MAPPING FOR word WITH app.d", "ALTER TEXT SEARCH CONFIGURATION app.ts ALTER MAPPING FOR word WITH simple", "text search configuration app.ts: defined differently"},
		{"ALTER DEFAULT PRIVILEGES IN SCHEMA app REVOKE SELECT ON TABLES FROM PUBLIC", "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC", "default rights of postgres in app on tables: only the active has it"},
		{"ALTER PUBLICATION p ADD TABLE app.empty", "ALTER PUBLICATION p DROP TABLE app.empty", "publication p: defined differently"},
		{"ALTER SERVER f OPTIONS (SET host 'y')", "ALTER SERVER f OPTIONS (SET host 'x')", "foreign server f: defined differently"},
		{"DROP USER MAPPING FOR PUBLIC SERVER f", "CREATE USER MAPPING FOR PUBLIC SERVER f", "user mapping of f for public: only the active has it"},
		{"COMMENT ON TABLE app.a IS 'that a'", "COMMENT ON TABLE app.a IS 'the a'", "comment on table app.a: defined differently: that a, on the active the a"},
		{"COMMENT ON COLUMN app.a.x IS NULL", "COMMENT ON COLUMN app.a.x IS 'the x'", "comment on table column app.a.x: only the active has it"},
		{"COMMENT ON SCHEMA public IS 'of few'", "COMMENT ON SCHEMA public IS 'of all'", "comment on schema public: defined differently"},
		{"DROP VIEW app.v", "", "view app.v: only the active has it"},
	} {
		l.standby.Exec(t, l.name, "BEGIN READ WRITE; "+c.change+"; COMMIT")
		if got := l.compared(t, e); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s, want %s", c.change, got, c.want)
		}
		if c.back != "" {
			l.standby.Exec(t, l.name, "BEGIN READ WRITE; "+c.back+"; COMMIT")
			l.wantAlike(t, e)
		}
	}
}

// captureVerifiesDefinitions alters the copy before it is compared: only a capture
// that is to be verified notices, and what it notices is not published.
func captureVerifiesDefinitions(t *testing.T, l *lab) {
	l.onActive(t, `CREATE TABLE a (id int PRIMARY KEY, x text DEFAULT 'é'); INSERT INTO a VALUES (1); CREATE INDEX one ON a (x); CREATE VIEW v AS SELECT id FROM a;
		CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE SEQUENCE up; SELECT nextval('up'), nextval('up'); CREATE POLICY own ON a USING (id > 0); GRANT SELECT ON a TO PUBLIC`)
	e := l.engine(t)
	for _, c := range []struct{ change, want string }{
		{"DROP INDEX one", "index public.a.one: only the active has it"},
		{"ALTER TABLE a ALTER x SET DEFAULT 'e'", "column public.a.x: defined differently"},
		{"CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'", "function public.f(): defined differently"},
		{"DROP VIEW v", "view public.v: only the active has it"},
		{"SELECT setval('up', 1)", "value of sequence public.up: behind the active"},
		{"REVOKE SELECT ON a FROM PUBLIC", "table public.a: defined differently"},
	} {
		e.during = func(what string) {
			switch what {
			case "loaded":
				l.standby.Exec(t, l.name+newSuffix, "BEGIN READ WRITE; "+c.change+"; COMMIT")
			case "snapshot": // which is no difference
				l.onActive(t, "SELECT nextval('up')")
			}
		}
		_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
		if !errors.Is(err, dbrepl.ErrDiffers) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", c.change, err, c.want)
		}
		l.nothingLeft(t)
		l.sync(t, e)
	}
	e.during = nil
	captured, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	must(t, err)
	must(t, captured.Publish(t.Context()))
	l.wantAlike(t, e)
}

// compared is what differs, a line each.
func (l *lab) compared(t testing.TB, e *Engine) string {
	t.Helper()
	c, err := e.Compare(t.Context())
	must(t, err)
	var all []string
	for _, d := range c.Differences {
		all = append(all, d.String())
	}
	return strings.Join(all, "\n")
}

func (l *lab) wantAlike(t testing.TB, e *Engine) {
	t.Helper()
	if got := l.compared(t, e); got != "" {
		t.Errorf("differs: %s", got)
	}
}

// aFunctionWithoutSchemaIsNamed has a constraint whose function finds its table
// by the search_path only, which a dump is loaded without.
func aFunctionWithoutSchemaIsNamed(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t2 (id int); INSERT INTO t2 VALUES (1); CREATE FUNCTION lookup(int) RETURNS bool LANGUAGE sql AS 'SELECT exists(SELECT FROM t2 WHERE id = $1)'; CREATE TABLE t1 (id int CHECK (lookup(id))); INSERT INTO t1 VALUES (1)")
	e := l.engine(t)
	_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err == nil || !strings.Contains(err.Error(), `relation "t2" does not exist`) || !strings.Contains(hint.Of(err), "ALTER FUNCTION … SET search_path = public") {
		t.Errorf("%v\n%s", err, hint.Of(err))
	}
	l.onActive(t, "ALTER FUNCTION lookup(int) SET search_path = public, pg_temp")
	if _, err = e.Capture(t.Context(), dbrepl.CaptureOptions{}); err != nil && !strings.Contains(hint.Of(err), "NOT VALID") { // which table comes first is open
		t.Errorf("%v\n%s", err, hint.Of(err))
	}
	l.onActive(t, "ALTER TABLE t1 DROP CONSTRAINT t1_id_check, ADD CONSTRAINT t1_id_check CHECK (lookup(id)) NOT VALID")
	l.sync(t, e)
	l.wantAlike(t, e)
}

// aDatabaseWithoutPublic differs by nothing but that schema, which is there again.
func aDatabaseWithoutPublic(t *testing.T, l *lab) {
	l.onActive(t, "DROP SCHEMA public; CREATE SCHEMA s; CREATE TABLE s.t (n int)")
	e := l.engine(t)
	l.sync(t, e)
	l.wantAlike(t, e)
	l.standby.Exec(t, l.name, "BEGIN READ WRITE; CREATE VIEW public.v AS SELECT 1; COMMIT")
	if got := l.compared(t, e); got != "view public.v: only the standby has it" {
		t.Errorf("differs: %s", got)
	}
}
