package mysql

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
)

// TestReplicaStatements runs what travels as statements, and rows behind it. What
// the standby may not be able to apply is found before anything is applied, so
// that each publish comes to its end without the active.
func TestReplicaStatements(t *testing.T) { everywhere(t, replicaStatements) }

func replicaStatements(t *testing.T, p product) {
	for name, adjust := range map[string]func(*ReplicaOptions){"OnDemand": func(*ReplicaOptions) {}, "Continuous": continuous} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replicaStatementsWith(t, p, adjust)
		})
	}
}

func replicaStatementsWith(t *testing.T, p product, adjust func(*ReplicaOptions)) {
	l := replicaLab(t, p)
	heard, listen := collect()
	r := l.replica(t, adjust, func(o *ReplicaOptions) { listen(&o.Options) })
	l.active.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1; CREATE DATABASE other; CREATE TABLE other.x (a INT PRIMARY KEY) ENGINE=InnoDB; CREATE USER victim@localhost IDENTIFIED BY 'a'")
	l.standby.Exec(t, "", "SET GLOBAL log_bin_trust_function_creators=1; SET sql_log_bin=0; CREATE USER victim@localhost IDENTIFIED BY 'b'; CREATE DATABASE mine; CREATE TABLE mine.t (a INT PRIMARY KEY) ENGINE=InnoDB")
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, n INT) ENGINE=InnoDB; INSERT INTO t (n) VALUES (1); "+
		"CREATE TABLE logs (id INT PRIMARY KEY) ENGINE=InnoDB PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10)); INSERT INTO logs VALUES (1)")
	l.replicate(t, r)
	heard.all()
	for _, c := range statementsTried {
		statement := strings.ReplaceAll(c.statement, "OURS", l.name)
		l.active.Exec(t, "", statement)
		l.onActive(t, "INSERT INTO t (n) VALUES (7); UPDATE t SET n = n + 1")
		captured, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		seed := isSeed(t, captured)
		said, _, _ := strings.Cut(heard.all(), "\n")
		if err := captured.Publish(t.Context()); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		if err := captured.Close(); err != nil {
			t.Error(err)
		}
		want := c.says != "" && (c.only == "" || c.only == p.name)
		if seed != want || want && (!strings.Contains(said, c.says) || !strings.Contains(said, "transaction ")) {
			t.Errorf("%s: copied whole: %v, %s", statement, seed, said)
		}
		if c, err := r.Compare(t.Context()); err != nil || c.Different != 0 || c.Rows == 0 {
			t.Errorf("%s: the comparison with the active finds %+v, %v", statement, c, err)
		}
	}
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM mysql.user WHERE User IN ('victim', 'fromactive')"); got[0] != "1" {
		t.Errorf("the standby's accounts are the active's: %s", got)
	}
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*) FROM mine.t"); got[0] != "0" {
		t.Errorf("mine.t has %s rows", got)
	}
	for _, s := range l.mustStandbySchemas(t) {
		if s == "other" || s == "another" {
			t.Errorf("the standby has the database %s", s)
		}
	}
	l.onActive(t, "XA START 'y'; INSERT INTO t (n) VALUES (2); XA END 'y'; XA PREPARE 'y'; XA COMMIT 'y'")
	l.replicate(t, r) // with nothing behind it
	l.active.Kill()
	whole := l.mustQuery(t, l.standby, "SELECT COUNT(*), SUM(n) FROM t")
	if _, err := r.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := l.mustQuery(t, l.standby, "SELECT COUNT(*), SUM(n) FROM t"); got[0] != whole[0] {
		t.Errorf("promoted with %s, published was %s", got, whole)
	}
}

