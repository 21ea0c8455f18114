package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// compare runs Compare in small ranges.
func (l *lab) compare(t testing.TB, adjust ...func(*Engine)) dbrepl.Comparison {
	t.Helper()
	e := l.engine(t)
	defer e.Close() // a test compares many times
	e.chunk = 150
	for _, a := range adjust {
		a(e)
	}
	c, err := e.Compare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c.Different < int64(len(c.Differences)) || (c.Different == 0) != (len(c.Differences) == 0) || c.Active.Time.IsZero() {
		t.Errorf("inconsistent: %+v", c)
	}
	return c
}

func TestCompare(t *testing.T) { everywhere(t, compare) }

func compare(t *testing.T, p product) {
	active, standby := p.withoutGTID(t), p.withoutGTID(t)
	for name, run := range map[string]func(t *testing.T, l *lab){
		"EveryType":               everyTypeIsCompared,
		"WhatDiffersIsNamed":      whatDiffersIsNamed,
		"SmallestDifferences":     smallestDifferencesAreSeen,
		"Definitions":             differentDefinitionsAreNamed,
		"RandomTables":            randomTablesAreCompared,
		"ManyDifferences":         manyDifferencesAreBounded,
		"AlteredMeanwhile":        comparisonOfAlteredTables,
		"Cancelled":               comparisonIsCancelled,
		"NothingToCompare":        nothingToCompare,
		"VerifiedCapture":         capturesAreVerified,
		"Unreadable":              unreadableDefinitionsAreTold,
		"ComparedWhileMoneyMoves": comparedWhileMoneyMoves,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, newLab(t, active, standby))
		})
	}
}

func everyTypeIsCompared(t *testing.T, l *lab) {
	fillHostile(t, l)
	l.onActive(t, "CREATE TABLE bare AS SELECT seq % 7 a, NULL b FROM seq_1_to_1000; CREATE TABLE none (id INT PRIMARY KEY); CREATE SEQUENCE s")
	l.onActive(t, "CREATE VIEW v AS SELECT * FROM bare; CREATE TRIGGER tr BEFORE INSERT ON bare FOR EACH ROW SET NEW.b = NULL; CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM bare")
	l.onActive(t, "CREATE TABLE cut (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2; INSERT INTO cut VALUES (1), (2)")
	l.onActive(t, "CREATE TABLE gone (x INT); CREATE VIEW broken AS SELECT * FROM gone; DROP TABLE gone")
	e := l.engine(t)
	c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, chunk := range []int64{1, 5, 1000} {
		r := l.compare(t, func(e *Engine) { e.chunk = chunk })
		if r.Different != 0 || r.Tables != 6 || r.Rows != 2*27+16+1000+2 {
			t.Errorf("what is the same compares as %+v", r)
		}
	}
	// Every column of every row that has a value counts.
	columns := l.mustQuery(t, l.active, "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'hostile' AND COALESCE(GENERATION_EXPRESSION, '') = '' AND COLUMN_NAME <> 'id'")
	other := l.name + "_saved"
	l.standby.Exec(t, "", "SET sql_mode='ALLOW_INVALID_DATES'; CREATE DATABASE "+other+"; CREATE TABLE "+other+".h AS SELECT *"+map[bool]string{true: ", inv"}[l.active.IsMariaDB()]+" FROM "+l.name+".hostile")
	for _, column := range columns {
		name, update := quote(column), "SET sql_mode='ALLOW_INVALID_DATES', time_zone='+00:00'; UPDATE hostile h, "+other+".h s SET h.cr=s.cr, h."
		l.onStandby(t, update+name+"=NULL WHERE h.id=s.id AND h.id=(SELECT MIN(id) FROM "+other+".h WHERE "+name+" IS NOT NULL)")
		if r := l.compare(t); r.Different != 1 || r.Differences[0].Table != "hostile" {
			t.Errorf("without a value of %s: %+v", column, r)
		}
		l.onStandby(t, update+name+"=s."+name+" WHERE h.id=s.id")
		if r := l.compare(t); r.Different != 0 {
			t.Fatalf("with all values of %s: %+v", column, r)
		}
	}
}

