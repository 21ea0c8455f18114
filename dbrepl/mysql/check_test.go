package mysql

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/room"
	"github.com/drsync/drsync/internal/testenv"
)

// finding returns the finding that says want, or fails.
func finding(t testing.TB, e *Engine, want string) (dbrepl.Finding, bool) {
	t.Helper()
	e.active.db.SetMaxIdleConns(0) // grants and settings hold from the next session on
	e.standby.db.SetMaxIdleConns(0)
	all, err := e.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if strings.Contains(f.Subject+": "+f.Problem, want) {
			return f, true
		}
	}
	return dbrepl.Finding{}, false
}

// mended provokes a finding and executes the statement that it proposes.
type mended struct {
	active, standby string // statements that provoke it; an account is drs-ync@%
	poor            string // rights of drs-ync on the standby, who runs the check; root does without
	want            string
	fatal           bool
	fix             string
	captures        bool // when it is mended
}

// TestFindingsGoByTheirFix: each finding appears, and disappears when its own
// statement was executed as it stands.
func TestFindingsGoByTheirFix(t *testing.T) {
	t.Parallel()
	// Settings of the servers are provoked and mended one after the other.
	active, standby := mariaDB.start(t, "--event-scheduler=ON"), mariaDB.start(t)
	active.Exec(t, "", "CREATE USER app@'10.%'; CREATE USER 'odd''one'@'%'; CREATE ROLE keeper")
	enough := "GRANT ALL ON `art%`.* TO 'drs-ync'@'%'"
	for name, m := range map[string]mended{
		"MyISAM":              {active: "CREATE TABLE a (x INT) ENGINE=MyISAM; CREATE TABLE `b``c` (x INT) ENGINE=Aria", want: "only InnoDB tables have consistent snapshots: a (MyISAM), b`c (Aria)", fatal: true, fix: "-- on the active, where each table is rebuilt"},
		"lost defaults":       {active: "SET NAMES utf8mb4; CREATE TABLE a (x VARCHAR(9) DEFAULT '😀?', y VARCHAR(9) CHARACTER SET utf16 DEFAULT '😀', z VARCHAR(9) DEFAULT '?', e VARCHAR(9) DEFAULT (CONCAT('😀', '?'))) CHARACTER SET utf8mb4", want: "defaults with characters of four bytes, which the server shows to nobody as they are: a.x, a.y", fatal: true, fix: "-- on the active, the same defaults", captures: true},
		"lost members":        {active: "SET NAMES utf8mb4; CREATE TABLE a (x ENUM('a','😀'), y SET('b','c😀d')) CHARACTER SET utf8mb4; INSERT INTO a VALUES ('a', 'b'), ('😀', 'c😀d')", want: "members with characters of four bytes, which the server shows to nobody as they are: a.x, a.y", fatal: true, fix: "-- on the active, where the tables are rebuilt", captures: true},
		"members to look at":  {active: "SET NAMES utf8mb4; CREATE TABLE b (x ENUM('?','é') CHARACTER SET utf8mb4, y ENUM('?') CHARACTER SET latin1); INSERT INTO b (x) VALUES ('?'), ('é'), (NULL)", want: "members with a question mark: b.x. Where", fix: "-- on the active, where the tables are rebuilt"},
		"computed":            {active: "CREATE TABLE a (x INT AS (1) VIRTUAL); INSERT INTO a VALUES (); CREATE TABLE b (x INT AS (1), y INT)", want: "tables with nothing but generated columns have no values that could be copied: a", fatal: true, fix: "-- on the active, where it adds a column"},
		"versioned":           {active: "CREATE TABLE a (x INT) WITH SYSTEM VERSIONING", want: "tables with system versioning keep the history of their rows, whose times no server lets another one write: a", fatal: true, fix: "-- on the active, if the history"},
		"foreign key":         {active: "CREATE OR REPLACE DATABASE other; CREATE TABLE other.p (id INT PRIMARY KEY); CREATE TABLE far (x INT, FOREIGN KEY (x) REFERENCES other.p (id))", want: "foreign keys point into other databases: far → other.p", fatal: true, fix: "-- on the active, if"},
		"foreign view":        {active: "CREATE OR REPLACE DATABASE beside; CREATE TABLE beside.p (id INT); CREATE TABLE p (id INT); CREATE VIEW far AS SELECT q.id FROM beside.p q JOIN p beside ON beside.id = q.id", want: "views use tables of other databases, which the standby does not have: view far → beside.p", fatal: true, fix: "-- create these tables on the standby's server; or, on the active, if nobody needs these views: DROP VIEW"},
		"partitions":          {standby: "CREATE DATABASE %[1]s; CREATE TABLE %[1]s.cut (x INT) PARTITION BY HASH (x) PARTITIONS 2", want: "can lose a partitioned table", fatal: true, fix: "ALTER TABLE"},
		"name taken":          {standby: "CREATE DATABASE %[1]s; CREATE TABLE %[1]s.mine (x INT)", want: "it was not made by drsync: the first run moves its tables (mine) to", fix: "-- on the standby, "},
		"another's marker":    {standby: "CREATE DATABASE %[1]s; CREATE TABLE %[1]s.drsync_generation (generation TEXT); INSERT INTO %[1]s.drsync_generation VALUES ('{}')", want: "the record of the publish is of the engine", fatal: true, fix: "-- on the standby, "},
		"definer":             {active: "CREATE DEFINER=app@'10.%%' VIEW v AS SELECT 1 x; CREATE DEFINER=app@'10.%%' PROCEDURE p() SELECT 1", want: "it has no account app@10.%, to which procedure p, view v belongs", fix: "CREATE USER 'app'@'10.%' ACCOUNT LOCK; GRANT ALL PRIVILEGES ON"},
		"odd definer":         {active: "CREATE DEFINER='odd''one'@'%%' VIEW v AS SELECT 1 x", want: "it has no account odd'one@%"},
		"role as definer":     {active: "CREATE DEFINER=keeper PROCEDURE p() SELECT 1; CREATE DEFINER=keeper EVENT ev ON SCHEDULE EVERY 1 DAY DO SELECT 1", want: "it has no account keeper, to which procedure p, event ev belongs", fix: "CREATE ROLE"},
		"unseen definers":     {active: "CREATE VIEW v AS SELECT 1 x", poor: enough + "; GRANT SET USER ON *.* TO 'drs-ync'@'%'", want: "it may not see whether these accounts exist, to which objects of the database belong: root@localhost", fix: "GRANT SELECT ON mysql.user TO 'drs-ync'@'%'"},
		"unseen routines":     {active: "CREATE PROCEDURE p() SELECT 1", poor: enough + "; GRANT SET USER ON *.* TO 'drs-ync'@'%'", want: "so verify --db cannot compare them", fix: "GRANT SELECT ON mysql.proc TO 'drs-ync'@'%'"},
		"set user":            {active: "CREATE VIEW v AS SELECT 1 x", poor: enough, want: "it may not create what belongs to other accounts: view v of root@localhost", fatal: true, fix: "GRANT SET USER"},
		"no rights":           {poor: "SELECT 1", want: "it lacks SELECT, INSERT, UPDATE", fatal: true, fix: "GRANT ALL PRIVILEGES ON"},
		"lock tables":         {poor: "GRANT " + strings.Join(standbyRights[:len(standbyRights)-1], ", ") + " ON `art%`.* TO 'drs-ync'@'%'", want: "it lacks LOCK TABLES on the database", fatal: true},
		"read only":           {poor: enough, standby: "SET GLOBAL read_only=1", want: "the server is read_only", fatal: true, fix: "GRANT READ_ONLY ADMIN"},
		"binary log":          {poor: enough, want: "it may not leave its own work out of the standby's binary log", fix: "GRANT BINLOG ADMIN"},
		"packet":              {active: "SET GLOBAL max_allowed_packet=33554432", want: "max_allowed_packet is 16777216, on the active 33554432", fix: "SET GLOBAL max_allowed_packet=33554432"},
		"local_infile":        {poor: enough, standby: "SET GLOBAL local_infile=0", want: "local_infile is off", fix: "SET GLOBAL local_infile=1"},
		"function":            {active: "SET GLOBAL log_bin_trust_function_creators=1; CREATE FUNCTION f() RETURNS INT RETURN RAND()*10; CREATE FUNCTION g() RETURNS INT DETERMINISTIC RETURN 1", want: "log_bin_trust_function_creators is off, so it refuses to create function f", fatal: true},
		"trigger":             {active: "CREATE TABLE a (x INT); CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET NEW.x=1", poor: enough + "; GRANT SET USER ON *.* TO 'drs-ync'@'%'", want: "refuses to create trigger tr", fatal: true, fix: "SET GLOBAL log_bin_trust_function_creators=1"},
		"trigger, unlogged":   {active: "CREATE TABLE a (x INT); CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET NEW.x=1", poor: enough + "; GRANT SET USER, BINLOG ADMIN ON *.* TO 'drs-ync'@'%'", want: "refuses to create trigger tr", fatal: true, fix: "SET GLOBAL log_bin_trust_function_creators=1", captures: true},
		"function, unlogged":  {active: "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1", poor: enough + "; GRANT SET USER, BINLOG ADMIN ON *.* TO 'drs-ync'@'%'", want: "refuses to create function f", fatal: true, fix: "SET GLOBAL log_bin_trust_function_creators=1", captures: true},
		"scheduler":           {active: "CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO SELECT 1; CREATE EVENT off ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1", want: "event_scheduler is OFF: after a failover the 1 enabled events", fix: "SET GLOBAL event_scheduler=ON"},
		"file per table":      {standby: "SET GLOBAL innodb_file_per_table=0", want: "innodb_file_per_table is off"},
		"row format":          {standby: "SET GLOBAL innodb_default_row_format=compact", want: "innodb_default_row_format is compact, on the active dynamic"},
		"buffer pool":         {active: "SET GLOBAL innodb_buffer_pool_size=134217728", want: "innodb_buffer_pool_size is 32 MB, on the active 128 MB"},
		"primary key":         {active: "CREATE TABLE bare (x INT); CREATE TABLE fine (x INT PRIMARY KEY)", standby: "SET GLOBAL innodb_force_primary_key=1", want: "innodb_force_primary_key is on, and these tables have no primary key: bare", fatal: true},
		"active's rights":     {active: "CREATE OR REPLACE USER 'drs-ync'@'%%'", want: "it lacks SELECT, SHOW VIEW, TRIGGER, EVENT on the database", fatal: true, fix: "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON"},
		"active's routines":   {active: "CREATE OR REPLACE USER 'drs-ync'@'%%'", want: "it may not see the definitions of stored procedures", fatal: true, fix: "GRANT SELECT ON mysql.proc"},
		"active's binary log": {active: "CREATE OR REPLACE USER 'drs-ync'@'%%'", want: "whoever alters a table during a capture waits", fix: "GRANT BINLOG ADMIN"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, active, standby)
			e := l.engine(t, func(o *Options) {
				if strings.Contains(m.active, "drs-ync") {
					o.Active.User = "drs-ync"
				}
				if m.poor != "" {
					o.Standby.User = "drs-ync"
				}
			})
			if m.poor != "" {
				standby.Exec(t, "", "CREATE OR REPLACE USER 'drs-ync'@'%'; "+m.poor)
			}
			defer standby.Exec(t, "", "SET GLOBAL read_only=0, max_allowed_packet=16777216, local_infile=1, log_bin_trust_function_creators=0, event_scheduler=OFF, innodb_file_per_table=1, innodb_default_row_format=dynamic, innodb_buffer_pool_size=33554432, innodb_force_primary_key=0")
			defer active.Exec(t, "", "SET GLOBAL max_allowed_packet=16777216, log_bin_trust_function_creators=0, innodb_buffer_pool_size=33554432")
			if m.poor == "" && !strings.Contains(m.active, "drs-ync") {
				if f, ok := finding(t, e, m.want); ok {
					t.Fatalf("found before it was there: %+v", f)
				}
			}
			if m.active != "" {
				l.onActive(t, strings.ReplaceAll(m.active, "%%", "%"))
			}
			if m.standby != "" {
				standby.Exec(t, "", strings.ReplaceAll(m.standby, "%[1]s", l.name))
			}
			f, ok := finding(t, e, m.want)
			if !ok {
				all, _ := e.Check(t.Context())
				t.Fatalf("not found: %s\nbut %+v", m.want, all)
			}
			if f.Fatal != m.fatal || !strings.HasPrefix(f.Fix, m.fix) {
				t.Errorf("found %+v", f)
			}
			server := standby
			if strings.HasPrefix(f.Subject, "active") {
				server = active
			}
			if strings.HasPrefix(f.Fix, "-- ") {
				server.Exec(t, "", "DO 1; "+f.Fix)
				if now, ok := finding(t, e, m.want); !ok || now != f {
					t.Errorf("pasted as it stands, %s changed something: %+v", f.Fix, now)
				}
				_, f.Fix, _ = strings.Cut(f.Fix, ": ")
			}
			server.Exec(t, "", f.Fix)
			if f, ok := finding(t, e, m.want); ok && f.Fix == "" {
				t.Errorf("%s\ndoes not mend %+v", f.Fix, f)
			} else if ok {
				// Rights are lacked on each of three schemas.
				for range 2 {
					server.Exec(t, "", f.Fix)
					f, ok = finding(t, e, m.want)
				}
				if ok {
					t.Errorf("%s\ndoes not mend %+v", f.Fix, f)
				}
			}
			if m.captures {
				l.sync(t, e)
			}
		})
	}
}