// statementsTried are statements, and what is said of one that leads to a copy.
var statementsTried = []struct{ statement, says, only string }{
	{"USE OURS; CREATE TABLE a (id INT PRIMARY KEY, n INT COMMENT 'größer') ENGINE=InnoDB; ALTER TABLE a ADD COLUMN d DECIMAL(3,1) DEFAULT 1.5; CREATE INDEX i ON a (n); CREATE TABLE b LIKE a", "", ""},
	{"USE OURS; INSERT INTO a (id) VALUES (1); TRUNCATE a; RENAME TABLE a TO c; DROP INDEX i ON c; ANALYZE TABLE c; DROP TABLE b; ALTER TABLE c ADD CONSTRAINT f FOREIGN KEY (n) REFERENCES t (id)", "", ""},
	{"USE OURS; START TRANSACTION; INSERT INTO t (n) VALUES (1); SAVEPOINT s; INSERT INTO t (n) VALUES (1); ROLLBACK TO s; COMMIT", "", ""},
	{"USE OURS; XA START 'x'; INSERT INTO t (n) VALUES (2); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'", "is a distributed one (XA)", ""},
	{"CREATE USER fromactive@localhost IDENTIFIED BY 'x'; GRANT SELECT ON other.* TO fromactive@localhost; GRANT SELECT ON other.x TO fromactive@localhost; GRANT SELECT ON OURS.t TO fromactive@localhost; " +
		"SET PASSWORD FOR fromactive@localhost = PASSWORD('y'); ALTER USER victim@localhost IDENTIFIED BY 'z'; RENAME USER victim@localhost TO gone@localhost; REVOKE SELECT ON OURS.t FROM fromactive@localhost; DROP USER gone@localhost; FLUSH PRIVILEGES", "", ""},
	{"CREATE DATABASE another; CREATE DATABASE mine; CREATE TABLE mine.t (a INT); INSERT INTO mine.t VALUES (1); USE another; CREATE TABLE y (a INT); ALTER TABLE y ADD COLUMN b INT; CREATE INDEX i ON y (a); RENAME TABLE y TO z; TRUNCATE z; DROP TABLE z; DROP DATABASE another; DROP DATABASE mine", "", ""},
	{"USE OURS; CREATE TEMPORARY TABLE tmp (a INT); INSERT INTO tmp VALUES (1); DROP TABLE tmp; CREATE TEMPORARY TABLE tmp2 (a INT)", "", ""},
	{"CREATE PROCEDURE other.p() SELECT 1", "CREATE PROCEDURE", ""},
	{"CREATE FUNCTION other.f() RETURNS INT DETERMINISTIC RETURN 1", "CREATE FUNCTION", ""},
	{"CREATE EVENT other.e ON SCHEDULE EVERY 1 DAY DO SELECT 1", "CREATE EVENT", ""},
	{"GRANT EXECUTE ON PROCEDURE other.p TO fromactive@localhost", "GRANT PROCEDURE", ""},
	{"CREATE TABLE OURS.lk LIKE other.x", "CREATE TABLE", ""},
	{"CREATE TABLE other.mv (a INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO other.mv VALUES (1),(2); RENAME TABLE other.mv TO OURS.mv", "RENAME TABLE", ""},
	{"RENAME TABLE OURS.mv TO other.mv", "RENAME TABLE", ""},
	{"USE OURS; ALTER TABLE lk RENAME TO other.lk", "ALTER TABLE", ""},
	{"SET SESSION binlog_format='STATEMENT'; USE other; UPDATE OURS.t, other.x SET OURS.t.n = 101, other.x.a=5 WHERE id = 1", "UPDATE", ""},
	{"USE OURS; ALTER TABLE logs ADD PARTITION (PARTITION p1 VALUES LESS THAN (20))", "ALTER TABLE … PARTITION", "MariaDB"},
	{"USE OURS; CREATE PROCEDURE p()\nSELECT 1", "CREATE PROCEDURE", ""},
}

// TestReplicaAlterSequence changes what an applier with a filter leaves out without a word.
func TestReplicaAlterSequence(t *testing.T) {
	t.Parallel()
	l := replicaLab(t, mariaDB)
	heard, listen := collect()
	r := l.replica(t, func(o *ReplicaOptions) { listen(&o.Options) })
	l.onActive(t, "CREATE SEQUENCE ids MAXVALUE 10 NOCACHE; CREATE TABLE t (id BIGINT PRIMARY KEY DEFAULT NEXTVAL(ids), v INT) ENGINE=InnoDB; INSERT INTO t (v) VALUES (1), (2), (3)")
	l.replicate(t, r)
	for _, statement := range []string{
		"ALTER SEQUENCE ids MAXVALUE 1000000", "ALTER SEQUENCE ids INCREMENT 7", "ALTER SEQUENCE ids INCREMENT -1 MINVALUE -100 MAXVALUE 100 RESTART 50",
	} {
		heard.all()
		l.onActive(t, statement+"; INSERT INTO t (v) VALUES (4), (5)")
		l.replicate(t, r)
		if said := heard.all(); !strings.Contains(said, "ALTER SEQUENCE") {
			t.Errorf("%s: %s", statement, said)
		}
		if c, err := r.Compare(t.Context()); err != nil || c.Different != 0 {
			t.Errorf("%s: the comparison with the active finds %+v, %v", statement, c, err)
		}
	}
}

// TestReplicaThatLacksThePoint waits for a transaction that no relay log holds, as
// after a power loss that took the end of them.
func TestReplicaThatLacksThePoint(t *testing.T) {
	t.Parallel()
	l := replicaLab(t, mySQL)
	r := l.replica(t, func(o *ReplicaOptions) { o.Quiet = 2 * time.Second })
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB")
	l.replicate(t, r)
	l.onActive(t, "INSERT INTO t VALUES (1)")
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k, err := r.link(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	point := gtidOf(c.Point().Position)
	a := &application{link: k, gtid: strings.Split(point, ":")[0] + ":1-100000"}
	if a.want, err = k.parse(a.gtid); err != nil {
		t.Fatal(err)
	}
	for _, s := range k.say.apply(place{}, place{}, a.gtid) {
		if err := k.run(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.awaitApplied(ctx); err == nil || !strings.Contains(err.Error(), "the server applied up to GTID") {
		t.Errorf("the wait ended with %v", err)
	}
}