// whatDiffersIsNamed changes a row of a table with a key of two columns and
// expects a range that holds it, and few others.
func whatDiffersIsNamed(t *testing.T, l *lab) {
	l.onActive(t, `CREATE TABLE t (a INT, b VARCHAR(20) COLLATE utf8mb3_general_ci, n INT, x INT, v VARCHAR(50), PRIMARY KEY (a, b)) ENGINE=InnoDB;
		INSERT INTO t SELECT seq DIV 400, CONCAT('k', seq), seq, NULL, CONCAT('v', seq) FROM seq_1_to_5000;
		CREATE TABLE still AS SELECT * FROM t`)
	e := l.engine(t)
	l.sync(t, e)
	for name, change := range map[string]struct {
		statement string
		rows      []string // conditions, each of which one range must meet
		active    int64    // minus standby, over all ranges
	}{
		"flipped":       {"UPDATE t SET n=-1 WHERE n=2500", []string{"n=2500"}, 0},
		"swapped":       {"UPDATE t SET v=IF(n=10,'v12','v10') WHERE n IN (10,12)", []string{"n=10"}, 0},
		"swapped, far":  {"UPDATE t SET v=IF(n=10,'v4010','v10') WHERE n IN (10,4010)", []string{"n=10", "n=4010"}, 0},
		"NULL moved":    {"UPDATE t SET x=n, n=NULL WHERE n=77", []string{"n=77"}, 0},
		"first missing": {"DELETE FROM t ORDER BY a, b LIMIT 1", []string{"a=0 AND b='k1'"}, 1},
		"last missing":  {"DELETE FROM t ORDER BY a DESC, b DESC LIMIT 1", []string{"a=12 AND b='k5000'"}, 1},
		"one missing":   {"DELETE FROM t WHERE n=3333", []string{"n=3333"}, 1},
		"one before":    {"INSERT INTO t VALUES (-5, '', 0, 0, '')", []string{"a=0 AND b='k1'"}, -1},
		"one behind":    {"INSERT INTO t VALUES (99, 'z', 0, 0, '')", []string{"a=12 AND b='k5000'"}, -1},
		"one between":   {"INSERT INTO t VALUES (6, 'k2444x', 0, 0, '')", []string{"n=2444"}, -1},
		"key's case":    {"UPDATE t SET b='K100' WHERE n=100", []string{"n=100"}, 0},
		"all missing":   {"DELETE FROM t", nil, 5000},
	} {
		t.Run(name, func(t *testing.T) {
			l.onStandby(t, change.statement)
			defer l.sync(t, e)
			r := l.compare(t)
			var sum int64
			for _, d := range r.Differences {
				if d.Table != "t" || max(d.Active, d.Standby) > fewRows {
					t.Errorf("found %+v", d)
				}
				sum += d.Active - d.Standby
			}
			if name == "all missing" {
				if r.Different < 34 || len(r.Differences) > perTable {
					t.Errorf("an empty table: %+v", r)
				}
				return
			}
			if sum != change.active || len(r.Differences) != len(change.rows) {
				t.Errorf("the standby lacks %d rows, %d ranges: %+v", sum, len(r.Differences), r.Differences)
			}
			for _, row := range change.rows {
				in := 0
				for _, d := range r.Differences {
					in += len(l.mustQuery(t, l.active, "SELECT 1 FROM t WHERE "+row+inRange("(a, b)", d)))
				}
				if in != 1 {
					t.Errorf("%d ranges of %+v have the row %s", in, r.Differences, row)
				}
			}
		})
	}
}

// inRange is the condition that a key lies in the range of a difference.
func inRange(key string, d dbrepl.Difference) (condition string) {
	if d.From != "" {
		condition += " AND " + key + " >= " + d.From
	}
	if d.To != "" {
		condition += " AND " + key + " < " + d.To
	}
	return condition
}