// TestFindingsGoByARestart has what only a configuration file can mend.
func TestFindingsGoByARestart(t *testing.T) {
	t.Parallel()
	l := newLab(t, mariaDB.start(t, "--skip-log-bin", "--event-scheduler=ON"),
		mariaDB.start(t, "--innodb-read-only=1", "--event-scheduler=DISABLED", "--lower-case-table-names=1"))
	l.onActive(t, "CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO SELECT 1")
	fixed := newLab(t, mariaDB.start(t, "--event-scheduler=ON"), mariaDB.start(t, "--event-scheduler=ON"))
	fixed.onActive(t, "CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO SELECT 1")
	for want, fix := range map[string]string{
		"it runs with innodb_read_only":                               "start the standby's server without innodb_read_only",
		"event_scheduler is DISABLED: after a failover the 1 enabled": "start the standby's server with event_scheduler=ON",
		"lower_case_table_names is 1, on the active it is 0":          "start the standby's server with lower_case_table_names=0",
		"it has no binary log, so a snapshot's position is not known": "start the active's server with log_bin",
	} {
		if f, ok := finding(t, l.engine(t), want); !ok || f.Fix != fix {
			t.Errorf("found %+v, want %q", f, want)
		}
		if f, ok := finding(t, fixed.engine(t), want); ok {
			t.Errorf("found where it is mended: %+v", f)
		}
	}
	// Several sessions that see one moment need a lock where there is no binary log.
	l.active.Exec(t, "", "CREATE USER 'drs-ync'@'%'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON "+l.name+".* TO 'drs-ync'@'%'")
	e := l.engine(t, func(o *Options) { o.Active.User = "drs-ync" })
	const want = "by a lock that lasts milliseconds, which the account may not take"
	f, ok := finding(t, e, want)
	if !ok || !f.Fatal {
		t.Fatalf("found %+v, want %q", f, want)
	}
	l.active.Exec(t, "", f.Fix)
	if f, ok = finding(t, e, want); ok {
		t.Errorf("not mended: %+v", f)
	}
}

