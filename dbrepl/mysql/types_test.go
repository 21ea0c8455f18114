package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

const hostileTable = `CREATE TABLE hostile (
	id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
	ti TINYINT, si SMALLINT UNSIGNED ZEROFILL, mi MEDIUMINT, bi BIGINT, bu BIGINT UNSIGNED,
	de DECIMAL(65,30), fl FLOAT, f2 FLOAT(7,4), dou DOUBLE, d2 DOUBLE(12,3),
	b1 BIT(1), b64 BIT(64), y YEAR, da DATE, tm TIME(6), dt DATETIME(6), ts TIMESTAMP(6) NULL,
	ch CHAR(10), vc VARCHAR(300), l1 VARCHAR(300) CHARACTER SET latin1, u4 TEXT CHARACTER SET utf8mb4,
	sj VARCHAR(50) CHARACTER SET sjis, u16 VARCHAR(20) CHARACTER SET utf16, uc CHAR(8) CHARACTER SET ucs2, big TEXT CHARACTER SET big5,
	asci VARCHAR(20) CHARACTER SET ascii,
	bn BINARY(8), vb VARBINARY(300), bl LONGBLOB, mt MEDIUMTEXT,
	en ENUM('a','b','é',''), se SET('x','y','z'), ens ENUM('ア','b') CHARACTER SET sjis, ses SET('ア','b') CHARACTER SET sjis,
	js JSON, ge GEOMETRY, pt POINT, i4 INET4, i6 INET6, uu UUID,
	gv INT AS (ti + 1) VIRTUAL, gs BIGINT AS (ti * 2) STORED, inv INT INVISIBLE DEFAULT 7,
	` + "`od``d 'na\"me\\\\`" + ` INT, cr TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
) ENGINE=InnoDB COMMENT='it''s ; a AUTO_INCREMENT=5 test'`

var hostileRows = []string{
	"INSERT INTO hostile () VALUES ()",
	"INSERT INTO hostile (id, vc) VALUES (0, 'zero')",
	`INSERT INTO hostile (id, ti, si, mi, bi, bu, de, fl, f2, dou, d2, b1, b64, y, da, tm, dt, ts) VALUES
		(-5, -128, 7, -8388608, -9223372036854775808, 18446744073709551615, 12345678901234567890123456789012345.123456789012345678901234567890,
		3.14159274, 123.4567, 1.7976931348623157e308, 12345678.125, b'1', 0xFFFFFFFFFFFFFFFE, 0, '0000-00-00', '-838:59:59.000001', '2024-02-30 23:59:59.999999', '1970-01-01 00:00:01.000001'),
		(10, 127, 65535, 8388607, 9223372036854775807, 0, -0.000000000000000000000000000001,
		-1.17549435e-38, -999.9999, 5e-324, -0.001, b'0', 1, 2155, '9999-12-31', '838:59:59.999999', '0000-00-00 00:00:00', '2038-01-19 03:14:07.999999'),
		(11, 0, 0, 0, 0, 1, 0, 16777217, 0.0001, 0.1, 0, b'0', 0, 1901, '2024-02-29', '00:00:00.000001', '1000-01-01 00:00:00', '2024-03-31 02:30:00'),
		(12, 1, 1, 1, 1, 9007199254740993, 1, 0.1, 1e-4, -1e-300, 1, b'1', 0x8000000000000001, 1970, '1000-01-01', '-00:00:01', NULL, '0000-00-00 00:00:00'),
		(13, NULL, NULL, NULL, NULL, NULL, NULL, -0e0, -0e0, -0e0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)`,
	`INSERT INTO hostile (id, ch, vc, l1, u4, sj, u16, uc, big, asci) VALUES
		(20, '', '', '', '', '', '', '', '', ''),
		(21, 'NULL', '\\N', '\\N', '\\', '\\', '\\', '\\', '\\', '\\N'),
		(22, 'a\tb\nc', '\0\0', '\0\t\r\n\Z\\\'\"\b', '\0\t\r\n\Z\\\'\"\b%_', 'a\tb', 'a\nb', 'a\0b', '\t', '\t\n\0\\'),
		(23, ' lead', 'trail  ', 'x   ', '  ', ' ', ' ', 'é', ' ', ' '),
		(24, 'ÄÖÜß', '日本語', 'ÀÿŠ€', '😀 👨‍👩‍👧 \\😀', _utf8mb4'表ソ能ア', _utf8mb4'😀é', _utf8mb4'漢字', _utf8mb4'許功蓋', '~')`,
	"INSERT INTO hostile (id, l1) SELECT 30, GROUP_CONCAT(CHAR(n) ORDER BY n SEPARATOR '') FROM (SELECT 16*a.n+b.n n FROM digits a, digits b) x",
	"INSERT INTO hostile (id, vb, bl) SELECT 31, g, REPEAT(g, 20) FROM (SELECT GROUP_CONCAT(CHAR(n) ORDER BY n SEPARATOR '') g FROM (SELECT 16*a.n+b.n n FROM digits a, digits b) x) y",
	`INSERT INTO hostile (id, bn, vb, bl) VALUES (32, '', '', ''), (33, 0x00, 0x5C4E, 0x0000), (34, 0x0909090909, 0x0A0A0A, 0xFFFEFD), (35, 0x2020, 0x2020, 0xC3A9)`,
	"INSERT INTO hostile (id, sj, u16) VALUES (25, UNHEX('815F5C7E815F'), UNHEX('D83DDE00'))", // two characters that Unicode takes for one
	`INSERT INTO hostile (id, en, se, ens, ses) VALUES (40, 'a', '', 'b', ''), (41, 'é', 'x,z', _utf8mb4'ア', _utf8mb4'ア,b'), (42, '', 'y', 'b', 'b')`,
	`INSERT INTO hostile (id, en, ens) VALUES (43, 99, 99)`,
	`INSERT INTO hostile (id, js, ge, pt, i4, i6, uu) VALUES
		(50, '{"a": "\\u00e9\\n\\t", "b": [1, 2.50, null, "😀"]}', ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 10,0 0))', 4326), POINT(1.5, -2.25), '255.0.9.10', '2001:db8::ffff', '123e4567-e89b-12d3-a456-426655440000'),
		(51, '[]', ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))'), NULL, '0.0.0.0', '::', '00000000-0000-0000-0000-000000000000')`,
	"INSERT INTO hostile (id, ti, inv, `od``d 'na\"me\\\\`, mt) VALUES (60, 5, 8, 9, REPEAT('é\\\\\\n', 100000))",
	`INSERT INTO hostile (id, bl) SELECT 61, REPEAT(UNHEX('00010A095C2709FF'), 1000000)`,
}