func smallestDifferencesAreSeen(t *testing.T, l *lab) {
	l.onActive(t, `CREATE TABLE t (id INT PRIMARY KEY, f FLOAT, d DOUBLE, s VARCHAR(20), l VARCHAR(20) CHARACTER SET latin1, b VARBINARY(20), tx TEXT, e ENUM('', 'a'), ts TIMESTAMP(6)) ENGINE=InnoDB;
		INSERT INTO t VALUES (1, 3.14159274, 0.1, 'a', 'a', 'a', 'a', '', '2026-01-01 00:00:00'), (2, 0, 1e300, 'a,', 'b', '1,2', '', 'a', '2026-01-01 00:00:00'), (3, 0, 0, 'x', 'y', '', NULL, 'a', '2026-01-01 00:00:00')`)
	e := l.engine(t)
	l.sync(t, e)
	for _, change := range []string{
		"f=3.14159250 WHERE id=1", "d=0.1+1.4e-17 WHERE id=1", "d=d*(1+2.3e-16) WHERE id=2",
		"s='A' WHERE id=1", "s='a ' WHERE id=1", "l='A' WHERE id=1", "l='a ' WHERE id=1", "l=_latin1 x'E9' WHERE id=1",
		"b=x'6100' WHERE id=1", "tx='a ' WHERE id=1", "tx='A' WHERE id=1", "tx='' WHERE id=3", "tx=NULL WHERE id=2",
		"ts=ts + INTERVAL 1 MICROSECOND WHERE id=1",
		"s='a', l=',b' WHERE id=2", // the comma moves from one column to the next
		"s='', l='xy' WHERE id=3",
	} {
		l.onStandby(t, "UPDATE t SET "+change)
		if r := l.compare(t); r.Different != 1 || len(r.Differences) != 1 || r.Differences[0].Active != 3 {
			t.Errorf("after %s: %+v", change, r)
		}
		l.sync(t, e)
	}
	l.onStandby(t, "SET sql_mode=''; UPDATE t SET e=99 WHERE id=1") // not the empty member, the invalid one
	if r := l.compare(t); r.Different != 1 {
		t.Errorf("an invalid member: %+v", r)
	}
}

func differentDefinitionsAreNamed(t *testing.T, l *lab) {
	l.onActive(t, `CREATE TABLE t (id INT PRIMARY KEY, n INT, KEY k (n)) ENGINE=InnoDB; INSERT INTO t VALUES (1, 1), (2, 2);
		CREATE TABLE u (id INT PRIMARY KEY, n INT) ENGINE=InnoDB; CREATE VIEW v AS SELECT 1 a; CREATE PROCEDURE p() SELECT 1;
		CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM t; CREATE SEQUENCE s`)
	e := l.engine(t)
	for statement, want := range map[string]string{
		"CREATE TABLE more (x INT); INSERT INTO more VALUES (1), (2)": "more: only the standby has it",
		"DROP TABLE u":                                                  "u: only the active has it",
		"ALTER TABLE t MODIFY n BIGINT":                                 "t: defined differently: `n` bigint(20) DEFAULT NULL, on the active `n` int(11) DEFAULT NULL",
		"ALTER TABLE t DROP KEY k":                                      "t: defined differently: nothing, on the active KEY `k` (`n`)",
		"ALTER TABLE t ADD COLUMN m INT":                                "t: defined differently: `m` int(11) DEFAULT NULL, on the active nothing",
		"ALTER TABLE t COMMENT='x'":                                     "t: defined differently: ) ENGINE=InnoDB",
		"CREATE OR REPLACE VIEW v AS SELECT 2 a":                        "view v: defined differently",
		"DROP PROCEDURE p":                                              "procedure p: only the active has it",
		"CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.n=1": "trigger tr: only the standby has it",
		"DROP EVENT ev":                                                 "event ev: only the active has it",
		"DROP SEQUENCE s":                                               "s: only the active has it",
		"ALTER DATABASE COLLATE utf8mb3_general_ci":                     "the database's collation is utf8mb3_general_ci, on the active utf8mb3_bin",
	} {
		if strings.Contains(statement, "SEQUENCE") && !l.active.IsMariaDB() {
			continue
		}
		l.sync(t, e)
		if r := l.compare(t); r.Different != 0 {
			t.Fatalf("before %s: %+v", statement, r)
		}
		l.onStandby(t, statement)
		r := l.compare(t)
		if !l.active.IsMariaDB() {
			want = strings.ReplaceAll(want, "utf8mb3", "utf8")
		}
		if len(r.Differences) != 1 || !strings.HasPrefix(r.Differences[0].String(), want) {
			t.Errorf("after %s: %v", statement, r.Differences)
		}
	}
	// Keys that were added in another order are the same keys.
	l.sync(t, e)
	l.onActive(t, "ALTER TABLE t ADD KEY a (id, n), ADD KEY b (n, id)")
	l.onStandby(t, "ALTER TABLE t ADD KEY b (n, id), ADD KEY a (id, n)")
	if r := l.compare(t); r.Different != 0 {
		t.Errorf("keys in another order: %v", r.Differences)
	}
}