func TestMissingSpaceIsFound(t *testing.T) { everywhere(t, missingSpaceIsFound) }

func missingSpaceIsFound(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(200), KEY (v)) ENGINE=InnoDB; INSERT INTO t SELECT seq, REPEAT('x', 200) FROM seq_1_to_5000; ANALYZE TABLE t")
	r := l.mustQuery(t, l.active, "SELECT SUM(DATA_LENGTH+INDEX_LENGTH), MAX(INDEX_LENGTH) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()")
	var size, index int64
	if _, err := fmt.Sscanf(r[0], "%d|%d", &size, &index); err != nil || index == 0 {
		t.Fatal(r, err)
	}
	e := l.engine(t)
	for _, test := range []struct {
		data, sort int64
		want       []string
	}{
		{room.Reserve + size, size, []string{"fatal: has"}},
		{room.Reserve + 2*size, size, []string{"building indexes may need as much again"}},
		{room.Reserve + 3*size, index - 1, []string{"where it sorts, has"}},
		{room.Reserve + 3*size, index, nil},
	} {
		e.free = func(dir string) (int64, bool) {
			if strings.HasPrefix(dir, strings.TrimSuffix(l.standby.Datadir, "/")) {
				return test.data, true
			}
			return test.sort, true
		}
		all, err := e.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, f := range all {
			if strings.Contains(f.Problem, "free, and the") {
				found = append(found, fmt.Sprintf("%v %s: %s", f.Fatal, f.Problem, f.Fix))
			}
		}
		ok := len(found) == len(test.want)
		for i := range min(len(found), len(test.want)) {
			want, fatal := strings.CutPrefix(test.want[i], "fatal: ")
			ok = ok && strings.Contains(found[i], want) && strings.HasPrefix(found[i], "true") == fatal && strings.Contains(found[i], "MB more room in")
		}
		if !ok {
			t.Errorf("with room for %d and %d of %d and %d: %q, want %q", test.data, test.sort, size, index, found, test.want)
		}
	}
}

