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
// replicated.
func TestNoProcessShowsThePassword(t *testing.T) {
	t.Parallel()
	const secret = "pa55-that-nobody-may-see"
	active := testenv.Postgres(t)
	active.Exec(t, "postgres", "CREATE ROLE keeper LOGIN SUPERUSER REPLICATION PASSWORD '"+secret+"'")
	l := newLab(t, active, testenv.Postgres(t))
	l.standby.Exec(t, "postgres", "CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '"+secret+"'")
	l.onActive(t, "CREATE TABLE t (n int, x text); INSERT INTO t SELECT g, repeat(md5(g::text), 100) FROM generate_series(1, 1000) g; ALTER TABLE t ALTER x SET STORAGE EXTERNAL")
	rl := newReplicaLab(t, active)
	proxy := testenv.Proxy(t, active.Addr)
	proxy.SetRate(16 << 20)

	ctx, cancel := context.WithCancel(t.Context())
	seen := make(map[string]bool)
	var watch sync.WaitGroup
	watch.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"} {
				all, err := filepath.Glob(pattern)
				if err != nil {
					t.Error(err)
				}
				for _, path := range all {
					said, err := os.ReadFile(path)
					if err != nil { // it has ended
						continue
					}
					program, _, _ := strings.Cut(string(said), "\x00")
					seen[filepath.Base(program)] = true
					if strings.Contains(string(said), secret) {
						t.Errorf("%s shows the password: %q", path, said)
						return
					}
				}
			}
		}
	})
	server := Server{Address: proxy.Addr, User: "keeper", Password: secret}
	l.sync(t, l.engine(t, func(o *Options) {
		o.Active, o.Standby.User, o.Standby.Password, o.Standby.Address = server, "keeper", secret, l.standby.Addr
	}))
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
