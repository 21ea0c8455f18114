package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
)

func TestBare(t *testing.T) {
	const ddl = "CREATE TABLE `t` (\n" +
		"  `id` int(11) NOT NULL AUTO_INCREMENT,\n" +
		"  `odd``name` varchar(20) DEFAULT 'a),\\n  KEY `x` (`id`)',\n" +
		"  `g` point NOT NULL,\n" +
		"  PRIMARY KEY (`odd``name`),\n" +
		"  UNIQUE KEY `counted` (`id`),\n" +
		"  UNIQUE KEY `u` (`odd``name`(3),`id`),\n" +
		"  KEY `k` (`id`,`odd``name`) COMMENT 'a, b',\n" +
		"  UNIQUE KEY `long` (`odd``name`) USING HASH,\n" +
		"  SPATIAL KEY `s` (`g`),\n" +
		"  FULLTEXT KEY `f` (`odd``name`),\n" +
		"  CONSTRAINT `fk` FOREIGN KEY (`id`) REFERENCES `other` (`id`) ON DELETE CASCADE,\n" +
		"  CONSTRAINT `c` CHECK (`id` > 0)\n" +
		") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='x'\n PARTITION BY HASH (`id`)"
	create, keys, foreign := bare(ddl)
	wantKeys := []string{"UNIQUE KEY `u` (`odd``name`(3),`id`)", "SPATIAL KEY `s` (`g`)", "FULLTEXT KEY `f` (`odd``name`)"}
	if !slices.Equal(keys, wantKeys) {
		t.Errorf("keys %q", keys)
	}
	if !slices.Equal(foreign, []string{"CONSTRAINT `fk` FOREIGN KEY (`id`) REFERENCES `other` (`id`) ON DELETE CASCADE"}) {
		t.Errorf("foreign keys %q", foreign)
	}
	want := ddl
	for _, line := range append(keys, foreign...) {
		want = strings.Replace(want, "  "+line+",\n", "", 1)
	}
	if create != want {
		t.Errorf("create:\n%s\nwant:\n%s", create, want)
	}
	statements := addKeys("t", append(keys, "KEY `k2` (`id`)"))
	if len(statements) != 3 || statements[0] != "ALTER TABLE `t` ADD UNIQUE KEY `u` (`odd``name`(3),`id`), ADD KEY `k2` (`id`)" {
		t.Errorf("statements %q", statements)
	}
	if c, k, f := bare("CREATE TABLE x LIKE y"); c != "CREATE TABLE x LIKE y" || k != nil || f != nil {
		t.Error("what is not understood was changed")
	}
}

func TestShare(t *testing.T) {
	gib := int64(1 << 30)
	for _, c := range []struct {
		sizes   []int64
		workers int
		want    string
	}{
		{[]int64{gib, gib}, 2, "map[]"},
		{[]int64{gib, gib}, 4, "map[0:16 1:16]"},
		{[]int64{10 * gib, 1 << 20}, 2, "map[0:160]"},
		{[]int64{100 * gib}, 8, "map[0:256]"},
		{[]int64{32 << 20}, 8, "map[]"},
		{[]int64{gib}, 1, "map[]"},
	} {
		var tables []table
		for i, n := range c.sizes {
			tables = append(tables, table{name: fmt.Sprint(i), size: n})
		}
		if got := fmt.Sprint(share(tables, c.workers, chunkBytes)); got != c.want {
			t.Errorf("share(%v, %d) = %s, want %s", c.sizes, c.workers, got, c.want)
		}
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		got  []string
		want string
	}{
		{numberBounds("0", "100", 4), "[25 50 75]"},
		{numberBounds("-9223372036854775808", "18446744073709551615", 2), "[4611686018427387903]"},
		{numberBounds("7", "7", 4), "[]"},
		{numberBounds("7", "9", 8), "[8]"},
		{numberBounds("", "", 8), "[]"},
		{hexBounds(4), "['40' '80' 'c0']"},
		{between("`k`", []string{"3", "5"}), "[`k` < 3 `k` >= 3 AND `k` < 5 `k` >= 5]"},
		{between("`k`", nil), "[]"},
	} {
		if fmt.Sprint(c.got) != c.want {
			t.Errorf("%v, want %s", c.got, c.want)
		}
	}
}

// TestChunksAreWhole: whatever the key is, each row meets exactly one condition.
func TestChunksAreWhole(t *testing.T) { everywhere(t, chunksAreWhole) }

