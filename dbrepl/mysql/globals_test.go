package mysql

import (
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
)

// TestSettingsOfTheServers captures and compares while both servers give new sessions
// settings that would leave rows out, or stop statements.
func TestSettingsOfTheServers(t *testing.T) { everywhere(t, settingsOfTheServers) }

func settingsOfTheServers(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, `CREATE TABLE a (id INT PRIMARY KEY, x VARCHAR(50), UNIQUE (x)) ENGINE=InnoDB; INSERT INTO a SELECT seq, seq FROM seq_1_to_500;
		CREATE TABLE b (n INT) ENGINE=InnoDB; INSERT INTO b VALUES (1); CREATE TABLE c LIKE b; CREATE TABLE d LIKE b; CREATE TABLE e LIKE b; CREATE VIEW v AS SELECT n FROM b`)
	const hostile = "SET GLOBAL sql_select_limit=2, sql_safe_updates=1, max_join_size=1, sql_big_selects=0, unique_checks=0, autocommit=0, completion_type=2, group_concat_max_len=4, max_sort_length=8, " +
		"sql_notes=0, max_error_count=0, sql_auto_is_null=1, tx_isolation='SERIALIZABLE', tx_read_only=1"
	l.active.Exec(t, "", hostile)
	l.standby.Exec(t, "", hostile)
	for range 2 {
		e := l.engine(t)
		if n := l.sync(t, e).Counts(); n.Rows != 501 || n.Tables != 5 {
			t.Errorf("copied were %+v", n)
		}
		if n, err := e.Compare(t.Context()); err != nil || n.Different != 0 || n.Rows != 501 || n.Tables != 5 {
			t.Errorf("compared: %+v, %v", n, err)
		}
		l.end(t, e)
	}
	l.standby.Exec(t, "", "SET GLOBAL sql_big_selects=1, autocommit=1") // for this test's own questions
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*), (SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('a', 'b', 'c', 'd', 'e', 'v')) FROM a"); !slices.Equal(got, []string{"500|6"}) {
		t.Errorf("the standby has %s", got)
	}
}

// TestAnswersThatEndEarly gives sessions that wait in the pool a limit that nobody
// tells a capture of: what is left out of an answer is noticed by its count.
func TestAnswersThatEndEarly(t *testing.T) { everywhere(t, answersThatEndEarly) }

func answersThatEndEarly(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE a (id INT PRIMARY KEY, pad CHAR(100)) ENGINE=InnoDB; INSERT INTO a SELECT seq, 'x' FROM seq_1_to_500")
	for _, workers := range []int{1, 3} {
		e := l.engine(t)
		e.workers, e.chunkBytes = workers, 16<<10
		var all []*sql.Conn
		for range maxIdle {
			c, err := e.active.session(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.ExecContext(t.Context(), "SET SESSION sql_select_limit=20"); err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		for _, c := range all {
			c.Close()
		}
		if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), "20 rows were read, but the active has ") {
			t.Errorf("%d workers: %v", workers, err)
		}
		l.end(t, e)
	}
}

// TestServersThatChooseTheCharacterSet: one that leaves a client no choice, or an
// init_connect, would make every character of four bytes a question mark.
func TestServersThatChooseTheCharacterSet(t *testing.T) {
	everywhere(t, serversThatChooseTheCharacterSet)
}

func serversThatChooseTheCharacterSet(t *testing.T, p product) {
	own := []string{"--skip-character-set-client-handshake", "--character-set-server=utf8"}
	l := newLab(t, p.start(t, own...), p.start(t, own...))
	l.onActive(t, "SET NAMES utf8mb4; CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20) COMMENT '😀', e ENUM('a','é'), q DECIMAL(30,15) AS (id / 3) STORED) CHARACTER SET utf8mb4 ENGINE=InnoDB; "+
		"INSERT INTO t (id, v, e) VALUES (1, 'x😀é', 'é'); CREATE VIEW v AS SELECT '😀' AS e; CREATE FUNCTION f() RETURNS VARCHAR(5) CHARSET utf8mb4 DETERMINISTIC RETURN '😀é'")
	l.active.Exec(t, "", "CREATE USER plain@'%'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, PROCESS, RELOAD, REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO plain@'%'; SET GLOBAL init_connect='SET NAMES latin1'")
	e := l.engine(t, func(o *Options) { o.Active.User = "plain" })
	if _, ok := finding(t, e, "the stored column q is computed by a division"); !ok {
		t.Error("check does not name a division")
	}
	l.sync(t, e)
	const ask = "SELECT HEX(v), HEX(e), (SELECT HEX(e) FROM v), HEX(f()), (SELECT HEX(COLUMN_COMMENT) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND COLUMN_NAME = 'v' AND TABLE_NAME = 't') FROM t"
	want, got := l.mustQuery(t, l.active, ask), l.mustQuery(t, l.standby, ask)
	if !slices.Equal(got, want) || !strings.Contains(want[0], "F09F9880C3A9") {
		t.Errorf("the standby has\n%s, the active\n%s", got, want)
	}
	if n, err := e.Compare(t.Context()); err != nil || n.Different != 0 {
		t.Errorf("compared: %+v, %v", n, err)
	}
}

// TestSettingsThatShapeTables: with replication a statement that is applied makes the
// active's table, or the run is refused.
func TestSettingsThatShapeTables(t *testing.T) {
	t.Parallel()
	l := replicaLab(t, mariaDB)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)")
	r := l.replica(t)
	l.replicate(t, r)
	for name, other := range map[string]string{"default_storage_engine": "'MyISAM'", "enforce_storage_engine": "'InnoDB'", "old_mode": "''", "explicit_defaults_for_timestamp": "0"} {
		l.standby.Exec(t, "", "SET GLOBAL "+name+"="+other)
		found := l.mustFindings(t, r)
		i := slices.IndexFunc(found, func(f string) bool { return strings.HasPrefix(f, "true standby server: "+name+" is ") })
		if i < 0 {
			t.Fatalf("%s is not found, but %s", name, found)
		}
		if _, err := r.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		all, err := r.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if strings.HasPrefix(f.Problem, name) {
				l.standby.Exec(t, "", f.Fix)
			}
		}
		l.replicate(t, r)
	}
}

// TestLostMembersInAnyMode: which character set "utf8" names is a setting of MariaDB.
func TestLostMembersInAnyMode(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	l.active.Exec(t, "", "SET GLOBAL old_mode=''")
	l.onActive(t, "SET NAMES utf8mb4; CREATE TABLE a (x ENUM('a','😀'), y VARCHAR(9) DEFAULT '😀') CHARACTER SET utf8mb4; INSERT INTO a VALUES ('😀', '')")
	for _, want := range []string{"as they are: a.x", "as they are: a.y"} {
		if f, ok := finding(t, l.engine(t), want); !ok || !f.Fatal {
			t.Errorf("not found: %s", want)
		}
	}
}