// randomKey is the key of a random table, with an expression of a number.
type randomKey struct{ columns, values, key string }

var randomKeys = []randomKey{
	{"id BIGINT UNSIGNED PRIMARY KEY", "18446744073709551615 - %d * 3", "id"},
	{"id INT PRIMARY KEY", "CAST(%d AS SIGNED) - 500", "id"},
	{"id CHAR(40) PRIMARY KEY", "SHA1(%d)", "id"},
	{"id VARCHAR(40) COLLATE utf8mb3_general_ci PRIMARY KEY", "CONCAT(CHAR(65 + %[1]d %% 26 USING utf8mb4), ' ', %[1]d, 'é')", "id"},
	{"id VARCHAR(40) CHARACTER SET sjis PRIMARY KEY", "CONCAT(_utf8mb4'表ソ\\\\', %d)", "id"},
	{"id VARBINARY(20) PRIMARY KEY", "UNHEX(CONCAT('00', LPAD(HEX(%d), 8, 0), '00'))", "id"},
	{"id DECIMAL(30,5) PRIMARY KEY", "%d * 1.00001 - 700", "id"},
	{"id DATETIME(3) PRIMARY KEY", "'2026-01-01' + INTERVAL %d * 1000 MICROSECOND", "id"},
	{"id UUID PRIMARY KEY", "UNHEX(MD5(%d))", ""}, // whose order is not one
	{"id INET6 PRIMARY KEY", "UNHEX(MD5(%d))", "id"},
	{"id INET4 PRIMARY KEY", "UNHEX(LEFT(MD5(%d), 8))", "id"},
	{"a INT, b INT, PRIMARY KEY (a, b)", "%[1]d DIV 300, %[1]d", "(a, b)"},
	{"a TINYINT, b CHAR(9), c BIGINT, PRIMARY KEY (a, b, c)", "%[1]d %% 3, %[1]d %% 10, %[1]d", "(a, b, c)"},
	{"a INT, e ENUM('x','y','z'), b INT, PRIMARY KEY (a, e, b)", "%[1]d DIV 250, 1 + %[1]d %% 3, %[1]d", "a"}, // only a can bound ranges
	{"f DOUBLE PRIMARY KEY", "%d / 7", ""},
	{"k INT NOT NULL UNIQUE", "%d", "k"},
	{"k INT UNIQUE", "%d", ""},
	{"t TEXT, PRIMARY KEY (t(20))", "%d", ""},
	{"x INT", "%d %% 10", ""},
}

