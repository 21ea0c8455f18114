package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// TestSessionsSeeOneMoment lines up sessions in every way there is while money
// moves between tables: each must see the same sum and the same last transfer.
func TestSessionsSeeOneMoment(t *testing.T) { everywhere(t, sessionsSeeOneMoment) }

func sessionsSeeOneMoment(t *testing.T, p product) {
	logged, unlogged, numbered := p.start(t), p.unlogged(t), p.withoutGTID(t)
	if p.name != mariaDB.name {
		for _, m := range []*testenv.MySQLServer{logged, numbered} { // what is in the binary log is committed so much later
			m.Exec(t, "", "SET GLOBAL binlog_group_commit_sync_delay=3000")
		}
	}
	for name, test := range map[string]struct {
		server   *testenv.MariaDBServer
		adjust   func(*identity)
		poor     bool // an account without RELOAD
		position bool
		locks    bool
		may      bool // or not
	}{
		"own positions": {server: logged, position: true, may: p.name != mariaDB.name},
		"without GTIDs": {server: numbered, position: true, locks: p.name != mariaDB.name},
		"backup stage":  {server: unlogged, locks: true},
		"read lock":     {server: unlogged, adjust: func(i *identity) { i.Number = [3]int{10, 3, 0} }, locks: true},
		"table locks":   {server: unlogged, poor: true, locks: true},
		"one, unlogged": {server: unlogged},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, test.server, logged)
			l.onActive(t, "CREATE TABLE a (n BIGINT) ENGINE=InnoDB; CREATE TABLE b (n BIGINT) ENGINE=InnoDB; INSERT INTO a VALUES (1000000); INSERT INTO b VALUES (0)")
			e := l.engine(t)
			if test.poor {
				test.server.Exec(t, "", "CREATE OR REPLACE USER poor@'%'; GRANT SELECT, LOCK TABLES ON "+l.name+".* TO poor@'%'")
				e = l.engine(t, func(o *Options) { o.Active.User = "poor" })
			}
			stop, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			db := l.active.DB(t, l.name)
			go func() {
				var err error
				for err == nil && stop.Err() == nil {
					_, err = db.Exec("START TRANSACTION; UPDATE a SET n=n-1; UPDATE b SET n=n+1; COMMIT")
				}
				done <- err
			}()
			ctx := t.Context()
			look, err := e.active.session(ctx, l.name)
			if err != nil {
				t.Fatal(err)
			}
			defer look.Close()
			id, err := e.active.identify(ctx, look)
			if err != nil {
				t.Fatal(err)
			}
			if test.adjust != nil {
				test.adjust(&id)
			}
			sessions := 4
			if name == "one, unlogged" {
				sessions = 1
			}
			for range 10 {
				s, err := e.openSnapshot(ctx, id, []table{{name: "a"}, {name: "b"}}, sessions)
				if err != nil {
					t.Fatal(err)
				}
				seen := make(map[string]bool)
				for _, c := range s.sessions {
					r, err := one(ctx, c, "SELECT a.n x, a.n + b.n sum FROM a, b")
					if err != nil {
						t.Fatal(err)
					}
					seen[fmt.Sprint(r.get("x"), " ", r.get("sum"))] = true
					if r.get("sum") != "1000000" {
						t.Errorf("the sum is %s", r.get("sum"))
					}
				}
				if len(seen) != 1 || (s.point.Position != "") != test.position || s.point.Time.IsZero() {
					t.Errorf("%d sessions see %v at %+v", sessions, seen, s.point)
				}
				if (s.locked > 0) != test.locks && !test.may || s.locked > lockHold {
					t.Errorf("locked for %v", s.locked)
				}
				s.close()
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			// Nothing is locked any more.
			l.onActive(t, "SET lock_wait_timeout=1; ALTER TABLE a ADD COLUMN x INT; UPDATE a SET n=0")
		})
	}
}

