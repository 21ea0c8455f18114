package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// claim keeps other configurations from working on the same database of the
// standby: a lock of the server, which a session of its own holds and which ends
// with that session, whatever ends this process.
type claim struct {
	mu   sync.Mutex
	conn *pgx.Conn // that holds the lock; nil if none does
}

// claimKey is the lock's number on every host.
func claimKey(name string) int64 {
	sum := sha256.Sum256([]byte("drsync:" + name))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// claim takes the lock for this engine, if it does not hold it any more. Whatever
// changes the standby calls it first. It wraps dbrepl.ErrBusy when another holds it.
func (e *Engine) claim(ctx context.Context) error {
	if e.claiming != nil {
		e.claiming()
	}
	e.held.mu.Lock()
	defer e.held.mu.Unlock()
	if c := e.held.conn; c != nil {
		if e.holds(ctx, c) {
			return nil
		}
		end(c)
		e.held.conn = nil
		if err := interrupted(ctx); err != nil {
			return err
		}
	}
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return err
	}
	if err := e.lock(ctx, c); err != nil {
		end(c)
		return err
	}
	e.held.conn = c
	return nil
}

// holds says whether the session that took the lock lives: then it has it.
func (e *Engine) holds(parent context.Context, c *pgx.Conn) bool {
	ctx, cancel := context.WithTimeoutCause(parent, e.opt.Connect, errSilent)
	defer cancel()
	return c.Ping(ctx) == nil
}

// lock takes the lock in a session. The session of a process that was killed may
// take a moment to end.
func (e *Engine) lock(ctx context.Context, c *pgx.Conn) error {
	key := claimKey(e.opt.Name)
	taken, err := until(ctx, e.opt.Lock, func() (taken bool, err error) {
		err = c.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", key).Scan(&taken)
		return taken, err
	})
	if err != nil || taken {
		return e.standby.explain(ctx, err)
	}
	who, err := column(ctx, c, `SELECT concat('process ', l.pid, ' of ' || a.usename, ' from ' || host(a.client_addr), ' since ' || to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS TZ'))
		FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) JOIN pg_database d ON d.oid = l.database
		WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database() AND l.objsubid = 1 AND (l.classid::bigint << 32) | l.objid::bigint = $1`, key)
	if err != nil {
		return e.standby.explain(ctx, err)
	}
	return hint.With(fmt.Errorf("%w: %s of its server", dbrepl.ErrBusy, some(who, "a session that has just ended")),
		"another configuration, with a state directory of its own, replaces the same database of this server; let only one of them have it, or wait until the other's run is over")
}

// release gives the lock back.
func (e *Engine) release() {
	e.held.mu.Lock()
	defer e.held.mu.Unlock()
	if e.held.conn != nil {
		end(e.held.conn)
		e.held.conn = nil
	}
}