// randomTablesAreCompared changes random rows and compares what is found with
// what a comparison row by row finds.
func randomTablesAreCompared(t *testing.T, l *lab) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	keys := randomKeys
	if !l.active.IsMariaDB() {
		keys = slices.DeleteFunc(slices.Clone(keys), func(k randomKey) bool {
			return strings.Contains(k.columns, "UUID") || strings.Contains(k.columns, "INET")
		})
	}
	onActive, onStandby := l.active.DB(t, l.name), l.standby.DB(t, l.name)
	rows := func(db *sql.DB, q string) []string {
		t.Helper()
		all, err := query(db, q)
		if err != nil {
			t.Fatalf("%v\nin: %s", err, q)
		}
		return all
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for i, k := range keys {
		size := random.IntN(1500)
		l.onActive(t, fmt.Sprintf("CREATE TABLE t%d (%s, v VARCHAR(30), w INT, rn INT) ENGINE=InnoDB; INSERT IGNORE INTO t%d SELECT %s, CONCAT('v', seq), IF(seq %% 3, seq, NULL), seq FROM seq_1_to_%d",
			i, k.columns, i, strings.NewReplacer("%[1]d", "seq", "%d", "seq", "%%", "%").Replace(k.values), size+1))
	}
	e := l.engine(t)
	for round := range 4 {
		l.sync(t, e)
		changes := make(map[int]map[string]bool) // per table, the row numbers that differ
		for i := range keys {
			changes[i] = make(map[string]bool)
			if round == 0 {
				continue
			}
			before := rows(onStandby, fmt.Sprintf("SELECT rn, CONCAT_WS('|', IFNULL(v,'NULL'), IFNULL(w,'NULL')) FROM t%d", i))
			for range random.IntN(6) {
				n := random.IntN(1500)
				l.onStandby(t, fmt.Sprintf([]string{
					"UPDATE t%d SET v='x' WHERE rn=%d",
					"DELETE FROM t%d WHERE rn=%d",
					"UPDATE t%d SET w=v, v=w WHERE rn=%d AND w IS NULL AND v='no'",
					"UPDATE t%d SET w=IFNULL(w, 0)+1 WHERE rn BETWEEN %[2]d AND %[2]d+40",
					"DELETE FROM t%d WHERE rn > %[2]d",
				}[random.IntN(5)], i, n))
			}
			after := rows(onStandby, fmt.Sprintf("SELECT rn, CONCAT_WS('|', IFNULL(v,'NULL'), IFNULL(w,'NULL')) FROM t%d", i))
			for _, row := range before {
				if !slices.Contains(after, row) {
					number, _, _ := strings.Cut(row, "|")
					changes[i][number] = true
				}
			}
		}
		chunk := int64(1 + random.IntN(400))
		if round == 3 {
			chunk = 3 // so that there are more differences than are listed
		}
		r := l.compare(t, func(e *Engine) { e.chunk = chunk })
		for i, k := range keys {
			table := fmt.Sprintf("t%d", i)
			found := make(map[string]int)
			listed := 0
			for _, d := range r.Differences {
				if d.Table != table {
					continue
				}
				listed++
				if k.key == "" || d.Text != "" {
					if (d.From != "" || d.To != "") || len(changes[i]) == 0 {
						t.Errorf("%s: found %+v", k.columns, d)
					}
					for n := range changes[i] {
						found[n]++
					}
					continue
				}
				if most := max(d.Active, d.Standby); most > fewRows && k.key != "a" {
					t.Errorf("%s: %d rows in one range: %+v", k.columns, most, d)
				}
				in := rows(onActive, "SELECT rn FROM "+table+" WHERE 1=1"+inRange(k.key, d))
				hit := false
				for _, n := range in {
					if changes[i][n] {
						hit = true
						found[n]++
					}
				}
				if !hit || int64(len(in)) != d.Active {
					t.Errorf("%s: nothing differs in %+v, which has %d rows", k.columns, d, len(in))
				}
			}
			// Where more differs than is listed, of each table some is.
			cut := r.Different > int64(len(r.Differences)) && (listed == perTable || len(r.Differences) >= dbrepl.MaxDifferences/2)
			if listed > perTable || len(changes[i]) > 0 && listed == 0 {
				t.Errorf("seed %d, round %d, %s: %d of its differences are listed", seed, round, k.columns, listed)
			}
			for n := range changes[i] {
				if found[n] > 1 || found[n] == 0 && !cut {
					t.Errorf("round %d, %s: row %s is in %d ranges of %+v", round, k.columns, n, found[n], r.Differences)
				}
			}
		}
	}
}

// manyDifferencesAreBounded has one table of which nothing is the same and
// another with one change, which must be named all the same.
func manyDifferencesAreBounded(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE a (id INT PRIMARY KEY, n INT) ENGINE=InnoDB; INSERT INTO a SELECT seq, 1 FROM seq_1_to_60000; CREATE TABLE b AS SELECT * FROM a LIMIT 10; ALTER TABLE b ADD PRIMARY KEY (id)")
	l.sync(t, l.engine(t))
	l.onStandby(t, "UPDATE a SET n=2; UPDATE b SET n=2 WHERE id=5")
	r := l.compare(t, func(e *Engine) { e.chunk = 5000 })
	if r.Different < 100 || len(r.Differences) > 101 || r.Differences[len(r.Differences)-1].Table != "b" {
		t.Errorf("found %d, lists %d, the last of them %+v", r.Different, len(r.Differences), r.Differences[len(r.Differences)-1])
	}
}