// TestLocksOnTheActive reads what the active was asked for: MariaDB with a binary
// log is not locked, even if it commits between any two sessions; elsewhere it is
// measured how long it was.
func TestLocksOnTheActive(t *testing.T) {
	t.Parallel()
	logged, unlogged := testenv.MariaDB(t), testenv.MariaDB(t, "--skip-log-bin")
	for name, test := range map[string]struct {
		server *testenv.MariaDBServer
		busy   bool
		locks  string // with which statement
	}{
		"own positions":      {server: logged},
		"busy":               {server: logged, busy: true},
		"without binary log": {server: unlogged, locks: "BACKUP STAGE BLOCK_COMMIT"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, test.server, logged)
			if test.server == logged {
				l.standby = unlogged
			}
			l.onActive(t, "CREATE TABLE a (id INT PRIMARY KEY, n BIGINT) ENGINE=InnoDB; CREATE TABLE b (n BIGINT) ENGINE=InnoDB; INSERT INTO a SELECT seq, seq FROM seq_1_to_1000; INSERT INTO b VALUES (0)")
			heard, adjust := collect()
			e := l.engine(t, adjust)
			e.workers = 4
			commits := 0
			if test.busy {
				db := l.active.DB(t, l.name)
				e.between = func() {
					commits++
					if _, err := db.Exec("UPDATE b SET n = n + 1"); err != nil {
						t.Error(err)
					}
				}
			}
			l.active.Exec(t, "", "TRUNCATE mysql.general_log; SET GLOBAL log_output='TABLE', general_log=1")
			c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
			l.active.Exec(t, "", "SET GLOBAL general_log=0")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Publish(t.Context()); err != nil {
				t.Fatal(err)
			}
			asked := l.mustQuery(t, l.active, "SELECT argument FROM mysql.general_log WHERE argument REGEXP '^ *(LOCK|FLUSH|BACKUP|SET GLOBAL|GET_LOCK|.*FOR UPDATE|.*IN SHARE MODE)'")
			asked = slices.DeleteFunc(asked, func(s string) bool { return strings.Contains(s, "general_log") })
			n := c.Counts()
			if test.locks == "" {
				if len(asked) > 0 || n.Locked != 0 || n.Against != "" {
					t.Errorf("the active was asked for %q; locked %v against %q", asked, n.Locked, n.Against)
				}
			} else if !strings.Contains(strings.Join(asked, "\n"), test.locks) || n.Locked <= 0 || n.Locked > lockHold || n.Against != "commits" {
				t.Errorf("the active was asked for %q; locked %v against %q", asked, n.Locked, n.Against)
			}
			if said := strings.Contains(heard.all(), "commits so often"); said != test.busy || test.busy && commits < 4*tries {
				t.Errorf("it commits so often: %v, after %d", said, commits)
			}
			if got := l.mustQuery(t, l.standby, "SELECT COUNT(*), (SELECT n FROM b) FROM a"); test.busy != (got[0] != "1000|0") {
				t.Errorf("the standby has %s", got)
			}
		})
	}
}

func TestPositionIsWhereTheSnapshotIs(t *testing.T) { everywhere(t, positionIsWhereTheSnapshotIs) }

func positionIsWhereTheSnapshotIs(t *testing.T, p product) {
	l := startLab(t, p)
	l.onActive(t, "CREATE TABLE a (n INT) ENGINE=InnoDB")
	e := l.engine(t)
	c := l.sync(t, e)
	gtid := l.gtid(t)
	if p := c.Point().Position; !strings.HasSuffix(p, " "+gtid) || !strings.HasPrefix(p, "binlog.0") {
		t.Errorf("the position is %q, the server's GTID is %s", p, gtid)
	}
	l.onActive(t, "INSERT INTO a VALUES (1)")
	if next := l.sync(t, e).Point().Position; next == c.Point().Position {
		t.Errorf("the position stays %s", next)
	}
}

// TestLockIsNotKept holds the lock for longer than is allowed.
func TestLockIsNotKept(t *testing.T) { everywhere(t, lockIsNotKept) }