func fillHostile(t testing.TB, l *lab) {
	t.Helper()
	mode := "SET NAMES utf8mb4; SET time_zone='+00:00'; SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'; "
	l.onActive(t, "CREATE TABLE digits (n INT PRIMARY KEY); INSERT INTO digits SELECT seq FROM seq_0_to_15")
	own := l.own()
	l.onActive(t, mode+own(hostileTable))
	for _, s := range hostileRows {
		l.onActive(t, mode+own(s))
	}
	// The same without what has to be converted from UTF-8: LOAD DATA takes its bytes as they are.
	of := " FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'hostile' AND "
	columns := l.mustQuery(t, l.active, "SELECT GROUP_CONCAT('`', REPLACE(COLUMN_NAME, '`', '``'), '`')"+of+"EXTRA NOT LIKE '%GENERATED'")[0]
	converted := l.mustQuery(t, l.active, "SELECT GROUP_CONCAT('DROP ', COLUMN_NAME)"+of+"COLUMN_NAME IN ('l1', 'js', 'i4', 'i6', 'uu')")[0]
	l.onActive(t, mode+"CREATE TABLE unconverted LIKE hostile; INSERT INTO unconverted ("+columns+") SELECT "+columns+" FROM hostile; ALTER TABLE unconverted "+converted)
}

// own takes out of the statements about the table what only MariaDB has. A value
// of many megabytes is smaller on MySQL, where it would take a minute to load.
func (l *lab) own() func(string) string {
	if l.active.IsMariaDB() {
		return func(s string) string { return s }
	}
	return strings.NewReplacer(
		" i4 INET4, i6 INET6, uu UUID,", "", " INVISIBLE", "",
		", i4, i6, uu)", ")", ", '255.0.9.10', '2001:db8::ffff', '123e4567-e89b-12d3-a456-426655440000')", ")",
		", NULL, '0.0.0.0', '::', '00000000-0000-0000-0000-000000000000')", ", NULL)",
		"REPEAT(UNHEX('00010A095C2709FF'), 1000000)", "REPEAT(UNHEX('00010A095C2709FF'), 200000)").Replace
}

// hexOf selects every column of a table in a form that shows each stored byte.
func hexOf(t testing.TB, l *lab, table string) string {
	t.Helper()
	var exprs []string
	for _, c := range l.mustQuery(t, l.active, "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '"+table+"' ORDER BY ORDINAL_POSITION") {
		i := strings.LastIndexByte(c, '|')
		name, kind := quote(c[:i]), c[i+1:]
		switch kind {
		case "float", "double", "year":
			exprs = append(exprs, name+"+0e0")
		case "bit", "bigint", "decimal":
			exprs = append(exprs, name+"+0")
		case "enum", "set":
			exprs = append(exprs, name+"+0", "HEX("+name+")")
		default:
			exprs = append(exprs, "HEX("+name+")")
		}
	}
	return "SELECT " + strings.Join(exprs, ",") + " FROM " + quote(table) + " ORDER BY 1"
}

