package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/testenv"
)

// TestSessionsSeeOneMoment lines up sessions in every way there is while money
// moves between tables: each must see the same sum and the same last transfer.
func TestSessionsSeeOneMoment(t *testing.T) { everywhere(t, sessionsSeeOneMoment) }

func sessionsSeeOneMoment(t *testing.T, p product) {
	logged, unlogged := p.start(t), p.unlogged(t)
	for name, test := range map[string]struct {
		server   *testenv.MariaDBServer
		adjust   func(*identity)
		poor     bool // an account without RELOAD
		position bool
	}{
		"own positions": {server: logged, position: true},
		"backup stage":  {server: unlogged},
		"read lock":     {server: unlogged, adjust: func(i *identity) { i.Number = [3]int{10, 3, 0} }},
		"table locks":   {server: unlogged, poor: true},
		"one, unlogged": {server: unlogged},
		"server's own": {server: logged, adjust: func(i *identity) {
			if i.MariaDB {
				i.Number = [3]int{10, 3, 0}
			}
		}, position: true},
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
			for range 5 {
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
	var told []string
	e := l.engine(t, func(o *Options) {
		o.Event = func(e event.Event) { told = append(told, e.Text) }
	})
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
	err = e.withLock(ctx, id, nil, func() error {
		_, err := db.Exec("INSERT INTO a VALUES (1)") // waits for the lock to go
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "given up") || time.Since(began) < lockHold {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	boom := errors.New("boom")
	if err := e.withLock(ctx, id, nil, func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("an error under the lock: %v", err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "was held on the active database for") {
		t.Errorf("of the lock it said %q", told)
	}
	l.onActive(t, "SET lock_wait_timeout=1; INSERT INTO a VALUES (2)")
}