// TestNamedRightsSuffice gives an account exactly the rights that are asked for,
// one by one, and runs everything that an engine does.
func TestNamedRightsSuffice(t *testing.T) {
	t.Parallel()
	l := startLab(t, mariaDB)
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, u INT, FOREIGN KEY (u) REFERENCES t (id)) ENGINE=InnoDB; INSERT INTO t VALUES (1, NULL)")
	for _, m := range []*testenv.MariaDBServer{l.active, l.standby} {
		m.Exec(t, "", "CREATE USER 'drs-ync'@'%'")
	}
	l.active.Exec(t, "", "GRANT "+strings.Join(activeRights, ", ")+" ON "+asPattern(l.name)+".* TO 'drs-ync'@'%'; GRANT SELECT ON mysql.proc TO 'drs-ync'@'%'")
	for _, suffix := range []string{"", newSuffix, prevSuffix} {
		l.standby.Exec(t, "", "GRANT "+strings.Join(standbyRights, ", ")+" ON "+asPattern(l.name+suffix)+".* TO 'drs-ync'@'%'")
	}
	l.onActive(t, "CREATE DEFINER='drs-ync'@'%' VIEW v AS SELECT * FROM t; CREATE DEFINER='drs-ync'@'%' EVENT ev ON SCHEDULE EVERY 1 DAY DO DELETE FROM t; CREATE DEFINER='drs-ync'@'%' PROCEDURE p() SELECT 1; CREATE SEQUENCE s")
	e := l.engine(t, func(o *Options) { o.Active.User, o.Standby.User = "drs-ync", "drs-ync" })
	all, err := e.Check(t.Context())
	if err != nil || slices.ContainsFunc(all, func(f dbrepl.Finding) bool { return f.Fatal }) {
		t.Fatalf("%+v, %v", all, err)
	}
	for range 2 {
		c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r, err := e.Compare(t.Context()); err != nil || r.Different != 0 {
			t.Errorf("compared: %+v, %v", r, err)
		}
	}
	if _, err := e.Promote(t.Context()); err != nil {
		t.Error(err)
	}
}
