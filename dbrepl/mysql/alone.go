package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// aloneness is that nobody else changes the schema of the standby: a user lock
// on its server, in a session of its own, from the first method that changes
// something until Close. The lock of the host keeps apart what has one state
// directory, and that of the home what has one home; two configurations with
// neither in common can still name one database.
type aloneness struct {
	mu   sync.Mutex
	conn *sql.Conn // that holds the lock; nil before
}

// schemaLock is the name of the lock of a schema.
func schemaLock(name string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(name))) // two of one name in another case may be one
	return lockName("database", hex.EncodeToString(sum[:16]))
}

// beAlone takes the lock, or makes sure that it is still held: a server that was
// started anew knows nothing of it. Another's is waited for, no longer than for a table,
// and is then an error that wraps dbrepl.ErrBusy.
func (e *Engine) beAlone(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e.alone.mu.Lock()
	defer e.alone.mu.Unlock()
	name := schemaLock(e.opt.Name)
	if c := e.alone.conn; c != nil {
		r, err := one(ctx, c, "SELECT IS_USED_LOCK(?) = CONNECTION_ID() held", name)
		if err == nil && r.get("held") == "1" {
			return nil
		}
		e.alone.conn = nil
		drop(c)
	}
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return err
	}
	if err := e.takeSchema(ctx, c, name); err != nil {
		drop(c) // with whatever locks it has
		return e.standby.explain(ctx, err)
	}
	e.alone.conn = c
	return nil
}

// drop ends a session instead of giving it back to the pool.
func drop(c *sql.Conn) {
	_ = c.Raw(func(any) error { return driver.ErrBadConn })
	_ = c.Close() // which it is
}

// takeSchema takes the lock of the schema. Before it the session takes one of this
// standby's name: whoever has that is a session that an earlier run has lost, whose
// end the server has not noticed.
func (e *Engine) takeSchema(ctx context.Context, c *sql.Conn, name string) error {
	if e.opt.Instance != "" {
		own := lockName(e.opt.Instance, "standby")
		if got, err := getLock(ctx, c, own, 0); err != nil {
			return err
		} else if !got {
			if _, _, err := e.standby.endHolders(ctx, c, []string{own}); err != nil {
				return err
			}
			// It may also be ending by itself. Who has the lock for longer is of another account.
			if _, err := getLock(ctx, c, own, e.opt.Lock); err != nil {
				return err
			}
		}
	}
	got, err := getLock(ctx, c, name, e.opt.Lock)
	if err != nil || got {
		return err
	}
	who, err := e.usedBy(ctx, c)
	if err != nil {
		return err
	}
	return hint.With(fmt.Errorf("%w, %s", dbrepl.ErrBusy, who),
		"another configuration of drsync names the same database on this server: give each its own, or wait until the other's run is over")
}

// usedBy words who else is at work on the schema; "" is nobody.
func (e *Engine) usedBy(ctx context.Context, c asker) (string, error) {
	held, err := holders(ctx, c, []string{schemaLock(e.opt.Name)})
	if err != nil || len(held) == 0 {
		return "", err
	}
	who := "connection " + held[0].id
	r, err := records(ctx, c, "SELECT USER u, HOST h FROM information_schema.PROCESSLIST WHERE ID = "+held[0].id)
	if err == nil && len(r) == 1 { // else it may not be seen
		who += fmt.Sprintf(" of %s from %s", r[0].get("u"), r[0].get("h"))
	}
	return who, err
}

// inspectAlone says who else is at work on the schema.
func (e *Engine) inspectAlone(ctx context.Context, p *pair) error {
	if e.isAlone() {
		return nil
	}
	c, err := e.standby.session(ctx, "")
	if err != nil {
		return err
	}
	defer c.Close()
	locks := []string{schemaLock(e.opt.Name), lockName(e.opt.Instance, "standby")}
	held, err := holders(ctx, c, locks)
	if len(held) == 2 && held[0].id == held[1].id {
		return nil // a run of this configuration
	}
	who := ""
	if err == nil && len(held) > 0 && held[0].lock == locks[0] {
		who, err = e.usedBy(ctx, c)
	}
	if who != "" {
		p.note("standby database "+e.opt.Name, "another configuration of drsync is at work on it, "+who, "give each configuration a database of its own")
	}
	return e.standby.explain(ctx, err)
}

func (e *Engine) isAlone() bool {
	e.alone.mu.Lock()
	defer e.alone.mu.Unlock()
	return e.alone.conn != nil
}

// endAlone lets others change the schema.
func (e *Engine) endAlone() {
	e.alone.mu.Lock()
	defer e.alone.mu.Unlock()
	if e.alone.conn != nil {
		_ = e.alone.conn.Close() // into the pool, which is closed
		e.alone.conn = nil
	}
}