func TestFairShare(t *testing.T) {
	var all []found
	for i := range 50 {
		for range 100 {
			all = append(all, found{Difference: dbrepl.Difference{Table: fmt.Sprintf("t%02d", i)}})
		}
	}
	for _, most := range []int{10, 49, 50, 51, 1000, 4999, 5000, 9999} {
		some := fair(all, most)
		seen := make(map[string]bool)
		for _, f := range some {
			seen[f.Table] = true
		}
		if len(some) > most || len(seen) != min(50, most) || len(some) < min(most/2, 5000) {
			t.Errorf("of 5000 in 50 tables %d in %d, for at most %d", len(some), len(seen), most)
		}
	}
}

func comparisonOfAlteredTables(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t VALUES (1)")
	first := l.engine(t)
	l.sync(t, first)
	l.end(t, first)
	e := l.engine(t)
	times := 0
	e.during = func(string) {
		if times++; times == 1 {
			l.onActive(t, "ALTER TABLE t ADD COLUMN x INT")
		}
	}
	r, err := e.Compare(t.Context())
	if err != nil || times != 2 || len(r.Differences) != 1 || !strings.Contains(r.Differences[0].Text, "`x` int(11)") {
		t.Errorf("after %d attempts %+v, %v", times, r, err)
	}
	e.during = func(string) {
		times++
		l.onActive(t, fmt.Sprintf("ALTER TABLE t ADD COLUMN x%d INT", times))
	}
	if _, err := e.Compare(t.Context()); !errors.Is(err, errChanged) {
		t.Errorf("compared what never rests: %v", err)
	}
	// Another generation takes the place of the compared one.
	e.during = func(string) { l.sync(t, l.engine(t, another)) }
	if _, err := e.Compare(t.Context()); err == nil || !strings.Contains(err.Error(), "another generation") {
		t.Errorf("compared two generations: %v", err)
	}
}

func comparisonIsCancelled(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO t SELECT seq FROM seq_1_to_5000")
	l.sync(t, l.engine(t))
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	e := l.engine(t)
	e.chunk = 1
	e.during = func(string) { cancel(why) }
	if _, err := e.Compare(ctx); !errors.Is(err, why) {
		t.Errorf("a cancelled comparison: %v", err)
	}
}

func nothingToCompare(t *testing.T, l *lab) {
	e := l.engine(t)
	if _, err := e.Compare(t.Context()); !errors.Is(err, dbrepl.ErrNoDatabase) {
		t.Errorf("compared with nothing: %v", err)
	}
	l.sync(t, e)
	if r := l.compare(t); r.Different != 0 || r.Tables != 0 {
		t.Errorf("two empty databases: %+v", r)
	}
	poor := l.engine(t, func(o *Options) { o.Active.User, o.Standby.User = "poor", "poor" })
	for _, m := range []*testenv.MariaDBServer{l.active, l.standby} {
		m.Exec(t, "", "CREATE USER IF NOT EXISTS poor@'%'")
	}
	if _, err := poor.Compare(t.Context()); err == nil || !strings.Contains(err.Error(), "active account poor@%: it lacks SELECT") || !strings.Contains(err.Error(), "standby account poor@%: it lacks SELECT") {
		t.Errorf("an account that may see nothing compares: %v", err)
	}
}

// capturesAreVerified changes the staged copy before it is verified.
func capturesAreVerified(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, n INT) ENGINE=InnoDB; INSERT INTO t SELECT seq, seq FROM seq_1_to_3000; CREATE TABLE u (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO u SELECT seq FROM seq_1_to_3000")
	e := l.engine(t)
	e.chunk = 150
	l.sync(t, e)
	first, spoiled := "", false
	e.workers = 1 // one table after the other, the larger one first, by the server's estimate
	e.during = func(table string) {
		if first == "" {
			first = table
		}
		if table != first && table != "" && !spoiled {
			spoiled = true
			l.standby.Exec(t, l.name+newSuffix, "UPDATE "+first+" SET id=id+100000 WHERE id=1234")
			l.onActive(t, "INSERT INTO t VALUES (5000, 1)") // after the snapshot: no difference
		}
	}
	_, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
	if !spoiled || err == nil || !strings.Contains(err.Error(), "differs from the active") || !strings.Contains(err.Error(), first+" from 1") {
		t.Errorf("a spoiled copy was captured: %v", err)
	}
	if err := e.Recover(t.Context(), nil); err != nil {
		t.Error(err)
	}
	e.during = func(table string) {
		if table == "u" {
			l.onActive(t, "UPDATE t SET n=n+1")
		}
	}
	if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true}); err != nil {
		t.Errorf("what the active changes after the snapshot fails its verification: %v", err)
	}
}

