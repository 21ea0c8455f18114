package mysql

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/testenv"
)

// gone waits until a server has noticed that some connections are killed. Until
// then MySQL 5.7 should get no other (see onSharedServers).
func (l *lab) gone(t testing.TB, admin *sql.DB, ids []string) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if left, err := query(admin, "SELECT ID FROM information_schema.PROCESSLIST WHERE ID IN ("+strings.Join(append(ids, "0"), ",")+")"); err != nil || len(left) == 0 {
			return
		}
	}
	t.Errorf("connections %s are killed and stay", ids)
}

// sessionsThatAreKilled ends the engine's connections to one of the servers, by
// KILL, at many moments of a capture, and at each statement of a publish.
func sessionsThatAreKilled(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, n INT, pad CHAR(250), KEY (pad)) ENGINE=InnoDB; INSERT INTO t SELECT seq, 1, REPEAT(MD5(seq), 7) FROM seq_1_to_8000; CREATE TABLE u (n INT) ENGINE=InnoDB; INSERT INTO u VALUES (1); CREATE VIEW v AS SELECT n FROM u")
	first := l.engine(t)
	l.sync(t, first)
	l.end(t, first)
	user := "killed_" + l.name
	for _, m := range []*testenv.MariaDBServer{l.active, l.standby} {
		m.Exec(t, "", "CREATE USER "+user+"@'%'; CREATE USER "+user+"@localhost; GRANT ALL ON *.* TO "+user+"@'%' WITH GRANT OPTION; GRANT ALL ON *.* TO "+user+"@localhost WITH GRANT OPTION")
	}
	kill := func(m *testenv.MariaDBServer) (n int) {
		t.Helper()
		admin := m.DB(t, "")
		ids, err := query(admin, "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '"+user+"'")
		if err != nil {
			t.Error(err)
		}
		for _, id := range ids {
			_, _ = admin.Exec("KILL CONNECTION " + id) // it may be over
		}
		l.gone(t, admin, ids)
		return len(ids)
	}
	shown := 1
	check := func(what string, err error, sums ...int) {
		t.Helper()
		if err != nil && (strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "packets.go")) {
			t.Errorf("%s: not one clear line: %v", what, err)
		}
		got := l.mustQuery(t, l.standby, "SELECT (SELECT n FROM u), MIN(n), MAX(n), COUNT(*) FROM t")[0]
		ok := false
		for _, n := range sums {
			ok = ok || got == fmt.Sprintf("%d|%d|%d|8000", n, n, n)
		}
		if !ok {
			t.Fatalf("%s: the standby shows %s, want %v", what, got, sums)
		}
	}
	for side, m := range map[string]*testenv.MariaDBServer{"active": l.active, "standby": l.standby} {
		as := func(o *Options) { o.Active.User, o.Standby.User = user, user }
		for _, at := range []int{0, 1, 10, 1 << 20} { // rows of which a part is sent
			shown++
			l.onActive(t, fmt.Sprintf("UPDATE t SET n = %d; UPDATE u SET n = %[1]d", shown))
			e := l.engine(t, as)
			calls, killed := 0, 0
			e.during = func(table string) {
				if table != "" {
					calls++
				}
				if calls == at {
					killed += kill(m)
					calls++
				}
			}
			what := fmt.Sprintf("%s, killed at %d", side, at)
			c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
			if (err != nil) != (killed > 0) {
				t.Errorf("%s: %d connections were killed: %v", what, killed, err)
			}
			check(what, err, shown-1)
			if err == nil {
				if err := c.Discard(t.Context()); err != nil {
					t.Errorf("%s: discard: %v", what, err)
				}
			}
			next := l.engine(t, as)
			if err := next.Recover(t.Context(), nil); err != nil {
				t.Errorf("%s: recover: %v", what, err)
			}
			if got := l.mustStandbySchemas(t); slices.Contains(got, l.name+newSuffix) {
				t.Errorf("%s leaves %s", what, got)
			}
			l.sync(t, next)
			check(what+", the next run", nil, shown)
		}
		for at := 1; ; at++ {
			shown++
			l.onActive(t, fmt.Sprintf("UPDATE t SET n = %d; UPDATE u SET n = %[1]d; CREATE OR REPLACE VIEW v AS SELECT n + %[1]d AS n FROM u", shown))
			e := l.engine(t, as)
			c, err := e.Capture(t.Context(), dbrepl.CaptureOptions{})
			if err != nil {
				t.Fatal(err)
			}
			seen := 0
			e.before = func(string) error {
				if seen++; seen == at {
					kill(m)
				}
				return nil
			}
			err = c.Publish(t.Context())
			what := fmt.Sprintf("%s, killed at statement %d of the publish", side, at)
			check(what, err, shown-1, shown)
			if err := l.engine(t, as).Recover(t.Context(), c.Token()); err != nil {
				t.Errorf("%s: recover: %v", what, err)
			}
			check(what+", recovered", nil, shown)
			if got := l.mustQuery(t, l.standby, "SELECT n FROM v"); got[0] != fmt.Sprint(2*shown) {
				t.Errorf("%s: the view shows %s, want %d", what, got, 2*shown)
			}
			if seen < at || side == "active" {
				break
			}
		}
	}
}