func lockIsNotKept(t *testing.T, p product) {
	server := p.unlogged(t)
	l := newLab(t, server, server)
	l.onActive(t, "CREATE TABLE a (n INT) ENGINE=InnoDB")
	e := l.engine(t)
	ctx := t.Context()
	look, err := e.active.session(ctx, l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	id, err := e.active.identify(ctx, look)
	if err != nil {
		t.Fatal(err)
	}
	db := l.active.DB(t, l.name)
	began := time.Now()
	_, err = e.withLock(ctx, id, nil, func() error {
		_, err := db.Exec("INSERT INTO a VALUES (1)") // waits for the lock to go
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "given up") || time.Since(began) < lockHold {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	boom := errors.New("boom")
	if _, err := e.withLock(ctx, id, nil, func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("an error under the lock: %v", err)
	}
	l.onActive(t, "SET lock_wait_timeout=1; INSERT INTO a VALUES (2)")
}

// TestLockOfAVanishedStandby cuts the line while the lock is held, without a word to the active.
func TestLockOfAVanishedStandby(t *testing.T) { everywhere(t, lockOfAVanishedStandby) }

func lockOfAVanishedStandby(t *testing.T, p product) {
	server := p.unlogged(t)
	l := newLab(t, server, server)
	l.onActive(t, "CREATE TABLE a (n INT) ENGINE=InnoDB")
	proxy := testenv.Proxy(t, server.Addr)
	defer proxy.Thaw() // what closes the engine waits for it
	e := l.engine(t, func(o *Options) { o.Active.Address = proxy.Addr })
	ctx := t.Context()
	look, err := e.active.session(ctx, l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	id, err := e.active.identify(ctx, look)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := l.active.DB(t, l.name).Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.ExecContext(ctx, "SET lock_wait_timeout=30"); err != nil {
		t.Fatal(err)
	}
	_, err = e.withLock(ctx, id, nil, func() error {
		proxy.Vanish()
		_, err := writer.ExecContext(ctx, "INSERT INTO a VALUES (1)") // waits for the lock to go
		if err != nil {
			t.Errorf("the active waits for a standby that is gone: %v", err)
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("the line was cut under the lock, and what is said is %v", err)
	}
}

// TestSnapshotsGTID asks for the GTID of a snapshot while it is the end of the
// log, and when the log has gone on.
func TestSnapshotsGTID(t *testing.T) {
	t.Parallel()
	server := testenv.MariaDB(t)
	l := newLab(t, server, server)
	l.onActive(t, "CREATE TABLE a (n BIGINT) ENGINE=InnoDB; INSERT INTO a VALUES (1)")
	ctx := t.Context()
	c, err := l.engine(t).active.session(ctx, l.name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want := l.mustQuery(t, server, "SELECT @@GLOBAL.gtid_binlog_pos")[0]
	if _, err := c.ExecContext(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
		t.Fatal(err)
	}
	for _, then := range []string{"DO 1", "INSERT INTO a VALUES (2)", "FLUSH BINARY LOGS"} {
		l.onActive(t, then)
		own, err := ownPosition(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := withGTID(ctx, c, strings.TrimPrefix(own, snapshotMark))
		if err != nil || gtidOf(got) != want {
			t.Errorf("after %s: %s, %v; want the GTID %s", then, got, err, want)
		}
	}
}

// TestNoLockBehindALongStatement: on MySQL the lock would wait for whoever reads a
// table, and everybody who writes for the lock.
func TestNoLockBehindALongStatement(t *testing.T) {
	t.Parallel()
	l := newLab(t, mySQL.unlogged(t), mySQL.unlogged(t))
	l.onActive(t, "CREATE TABLE a (n INT) ENGINE=InnoDB; INSERT INTO a VALUES (1)")
	reader, err := l.active.DB(t, l.name).Conn(t.Context())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(err)
	defer reader.Close()
	ctx, stop := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() {
		_, err := reader.ExecContext(ctx, "SELECT SLEEP(600) FROM a")
		read <- err
	}()
	defer func() { stop(); <-read }()
	look := l.active.DB(t, "")
	for len(l.mustQuery(t, l.active, fmt.Sprintf("SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP%%' AND TIME >= %d", int(lockWait/time.Second)))) == 0 {
		time.Sleep(100 * time.Millisecond)
	}
	l.active.Exec(t, "", "SET GLOBAL log_output='TABLE', general_log=1")
	heard, adjust := collect()
	e := l.engine(t, adjust)
	e.workers = 3
	c := l.sync(t, e)
	if asked, err := query(look, "SELECT argument FROM mysql.general_log WHERE argument REGEXP '^ *(LOCK|FLUSH)'"); err != nil || len(asked) > 0 || c.Counts().Locked != 0 {
		t.Errorf("the active was asked for %q: locked %v, %v", asked, c.Counts().Locked, err)
	}
	if said := heard.all(); !strings.Contains(said, "a lock would have to wait for a statement that has run for long, connection ") || !strings.Contains(said, "one session reads everything") {
		t.Errorf("the capture said %q", said)
	}
	if got := l.mustQuery(t, l.standby, "SELECT n FROM a"); !slices.Equal(got, []string{"1"}) {
		t.Errorf("the standby has %s", got)
	}
}
