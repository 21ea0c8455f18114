package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

const hostileTable = `
CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('sad', 'o''k', 'happy, "very"', '');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE hostile (
	id bigint GENERATED ALWAYS AS IDENTITY (START WITH 7 INCREMENT BY 3) PRIMARY KEY,
	sm smallint, i int DEFAULT 5, n numeric, n2 numeric(40,10), r real, d double precision, m money, bo boolean,
	c char(10), c1 "char", v varchar(300), t text, nm name, ci citext,
	by bytea, bi bit(9), vb bit varying(70),
	da date, ti time, tz timetz, ts timestamp, tsz timestamptz, iv interval,
	u uuid, j json, jb jsonb, x xml, arr int[], arr2 text[][], en mood, co pair, dom positive,
	ine inet, cid cidr, mac macaddr, mac8 macaddr8, po point, ln line, ls lseg, bx box, pa path, pg polygon, cir circle,
	ir int4range, imr int4multirange, tr tstzrange, tv tsvector, tq tsquery, hs hstore, rc regclass, lsn pg_lsn, ox oid,
	gen text GENERATED ALWAYS AS (upper(v)) STORED, "od""d 'na\me ü
" int
)`

var hostileRows = []string{
	"INSERT INTO hostile DEFAULT VALUES",
	`INSERT INTO hostile (sm, i, n, n2, r, d, m, bo) VALUES
		(-32768, -2147483648, 'NaN', -123456789012345678901234567890.0123456789, '-Infinity', 'Infinity', '-92233720368547758.08', true),
		(32767, 2147483647, 'Infinity', 0.0000000001, 1.17549435e-38, 4.9406564584124654e-324, '92233720368547758.07', false),
		(0, 0, 1e1000, 0, 'NaN', '-0', '0', NULL),
		(NULL, NULL, 0.00000, 1.10, 3.4028235e38, 1.7976931348623157e308, NULL, NULL),
		(1, 1, -0.1, NULL, 16777217, 0.1, 1, true)`,
	`INSERT INTO hostile (c, c1, v, t, nm, ci) VALUES
		('', '', '', '', '', ''), ('NULL', 'N', '\N', '\N', '\.', '\\.'),
		(E'a\tb\nc', E'\\377'::"char", E'\b\f\n\r\t\v\\ \\. \\N', E'\\.\n\\.\n', E'\\', 'ÄÖü'),
		(' lead', ' ', 'trail  ', E'\u0001\u007f\u00a0\u200b\ufeff\U0001F600\U0010FFFF', '日本語', E'a\r\nb'),
		('x', NULL, repeat('é''"\', 75), repeat(E'\\\t\n😀', 100000), repeat('ü', 31), repeat('Z', 1000))`,
	`INSERT INTO hostile (by, bi, vb) VALUES ('', B'000000000', B''), ('\x00', B'111111111', B'1'), ('\x005c2e0a5c4e0dff', B'101010101', B'0'),
		(decode(repeat('00010a095c2709ff', 100000), 'hex'), NULL, NULL)`,
	`INSERT INTO hostile (da, ti, tz, ts, tsz, iv) VALUES
		('infinity', '24:00:00', '23:59:60+15:59', 'infinity', '-infinity', '178000000 years'),
		('4713-01-01 BC', '00:00', '00:00:00.000001-15:59:59', '4713-01-01 00:00:00 BC', '0001-12-31 23:59:59.999999+00 BC', '-1 year +3 days -4 hours'),
		('5874897-12-31', '23:59:59.999999', '12:00+00', '294276-12-31 23:59:59.999999', '2038-01-19 03:14:08+00', '0'),
		('2024-02-29', NULL, NULL, '1582-10-10', '2024-10-27 01:30:00+00', '1 mon -1 day 00:00:00.000001')`,
	`INSERT INTO hostile (u, j, jb, x, arr, arr2, en, co, dom) VALUES
		('00000000-0000-0000-0000-000000000000', '{"a" : 1, "a":2,  "e": "\u00e9\n" }', '{"a": 1.50, "b": [null, "\"", 1e400]}', '<a b="c">&amp;</a>', '{}', '{{a,NULL},{"NULL","{,\"\\"}}', 'o''k', '(1,"a,b""c")', 1),
		('ffffffff-ffff-ffff-ffff-ffffffffffff', 'null', 'null', '', '[-5:-3]={1,NULL,3}', NULL, '', '(,)', NULL),
		(NULL, '"\u0000"', '"\\u0000"', NULL, '{{{1}}}', '{{""}}', 'happy, "very"', '(,"")', 2147483647)`,
	`INSERT INTO hostile (ine, cid, mac, mac8, po, ln, ls, bx, pa, pg, cir, ir, imr, tr, tv, tq, hs, rc, lsn, ox) VALUES
		('2001:db8::ffff/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '(1.5,-1e300)', '{1,-1,0}', '[(0,0),(1e-300,1)]', '((1,1),(0,0))', '[(0,0),(1,1)]', '((0,0),(1,0),(1,1))', '<(0,0),0>',
		'[1,10)', '{[1,3),[7,)}', '[2024-01-01,infinity)', '''a''''b'':1A c:2', '''a'' & !b <-> c', '"k\"ey"=>"v, =>", n=>NULL', 'hostile', 'FFFFFFFF/FFFFFFFF', 4294967295),
		('0.0.0.0', '::/0', NULL, NULL, '(NaN,Infinity)', NULL, NULL, NULL, '((0,0))', NULL, NULL, 'empty', '{}', '(,)', '', '', '', NULL, '0/0', 0)`,
	"UPDATE hostile SET \"od\"\"d 'na\\me ü\n\" = id",
}

