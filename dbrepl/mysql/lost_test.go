package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
)

// claimed returns the connections of the active that hold a lock of a standby.
func (l *lab) claimed(t testing.TB, instance string) (ids []string) {
	t.Helper()
	c, err := l.active.DB(t, "").Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := claims{instance: instance, mine: make(map[string]bool)}
	held, err := holders(t.Context(), c, all.names())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range held {
		ids = append(ids, h.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// connected returns those of some connections that the active still has.
func (l *lab) connected(t testing.TB, ids []string) []string {
	t.Helper()
	return l.mustQuery(t, l.active, "SELECT ID FROM information_schema.PROCESSLIST WHERE ID IN ("+strings.Join(append(ids, "0"), ",")+")")
}

// lostSessionsAreEnded freezes the line in the middle of a capture. What it leaves
// on the active is ended by the next run before that opens its snapshot, and what is
// of another standby, or of another account, is left.
func lostSessionsAreEnded(t *testing.T, l *lab) {
	l.onActive(t, "CREATE TABLE t (id INT PRIMARY KEY, pad VARCHAR(1000)) ENGINE=InnoDB; INSERT INTO t SELECT seq, REPEAT('x', 1000) FROM seq_1_to_30000; CREATE TABLE u (id INT) ENGINE=InnoDB")
	instance := l.options().Instance
	user := "lost_" + l.name
	l.active.Exec(t, "", "CREATE USER "+user+"@'%'; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON "+asPattern(l.name)+".* TO "+user+"@'%'")
	if l.active.IsMariaDB() {
		l.active.Exec(t, "", "GRANT SELECT ON mysql.proc TO "+user+"@'%'")
	} else {
		l.active.Exec(t, "", "GRANT SELECT ON *.* TO "+user+"@'%'")
	}
	as := func(o *Options) { o.Active.User = user }
	l.sync(t, l.engine(t, as))

	// Another standby of the same account has a snapshot all the time, and another
	// account a lock of this standby's name.
	other := l.engine(t, as, another)
	foreign, err := other.openSnapshot(t.Context(), identity{MariaDB: l.active.IsMariaDB(), BinaryLog: true}, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.close()
	odd, err := l.active.DB(t, "").Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer odd.Close()
	if got, err := getLock(t.Context(), odd, lockName(instance, "7"), 0); err != nil || !got {
		t.Fatal(got, err)
	}
	left := l.claimed(t, instance)
	if len(left) != 1 {
		t.Fatalf("before anything was lost, %s hold locks of the standby", left)
	}

	for _, next := range []string{"capture", "compare"} {
		frozen := newLine(t)
		e := l.engine(t, as, func(o *Options) {
			o.Active.Dial, o.Quiet, o.Connect = frozen.dial, 300*time.Millisecond, 300*time.Millisecond
		})
		e.workers = 2
		rows := 0
		e.during = func(table string) {
			if table == "t" {
				if rows++; rows == 2 {
					frozen.freeze()
				}
			}
		}
		if _, err := e.Capture(t.Context(), dbrepl.CaptureOptions{}); err == nil {
			t.Fatal("a capture survived a line that is frozen")
		}
		l.end(t, e)
		lost := slices.DeleteFunc(l.claimed(t, instance), func(id string) bool { return slices.Contains(left, id) })
		if len(lost) != 2 {
			t.Fatalf("the active has %s of the lost run, want two sessions", lost)
		}
		stuck := l.mustQuery(t, l.active, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND='Query' AND ID IN ("+strings.Join(lost, ",")+")")
		if stuck[0] == "0" {
			t.Error("no session waits for the line to take what it sends")
		}

		heard, listen := collect()
		again := l.engine(t, as, listen)
		looked := false
		again.between = func() {
			if looked {
				return
			}
			looked = true
			if there := l.connected(t, lost); len(there) != 0 {
				t.Errorf("%s opens its snapshot while %s are still there", next, there)
			}
		}
		switch next {
		case "capture":
			l.sync(t, again)
		case "compare":
			again.during = func(string) { again.between() } // some ways to a snapshot have no between
			if c, err := again.Compare(t.Context()); err != nil || c.Different != 0 {
				t.Errorf("compared: %+v, %v", c, err)
			}
		}
		if !looked {
			again.between()
		}
		if said := heard.all(); !strings.Contains(said, "2 connections that an earlier run had left on the active database server were ended") {
			t.Errorf("%s says %q", next, said)
		}
		if got := l.claimed(t, instance); !slices.Equal(got, left) {
			t.Errorf("after the next %s %s hold locks of the standby, want %s", next, got, left)
		}
	}
	if got := l.claimed(t, "another"); len(got) != 2 || len(l.connected(t, got)) != 2 {
		t.Errorf("of the other standby %s are left, want 2", got)
	}
	for _, c := range foreign.sessions {
		if _, err := c.ExecContext(context.Background(), "SELECT COUNT(*) FROM t"); err != nil {
			t.Errorf("the other standby's snapshot: %v", err)
		}
	}
}

// TestClaimsAreTakenTurnByTurn: an engine leaves its own sessions alone, and every
// number is free again.
func TestClaimsAreTakenTurnByTurn(t *testing.T) {
	t.Parallel()
	c := claims{instance: strings.Repeat("F", 16), mine: make(map[string]bool)}
	var names []string
	for range mostClaims {
		name, ok := c.reserve()
		if !ok || len(name) > 64 || slices.Contains(names, name) {
			t.Fatalf("reserved %q, %v", name, ok)
		}
		names = append(names, name)
	}
	if name, ok := c.reserve(); ok || len(c.names()) != 0 {
		t.Errorf("reserved %q, and of others are %s", name, c.names())
	}
	c.giveUp(names[3])
	if name, _ := c.reserve(); name != names[3] {
		t.Errorf("reserved %q, want %q", name, names[3])
	}
	if n := len(schemaLock(strings.Repeat("é", 50))); n > 64 {
		t.Errorf("the lock of a schema has %d characters", n)
	}
	for name, want := range map[string]bool{"": true, "0123456789abcDEF": true, "0123456789abcdef0": false, "a-b": false, "é": false} {
		if _, err := New(Options{Name: "art", Active: Server{Address: "db:3306", User: "u"}, Standby: Server{Address: "/run/s", User: "u"}, Instance: name}); (err == nil) != want {
			t.Errorf("%s: %v", fmt.Sprintf("%q", name), err)
		}
	}
}
