package postgres

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drsync/drsync/internal/testenv"
)

// TestNoProcessShowsThePassword reads the arguments and the environment of every
// process of the host again and again while a database is dumped, loaded and
// replicated. Each program is held until it was seen: those that read the active by
// a line on which next to nothing arrives, and pg_restore by an index whose function waits for a
// table that all databases of the standby's server have.
func TestNoProcessShowsThePassword(t *testing.T) {
	t.Parallel()
	const secret = "pa55-that-nobody-may-see"
	active := testenv.Postgres(t)
	active.Exec(t, "postgres", "CREATE ROLE keeper LOGIN SUPERUSER REPLICATION PASSWORD '"+secret+"'")
	l := newLab(t, active, testenv.Postgres(t))
	l.standby.Exec(t, "postgres", "CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '"+secret+"'")
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t SELECT g, repeat(md5(g::text), 100) FROM generate_series(1, 1000) g; ALTER TABLE t ALTER x SET STORAGE EXTERNAL")
	l.onActive(t, "CREATE FUNCTION held(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM FROM pg_replication_origin; RETURN $1; END'; CREATE INDEX ON t (held(n))")
	rl := newReplicaLab(t, active)
	const slow, fast = 64 << 10, 0 // bytes per second
	proxy := testenv.Proxy(t, active.Addr)
	proxy.SetRate(slow)
	holder, err := l.standby.Conn(t.Context(), "postgres")
	must(t, err)
	defer holder.Close(context.Background())
	_, err = holder.Exec(t.Context(), "BEGIN")
	must(t, err)
	_, err = holder.Exec(t.Context(), "LOCK TABLE pg_replication_origin IN ACCESS EXCLUSIVE MODE")
	must(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	seen := make(map[string]bool)
	told := false
	saw := func(program string) {
		switch {
		case seen[program]:
		case program == "pg_dump", program == "pg_basebackup":
			proxy.SetRate(fast)
		case program == "pg_restore":
			if _, err := holder.Exec(context.Background(), "ROLLBACK"); err != nil {
				t.Error(err)
			}
		}
		seen[program] = true
	}
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for last := false; !last; <-tick.C {
			last = ctx.Err() != nil
			all, err := filepath.Glob("/proc/[0-9]*")
			if err != nil {
				t.Error(err)
			}
			for _, dir := range all {
				arguments, err := os.ReadFile(filepath.Join(dir, "cmdline"))
				if err != nil { // it has ended
					continue
				}
				environment, err := os.ReadFile(filepath.Join(dir, "environ"))
				if err != nil {
					continue
				}
				if said := string(arguments) + string(environment); strings.Contains(said, secret) && !told {
					told = true
					t.Errorf("%s shows the password: %q", dir, said)
				}
				// What other tests have started is not what is held.
				program, rest, _ := strings.Cut(string(arguments), "\x00")
				if strings.Contains(rest, l.name) || strings.Contains(rest, rl.standby.Datadir) {
					saw(filepath.Base(program))
				}
			}
		}
	})
	server := Server{Address: proxy.Addr, User: "keeper", Password: secret}
	l.sync(t, l.engine(t, func(o *Options) {
		o.Active, o.Standby.User, o.Standby.Password, o.Standby.Address = server, "keeper", secret, l.standby.Addr
	}))
	proxy.SetRate(slow)
	r := rl.engine(t, func(o *ReplicaOptions) { o.Active, o.Standby.User, o.Standby.Password = server, "keeper", secret })
	rl.sync(t, r)
	rl.onActive(t, "CREATE TABLE t (n int)")
	rl.sync(t, r)
	cancel()
	watch.Wait()
	for _, program := range []string{"pg_dump", "pg_restore", "pg_basebackup", "postgres"} {
		if !seen[program] {
			t.Errorf("%s was not seen", program)
		}
	}
}