// everything returns the rows of all tables of a database as COPY writes them.
func everything(t testing.TB, p *testenv.PostgresServer, database string) string {
	t.Helper()
	c, err := p.Conn(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	tables, err := readTables(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(tables, func(a, b table) int { return strings.Compare(a.String(), b.String()) })
	var all strings.Builder
	for _, table := range tables {
		all.WriteString("TABLE " + table.String() + "\n")
		rows, err := p.Query(database, "SELECT attname FROM pg_attribute WHERE attrelid = '"+table.quoted()+"'::regclass AND attnum > 0 AND NOT attisdropped")
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(strings.Join(rows, ",") + "\n")
		if _, err := c.PgConn().CopyTo(t.Context(), &all, "COPY (SELECT t.* FROM "+table.quoted()+" t ORDER BY (t.*)::text COLLATE \"C\") TO STDOUT"); err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// definitions returns what pg_dump says of a database without its rows.
func definitions(t testing.TB, p *testenv.PostgresServer, database string) string {
	t.Helper()
	out, err := p.Command("pg_dump", "--schema-only", "--host="+p.Socket[:strings.LastIndexByte(p.Socket, '/')], "--port="+p.Socket[strings.LastIndexByte(p.Socket, '.')+1:],
		"--username=postgres", "--no-subscriptions", database).Output()
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) { // has a random key
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// sameDatabases compares definitions and rows of the visible database with the active's.
func (l *lab) sameDatabases(t testing.TB) {
	t.Helper()
	if a, s := definitions(t, l.active, l.name), definitions(t, l.standby, l.name); a != s {
		t.Errorf("the definitions differ:\n%s", firstDifference(a, s))
	}
	if a, s := everything(t, l.active, l.name), everything(t, l.standby, l.name); a != s {
		t.Errorf("the rows differ:\n%s", firstDifference(a, s))
	}
}

func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return "active:  " + as[i] + "\nstandby: " + bs[i]
		}
	}
	return "one is longer"
}

func everyTypeArrivesUnchanged(t *testing.T, l *lab) {
	l.onActive(t, hostileTable)
	for _, s := range hostileRows {
		l.onActive(t, s)
	}
	e := l.engine(t)
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.sameDatabases(t)
	if a, s := l.mustQuery(t, l.active, "SELECT md5(string_agg((h.*)::text, '|' ORDER BY id)) FROM hostile h"), l.mustQuery(t, l.standby, "SELECT md5(string_agg((h.*)::text, '|' ORDER BY id)) FROM hostile h"); !slices.Equal(a, s) {
		t.Errorf("sums %q and %q", a, s)
	}
	comparison, err := e.Compare(t.Context())
	if err != nil || comparison.Different != 0 {
		t.Errorf("compared: %+v, %v", comparison, err)
	}
}

// everyObjectArrives has one of each kind of thing that a database can hold.
func everyObjectArrives(t *testing.T, l *lab) {
	for _, p := range []*testenv.PostgresServer{l.active, l.standby} {
		p.Exec(t, "postgres", "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'arty owner') THEN CREATE ROLE \"arty owner\"; CREATE ROLE reader; END IF; END $$")
	}
	l.onActive(t, objects)
	l.active.Exec(t, "postgres", `ALTER DATABASE `+l.name+` OWNER TO "arty owner"; REVOKE ALL ON DATABASE `+l.name+` FROM PUBLIC; GRANT CONNECT ON DATABASE `+l.name+` TO reader WITH GRANT OPTION;
		ALTER DATABASE `+l.name+` SET search_path = app, public; ALTER DATABASE `+l.name+` SET work_mem = '5MB'; ALTER ROLE reader IN DATABASE `+l.name+` SET plan_cache_mode = 'auto'; ALTER DATABASE `+l.name+` CONNECTION LIMIT 33`)
	l.onActive(t, `SELECT lo_from_bytea(4711, '\x00ff'); SELECT lo_from_bytea(0, decode(repeat('00ff', 100000), 'hex')); SELECT nextval('app.counter'), nextval('app.counter')`)
	e := l.engine(t)
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.sameDatabases(t)
	l.wantAlike(t, e)
	for _, q := range []string{
		"SELECT last_value, is_called FROM app.counter",
		"SELECT last_value, is_called FROM app.orders_id_seq",
		"SELECT loid, pageno, md5(data) FROM pg_largeobject WHERE loid = 4711",
		"SELECT md5(string_agg(data, '' ORDER BY loid, pageno)), count(*) FROM pg_largeobject",
		"SELECT * FROM app.big_orders ORDER BY 1", "SELECT * FROM app.totals ORDER BY 1",
		"SELECT datcollate, datctype, encoding, datconnlimit, datacl, pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()",
		"SELECT coalesce(r.rolname, '-'), array_remove(setconfig, 'default_transaction_read_only=on') FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = setrole JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database() ORDER BY 1",
		"SELECT extname, extversion FROM pg_extension ORDER BY 1", "SHOW search_path", "SHOW work_mem",
	} {
		if a, s := l.mustQuery(t, l.active, q), l.mustQuery(t, l.standby, q); !slices.Equal(a, s) || len(a) == 0 {
			t.Errorf("%s:\nactive:  %q\nstandby: %q", q, a, s)
		}
	}
	if n := c.Counts(); n.Tables != 6 || n.Rows != 105 {
		t.Errorf("counts are %+v", n)
	}
}

const objects = `
CREATE SCHEMA app AUTHORIZATION "arty owner"; COMMENT ON SCHEMA app IS 'it''s';
CREATE EXTENSION pg_trgm SCHEMA app; CREATE EXTENSION btree_gist;
CREATE COLLATION app.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE SEQUENCE app.counter INCREMENT 5 MINVALUE -10 START -10 CYCLE;
CREATE TABLE app.customers (id int PRIMARY KEY, name text COLLATE app.nocase UNIQUE, during tstzrange, EXCLUDE USING gist (id WITH =, during WITH &&));
CREATE TABLE app.orders (id serial, at date NOT NULL, customer int REFERENCES app.customers DEFERRABLE INITIALLY DEFERRED, total numeric CHECK (total >= 0),
	n int DEFAULT nextval('app.counter')) PARTITION BY RANGE (at);
CREATE TABLE app.orders_2024 PARTITION OF app.orders FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE app.orders_rest PARTITION OF app.orders DEFAULT;
CREATE INDEX ON app.orders (at, customer) INCLUDE (total); CREATE INDEX part ON app.customers (lower(name COLLATE "C")) WHERE id > 5;
CREATE INDEX trgm ON app.customers USING gin ((name COLLATE "C") app.gin_trgm_ops);
INSERT INTO app.customers SELECT g, 'Customer ' || g, tstzrange('2024-01-01', '2025-01-01') FROM generate_series(1, 50) g;
INSERT INTO app.orders (at, customer, total) SELECT date '2023-12-01' + g * 10, g, g * 1.5 FROM generate_series(1, 50) g;
CREATE TABLE app.parent (a int); CREATE TABLE app.child (b int) INHERITS (app.parent);
INSERT INTO app.parent VALUES (1); INSERT INTO app.child VALUES (1, 2), (3, 4);
CREATE UNLOGGED TABLE app.locks (category varchar(64), lock_key varchar(255), PRIMARY KEY (category, lock_key)); INSERT INTO app.locks VALUES ('a', 'b'), ('c', 'd');
CREATE FUNCTION app.double(x numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT x * 2';
CREATE FUNCTION app.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = app AS $f$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $f$;
CREATE TRIGGER audit BEFORE INSERT ON app.customers FOR EACH ROW EXECUTE FUNCTION app.audit();
CREATE PROCEDURE app.nothing() LANGUAGE sql AS '';
CREATE AGGREGATE app.mul(numeric) (SFUNC = numeric_mul, STYPE = numeric);
CREATE OPERATOR app.@@@ (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = numeric_mul);
CREATE VIEW app.big_orders AS SELECT id, app.double(total) d FROM app.orders WHERE total > 50;
CREATE MATERIALIZED VIEW app.totals AS SELECT customer, sum(total) FROM app.orders GROUP BY 1; CREATE UNIQUE INDEX ON app.totals (customer);
CREATE RULE quiet AS ON DELETE TO app.big_orders DO INSTEAD NOTHING;
ALTER TABLE app.locks ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON app.locks TO reader USING (category = 'a');
CREATE STATISTICS app.st ON at, customer FROM app.orders_2024;
CREATE PUBLICATION pub FOR TABLE app.customers;
CREATE FUNCTION app.evented() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER ev ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION app.evented();
ALTER TABLE app.customers OWNER TO "arty owner"; GRANT SELECT (id, name), UPDATE (name) ON app.customers TO reader WITH GRANT OPTION; GRANT USAGE ON SCHEMA app TO reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO reader;
ALTER TABLE app.customers ALTER COLUMN name SET STATISTICS 500, ALTER COLUMN name SET STORAGE EXTERNAL; ALTER TABLE app.customers SET (fillfactor = 70); CLUSTER app.customers USING customers_pkey;
COMMENT ON COLUMN app.customers.name IS 'ünï "quoted"';
`