// sameRows checks that a table is the same on both sides, byte by byte.
func (l *lab) sameRows(t testing.TB, table string) {
	t.Helper()
	q := hexOf(t, l, table)
	want, got := l.mustQuery(t, l.active, q), l.mustQuery(t, l.standby, q)
	if len(want) != len(got) || len(want) == 0 {
		t.Fatalf("table %s has %d rows, the active %d", table, len(got), len(want))
	}
	for i := range want {
		w, g := strings.Split(want[i], "|"), strings.Split(got[i], "|")
		for k := range w {
			if w[k] != g[k] {
				t.Errorf("table %s, row %.30s, column %d: %.100s, the active has %.100s", table, w[0], k+1, g[k], w[k])
			}
		}
	}
}

func everyTypeArrivesUnchanged(t *testing.T, l *lab) {
	active, standby := l.active, l.standby
	for _, way := range []string{"load", "insert"} {
		t.Run(way, func(t *testing.T) {
			l := newLab(t, active, standby)
			fillHostile(t, l)
			e := l.engine(t)
			if way == "insert" {
				e.neverLocal = true
			}
			c := l.sync(t, e)
			l.sameRows(t, "hostile")
			l.sameRows(t, "unconverted")
			for _, m := range []*testenv.MariaDBServer{active, standby} {
				if n := l.mustQuery(t, m, "SELECT COUNT(*), MIN(id), SUM(id=0) FROM hostile"); n[0] != "27|-5|1" {
					t.Errorf("the test itself is not what it was: %s", n)
				}
			}
			ddl := "SHOW CREATE TABLE hostile"
			if got, want := l.mustQuery(t, standby, ddl), l.mustQuery(t, active, ddl); !slices.Equal(got, want) {
				t.Errorf("definition\n%s\nwant\n%s", got, want)
			}
			if n := c.Counts(); n.Rows != 27+27+16 || n.Bytes < 3_000_000 {
				t.Errorf("counts %+v", n)
			}
		})
	}
}

// greatBlob sends a value that is longer than a packet once it is encoded.
func greatBlob(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE b (id INT PRIMARY KEY, v LONGBLOB) ENGINE=InnoDB; INSERT INTO b SELECT 1, REPEAT(UNHEX('00010A095C2709FF'), @@max_allowed_packet*0.9/8)")
	e := l.engine(t)
	l.sync(t, e)
	q := "SELECT LENGTH(v), SHA1(v) FROM b"
	if got, want := l.mustQuery(t, l.standby, q), l.mustQuery(t, l.active, q); !slices.Equal(got, want) {
		t.Errorf("the standby has %s, want %s", got, want)
	}
	e.neverLocal = true
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "max_allowed_packet") {
		t.Errorf("inserted a row that is longer than a packet: %v", err)
	}
}

func TestTypesThatAreNotKnownAreRefused(t *testing.T) {
	if _, err := (column{name: "v", kind: "vector"}).transport(); err == nil {
		t.Error("a column of an unknown type has a transport")
	}
}

// valuesThatDoNotFitStopTheCapture gives the standby a table that cannot
// take every row, as a definition that differs would.
func valuesThatDoNotFitStopTheCapture(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT NOT NULL, s VARCHAR(20)) ENGINE=InnoDB; INSERT INTO t VALUES (1, 'one'), (2, 'twotwotwo'), (2, 'three')")
	for _, test := range []struct{ name, ddl, want string }{
		{"duplicate", "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, s VARCHAR(20)) ENGINE=InnoDB", "Duplicate entry '2'"},
		{"too long", "CREATE TABLE t (id INT NOT NULL, s VARCHAR(5)) ENGINE=InnoDB", "truncated"},
		{"not a number", "CREATE TABLE t (id INT NOT NULL, s INT) ENGINE=InnoDB", "Incorrect integer value"},
		{"no such column", "CREATE TABLE t (id INT NOT NULL) ENGINE=InnoDB", "Unknown column"},
		{"not null", "CREATE TABLE t (id INT NOT NULL, s VARCHAR(20), x INT NOT NULL CHECK (x > 0)) ENGINE=InnoDB", ""},
	} {
		for _, local := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s local=%v", test.name, local), func(t *testing.T) {
				l.standby.Exec(t, "", "CREATE OR REPLACE DATABASE "+l.name)
				l.onStandby(t, test.ddl)
				err := loadOnce(t, l, local)
				if test.want == "" {
					return // columns that the active does not have are not the loader's business
				}
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("loaded with %v, want %q", err, test.want)
				}
				if n, err := query(l.standby.DB(t, l.name), "SELECT COUNT(*) FROM t"); err != nil || n[0] != "0" {
					t.Errorf("%s rows stayed, %v", n, err)
				}
			})
		}
	}
}

