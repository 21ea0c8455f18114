package postgres

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/enginetest"
	"github.com/drsync/drsync/internal/testenv"
)

// replicaLab is a pair of servers of which the standby's has nothing yet.
type replicaLab struct {
	t               testing.TB
	active, standby *testenv.PostgresServer
	name, slot      string
	processes
}

var replicaLabs atomic.Int64

func newReplicaLab(t testing.TB, active *testenv.PostgresServer) *replicaLab {
	t.Helper()
	n := replicaLabs.Add(1)
	l := &replicaLab{t: t, active: active, name: fmt.Sprintf("rep_%d", n), slot: fmt.Sprintf("drsync_%d", n)}
	active.Exec(t, "postgres", "CREATE DATABASE "+l.name)
	t.Cleanup(func() {
		_, _ = active.Query("postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+l.slot+"'")
		_, _ = active.Query("postgres", "DROP DATABASE IF EXISTS "+l.name+" WITH (FORCE)")
	})
	l.standby = testenv.PostgresFrom(t, func(string) {})
	return l
}

func (l *replicaLab) options() ReplicaOptions {
	return ReplicaOptions{
		Options: Options{
			Name:     l.name,
			Active:   Server{Address: l.active.Addr, User: "postgres"},
			Standby:  Server{Address: l.standby.Socket, User: "postgres"},
			Timeouts: Timeouts{Lock: time.Second},
		},
		DataDirectory: l.standby.Datadir,
		Slot:          l.slot,
		Start: func(context.Context) error {
			l.standby.Launch()
			return nil
		},
		Stop: func(context.Context) error {
			l.standby.Stop()
			return nil
		},
	}
}

func (l *replicaLab) engine(t testing.TB, adjust ...func(*ReplicaOptions)) *Replica {
	t.Helper()
	o := l.options()
	for _, a := range adjust {
		a(&o)
	}
	r, err := NewReplica(o)
	if err != nil {
		t.Fatal(err)
	}
	r.careless = true
	r.e.claiming = l.claiming(r)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

// up starts the standby's server if it does not run and has something to show.
func (l *replicaLab) up(t testing.TB) {
	t.Helper()
	c := cluster{l.standby.Datadir}
	there, err := c.exists()
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := c.running(); err != nil || pid == 0 && there {
		l.standby.Start()
	}
}

func (l *replicaLab) onActive(t testing.TB, statements string) {
	t.Helper()
	l.active.Exec(t, l.name, statements)
}

func (l *replicaLab) capture(t testing.TB, r *Replica) dbrepl.Captured {
	t.Helper()
	c, err := r.Capture(t.Context(), dbrepl.CaptureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (l *replicaLab) sync(t testing.TB, r *Replica) dbrepl.Captured {
	t.Helper()
	c := l.capture(t, r)
	if err := c.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReplicaContract(t *testing.T) {
	t.Parallel()
	active := testenv.Postgres(t)
	enginetest.Run(t, func(t testing.TB) enginetest.Fixture {
		l := newReplicaLab(t, active)
		return enginetest.Fixture{
			Engine: l.engine(t),
			Active: func(t testing.TB, s string) { t.Helper(); l.onActive(t, s) },
			// A publish that was cut short may have left the server stopped, which
			// whoever takes over starts.
			Standby: func(q string) ([]string, error) {
				l.up(t)
				return l.standby.Query(l.name, q)
			},
			Write: func(s string) error {
				_, err := l.standby.Query(l.name, s)
				return err
			},
			Open: func(t testing.TB) dbrepl.Engine { return l.engine(t) },
			Crash: func(t testing.TB, n int) (dbrepl.Engine, func() bool) {
				r := l.engine(t)
				return r, crashAt(r.e, n)
			},
		}
	})
}