// unreadableDefinitionsAreTold compares by an account of the standby that may not see
// what is in the routines of others.
func unreadableDefinitionsAreTold(t *testing.T, l *lab) {
	l.onActive(t, "CREATE PROCEDURE p() SELECT 1; CREATE PROCEDURE q() SELECT 1; CREATE VIEW v AS SELECT 1 x")
	first := l.engine(t)
	l.sync(t, first)
	l.end(t, first)
	account := "'see" + l.name + "'@'%'"
	l.standby.Exec(t, "", "CREATE USER "+account+"; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON "+l.name+".* TO "+account)
	l.onStandby(t, "DROP PROCEDURE q; CREATE PROCEDURE q() SELECT 2")
	as := func(t testing.TB) dbrepl.Comparison {
		t.Helper()
		e := l.engine(t, func(o *Options) { o.Standby.User = "see" + l.name })
		defer e.Close()
		c, err := e.Compare(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := as(t)
	if c.Different != 0 || len(c.Uncompared) != 1 || !strings.Contains(c.Uncompared[0], "definitions that drsync's account on the standby may not read") || !strings.Contains(c.Uncompared[0], "procedure p, procedure q") {
		t.Errorf("unreadable: %+v", c)
	}
	// What can be seen of one counts.
	l.onStandby(t, "CREATE USER IF NOT EXISTS other; DROP PROCEDURE p; CREATE DEFINER=other PROCEDURE p() SELECT 1")
	if c := as(t); c.Different != 1 || len(c.Uncompared) != 1 {
		t.Errorf("of another owner: %+v", c)
	}
	_, grant := seesRoutines(nil, identity{MariaDB: l.standby.IsMariaDB(), Number: [3]int{5, 7, 0}, User: "see" + l.name + "@%"}, l.name)
	l.standby.Exec(t, "", grant)
	if c := as(t); c.Different != 2 || c.Uncompared != nil {
		t.Errorf("readable: %+v", c)
	}
}

// comparedWhileMoneyMoves compares a database that is being written: what
// differs are rows that were written since, and the sums are of one moment.
func comparedWhileMoneyMoves(t *testing.T, l *lab) {
	l.onActive(t, `CREATE TABLE a (id INT PRIMARY KEY, n BIGINT NOT NULL) ENGINE=InnoDB; INSERT INTO a SELECT seq, 100 FROM seq_1_to_2000;
		CREATE TABLE log (i BIGINT AUTO_INCREMENT PRIMARY KEY, x INT) ENGINE=InnoDB`)
	e := l.engine(t)
	stop, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	db := l.active.DB(t, l.name)
	go func() {
		var err error
		for i := 0; err == nil && stop.Err() == nil; i++ {
			_, err = db.Exec(fmt.Sprintf("START TRANSACTION; UPDATE a SET n=n-1 WHERE id=%d; UPDATE a SET n=n+1 WHERE id=%d; INSERT INTO log (x) VALUES (1); COMMIT", i%1000+1, 1001+i%999))
		}
		done <- err
	}()
	for range 4 {
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
		if err != nil {
			t.Fatalf("verified while money moves: %v", err)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if sum := l.mustQuery(t, l.standby, "SELECT SUM(n) FROM a"); sum[0] != "200000" {
		t.Errorf("the standby's sum is %s", sum)
	}
	r := l.compare(t)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	late := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM log")
	for _, d := range r.Differences {
		if d.Table == "log" && d.Active < d.Standby {
			t.Errorf("the active has lost rows: %+v (the standby has %s)", d, late)
		}
	}
	l.sync(t, e)
	if r := l.compare(t); r.Different != 0 {
		t.Errorf("after the last transfer: %+v", r)
	}
}