// loadOnce loads the active's table t into the standby's.
func loadOnce(t testing.TB, l *lab, local bool) error {
	t.Helper()
	e := l.engine(t)
	ctx := t.Context()
	from, err := e.active.session(ctx, l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := e.standby.session(ctx, l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	tables, err := readTables(ctx, from, l.name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := planOf(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	rows, err := from.QueryContext(ctx, p.query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	ld := &loader{server: e.standby, conn: to, local: local, packet: 1 << 20}
	return ld.load(ctx, p, newRowSource(newSelected(rows, len(p.send)), p, func(int64, int64) {}))
}

// rowsSentBeforeAnErrorDoNotStay breaks the reading side in the middle: the
// server would keep the rows that it has.
func rowsSentBeforeAnErrorDoNotStay(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, pad CHAR(200)) ENGINE=InnoDB; INSERT INTO t SELECT seq, 'x' FROM seq_1_to_200000")
	l.standby.Exec(t, "", "CREATE DATABASE "+l.name)
	l.onStandby(t, "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, pad CHAR(200)) ENGINE=InnoDB")
	e := l.engine(t)
	ctx := t.Context()
	from, err := e.active.session(ctx, l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := e.standby.session(ctx, l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	p, err := planOf(table{name: "t", columns: []column{{name: "id", kind: "int"}, {name: "pad", kind: "char", charset: "latin1"}}})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := from.QueryContext(ctx, p.query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	src := newRowSource(newSelected(rows, len(p.send)), p, nil)
	broken := errors.New("the line was cut")
	src.moved = func(int64, int64) {
		if src.count > 50000 {
			src.err = broken
		}
	}
	ld := &loader{server: e.standby, conn: to, local: true, packet: 1 << 20}
	if err := ld.load(ctx, p, src); !errors.Is(err, broken) {
		t.Fatalf("load: %v", err)
	}
	if n, err := query(l.standby.DB(t, l.name), "SELECT COUNT(*) FROM t"); err != nil || n[0] != "0" {
		t.Errorf("%s rows stayed, %v", n, err)
	}
}

// tornTransfers reads the sum of accounts between which money moves: any
// capture that mixes two moments shows another sum.
func tornTransfers(t *testing.T, l *lab) {
	const accounts, each = 2000, 100
	l.onActive(t, fmt.Sprintf(`CREATE TABLE a (id INT PRIMARY KEY, n BIGINT NOT NULL) ENGINE=InnoDB; INSERT INTO a SELECT seq, %d FROM seq_1_to_%d;
		CREATE TABLE b (id INT PRIMARY KEY, n BIGINT NOT NULL) ENGINE=InnoDB; INSERT INTO b SELECT * FROM a;
		CREATE TABLE log (i BIGINT AUTO_INCREMENT PRIMARY KEY, amount INT, at TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB`, each, accounts))
	stop, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for w := range 2 {
		db := l.active.DB(t, l.name)
		go func() {
			for i := 0; stop.Err() == nil; i++ {
				if _, err := db.Exec(fmt.Sprintf(`SET time_zone='+00:00'; START TRANSACTION; UPDATE a SET n=n-1 WHERE id=%d; UPDATE b SET n=n+1 WHERE id=%d; INSERT INTO log (amount) VALUES (1); COMMIT`,
					(i*7+w)%accounts+1, (i*13+w)%accounts+1)); err != nil && !strings.Contains(err.Error(), "Deadlock") {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	e := l.engine(t)
	moved := 0
	for range 6 {
		c := l.sync(t, e)
		got := l.mustQuery(t, l.standby, "SELECT (SELECT SUM(n) FROM a) + (SELECT SUM(n) FROM b), (SELECT SUM(n) FROM b) - (SELECT COUNT(*) FROM log), (SELECT COUNT(*) FROM log)")
		want := fmt.Sprintf("%d|%d|", 2*accounts*each, accounts*each)
		if !strings.HasPrefix(got[0], want) {
			t.Fatalf("the standby holds %s, want %s", got, want)
		}
		at := c.Point().Time.Format("2006-01-02 15:04:05.000000")
		// Nothing that was committed by T is missing; what began later is not there.
		late := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM log WHERE at > TIMESTAMPADD(SECOND, 1, '"+at+"')")
		if late[0] != "0" {
			t.Errorf("%s transfers on the standby are later than the snapshot's time %s", late, at)
		}
		if c.Point().Position == "" {
			t.Error("the point has no position")
		}
		if got[0] != want+"0" {
			moved++
		}
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if moved == 0 {
		t.Error("nothing was transferred during the captures")
	}
}

var _ dbrepl.Captured = (*captured)(nil)