func chunksAreWhole(t *testing.T, p product) {
	s := p.start(t)
	l := newLab(t, s, s)
	l.onActive(t, `CREATE TABLE numbers (id BIGINT PRIMARY KEY) ENGINE=InnoDB;
		INSERT INTO numbers SELECT CAST(seq*seq*seq AS SIGNED)-50000 FROM seq_1_to_1000;
		CREATE TABLE unsigned_ones (id BIGINT UNSIGNED PRIMARY KEY) ENGINE=InnoDB; INSERT INTO unsigned_ones VALUES (0),(1),(18446744073709551615);
		CREATE TABLE hashes (id CHAR(40) PRIMARY KEY) ENGINE=InnoDB COLLATE utf8mb4_general_ci; INSERT INTO hashes SELECT SHA1(seq) FROM seq_1_to_1000;
		CREATE TABLE mixed (id CHAR(40) PRIMARY KEY) ENGINE=InnoDB; INSERT INTO mixed SELECT SHA1(seq) FROM seq_1_to_1000;
		INSERT INTO mixed VALUES (''), ('##temporary'), ('zz'), ('Äß');
		CREATE TABLE pairs (a INT, b INT, PRIMARY KEY (a, b)) ENGINE=InnoDB; INSERT INTO pairs SELECT seq DIV 100, seq FROM seq_1_to_1000;
		CREATE TABLE keyless (a INT) ENGINE=InnoDB; INSERT INTO keyless SELECT seq FROM seq_1_to_10;
		CREATE TABLE nothing (a INT PRIMARY KEY) ENGINE=InnoDB;
		CREATE TABLE days (a DATE PRIMARY KEY) ENGINE=InnoDB; INSERT INTO days VALUES ('2001-02-03');`)
	e := l.engine(t)
	c, err := e.active.session(t.Context(), l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	schema, err := readSchema(t.Context(), c, l.name)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]int{}
	for _, tb := range schema.tables {
		conditions, err := chunks(t.Context(), c, tb, 7)
		if err != nil {
			t.Fatal(err)
		}
		parts[tb.name] = len(conditions)
		var together []string
		for _, where := range conditions {
			if where != "" {
				where = " WHERE " + where
			}
			together = append(together, "SELECT * FROM "+quote(tb.name)+where)
		}
		got := l.mustQuery(t, s, strings.Join(together, " UNION ALL "))
		want := l.mustQuery(t, s, "SELECT * FROM "+quote(tb.name))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("table %s: %d rows in %d chunks, there are %d", tb.name, len(got), len(conditions), len(want))
		}
	}
	if parts["numbers"] != 7 || parts["hashes"] != 7 || parts["pairs"] != 7 || parts["mixed"] != 1 || parts["keyless"] != 1 {
		t.Errorf("chunks: %v", parts)
	}
}

// TestDividedTable copies a table in chunks while money moves in it.
func TestDividedTable(t *testing.T) { everywhere(t, dividedTable) }

func dividedTable(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, `CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, n BIGINT NOT NULL, pad CHAR(200) NOT NULL, u CHAR(40) NOT NULL,
			UNIQUE KEY (u), KEY (n), FULLTEXT KEY (pad)) ENGINE=InnoDB;
		INSERT INTO big SELECT seq, 100, REPEAT('x', 200), SHA1(seq) FROM seq_1_to_20000;
		CREATE TABLE child (id INT PRIMARY KEY, big_id INT, CONSTRAINT to_big FOREIGN KEY (big_id) REFERENCES big (id) ON DELETE CASCADE) ENGINE=InnoDB;
		INSERT INTO child SELECT seq, seq FROM seq_1_to_1000;`)
	e := l.engine(t)
	e.workers, e.chunkBytes = 3, 1
	stop := l.transfer(t, "big", 20000)
	for range 3 {
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := c.Counts(); n.Tables != 2 || n.Rows != 21000 {
			t.Errorf("counts %+v", n)
		}
		if got := l.mustQuery(t, l.standby, "SELECT COUNT(*), SUM(n) FROM big"); got[0] != "20000|2000000" {
			t.Errorf("the standby has %s", got)
		}
	}
	stop()
	l.sync(t, e)
	for _, q := range []string{"SHOW CREATE TABLE big", "SHOW CREATE TABLE child", "SELECT id, n, u FROM big ORDER BY id", "SELECT * FROM child ORDER BY id"} {
		if got, want := l.mustQuery(t, l.standby, q), l.mustQuery(t, l.active, q); !slices.Equal(got, want) {
			t.Errorf("%s: the standby has\n%.300s\nthe active\n%.300s", q, got, want)
		}
	}
	if _, err := l.standby.DB(t, l.name).Exec("INSERT INTO child VALUES (5000, 999999)"); err == nil {
		t.Error("the foreign key does not hold on the standby")
	}
}

// dividedTablesAreFree alters a table that is to be read in parts later: to ask
// for its bounds must not hold on to it.
func dividedTablesAreFree(t *testing.T, l *lab) {
	for _, name := range []string{"a", "b"} {
		l.onActive(t, "CREATE TABLE "+name+" (id INT PRIMARY KEY, pad CHAR(100)) ENGINE=InnoDB; INSERT INTO "+name+" SELECT seq, 'x' FROM seq_1_to_5000; ANALYZE TABLE "+name)
	}
	heard, adjust := collect()
	e := l.engine(t, adjust)
	e.workers, e.chunkBytes = 3, 1
	altered := false
	e.during = func(table string) {
		if other := map[string]string{"a": "b", "b": "a"}[table]; other != "" && !altered {
			altered = true
			l.onActive(t, "SET lock_wait_timeout=5; ALTER TABLE "+other+" ADD COLUMN later INT")
		}
	}
	l.sync(t, e)
	if !strings.Contains(heard.all(), "begins anew") {
		t.Error("the capture did not begin anew")
	}
}

// transfer moves money between rows of a table with ids 1 to rows until it is stopped.
func (l *lab) transfer(t *testing.T, table string, rows int) (stop func()) {
	t.Helper()
	db := l.active.DB(t, l.name)
	end, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			select {
			case <-end:
				done <- nil
				return
			default:
			}
			from, to := i*7919%rows+1, (i*104729+1)%rows+1
			_, err = db.Exec(fmt.Sprintf("START TRANSACTION; UPDATE %[1]s SET n=n-1 WHERE id=%[2]d; UPDATE %[1]s SET n=n+1 WHERE id=%[3]d; COMMIT", table, from, to))
		}
		done <- err
	}()
	return func() {
		t.Helper()
		close(end)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
