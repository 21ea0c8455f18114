package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A standby that vanishes, or whose line does, leaves its sessions on the active,
// with their snapshots. Through a tunnel not even the active's system notices: the
// other end of the connection is on the active's own host. So each such session
// holds a user lock of a name that says whose it is; the next run, which is alone
// by the lock of its host, ends whatever still holds one.

// claims are the user locks that the sessions of one engine hold on the active.
type claims struct {
	instance string
	mu       sync.Mutex
	mine     map[string]bool
}

const (
	mostClaims = 64              // sessions with a snapshot of one standby
	endTime    = 5 * time.Second // until a session that was killed has ended
)

// lockName is of at most 64 characters, which is what a server takes.
func lockName(parts ...string) string { return "drsync:" + strings.Join(parts, ":") }

// names lists the locks of this standby, without those of the engine itself.
func (c *claims) names() (others []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range mostClaims {
		if name := lockName(c.instance, fmt.Sprint(n)); !c.mine[name] {
			others = append(others, name)
		}
	}
	return others
}

func (c *claims) reserve() (name string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range mostClaims {
		if name = lockName(c.instance, fmt.Sprint(n)); !c.mine[name] {
			c.mine[name] = true
			return name, true
		}
	}
	return "", false
}

func (c *claims) giveUp(names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		delete(c.mine, name)
	}
}

// take lets a session hold one of the locks, and returns its name. It is "" when
// all are held: then a session that is lost stays until its connection breaks.
func (c *claims) take(ctx context.Context, session asker) (string, error) {
	var tried []string
	defer func() { c.giveUp(tried...) }()
	for {
		name, ok := c.reserve()
		if !ok {
			return "", nil
		}
		got, err := getLock(ctx, session, name, 0)
		if err == nil && got {
			return name, nil
		}
		tried = append(tried, name)
		if err != nil {
			return "", err
		}
	}
}

// release lets a session that goes back into the pool hold nothing.
func (c *claims) release(ctx context.Context, session *sql.Conn, name string) {
	if name == "" {
		return
	}
	defer c.giveUp(name)
	if _, err := session.ExecContext(ctx, "DO RELEASE_LOCK(?)", name); err != nil {
		_ = session.Raw(func(any) error { return driver.ErrBadConn })
	}
}

// getLock takes a user lock, for which it waits.
func getLock(ctx context.Context, c asker, name string, wait time.Duration) (bool, error) {
	seconds := int64((wait + time.Second - 1) / time.Second)
	r, err := one(ctx, c, fmt.Sprintf("SELECT GET_LOCK(?, %d) got", seconds), name)
	return r.get("got") == "1", err
}

// claim lets the sessions of a snapshot of the active say whose they are, after
// those of an earlier run that was cut off were ended. It writes nothing and needs
// no right.
func (e *Engine) claim(ctx context.Context, s *snapshot) error {
	if e.opt.Instance == "" {
		return nil
	}
	ended, stay, err := e.active.endHolders(ctx, s.sessions[0], e.claims.names())
	if isServerError(err) {
		return nil // a server without such locks
	}
	if err != nil {
		return err
	}
	if ended > 0 {
		e.warn("%d connections that an earlier run had left on the active database server were ended", ended)
	}
	if stay != nil {
		e.warn("an earlier run has left on the active database server, and it does not end: connection %s", strings.Join(stay, ", "))
	}
	s.claims, s.held = &e.claims, make([]string, len(s.sessions))
	var work errgroup.Group
	for i, c := range s.sessions {
		work.Go(func() (err error) {
			s.held[i], err = e.claims.take(ctx, c)
			return err
		})
	}
	return work.Wait()
}

// holder is who holds a user lock.
type holder struct{ lock, id string }

// endHolders ends the sessions of this account that hold one of some locks, and
// waits for a while until they are over; stay are those that are not. An account may always
// end its own sessions, and only those are: who holds a lock of such a name under
// another account is somebody else.
func (s *server) endHolders(ctx context.Context, c *sql.Conn, locks []string) (ended int, stay []string, err error) {
	held, err := holders(ctx, c, locks)
	if err != nil || len(held) == 0 {
		return 0, nil, err
	}
	ids := make([]string, len(held))
	for i, h := range held {
		ids[i] = h.id
	}
	own, err := records(ctx, c, "SELECT ID i FROM information_schema.PROCESSLIST WHERE ID IN ("+strings.Join(ids, ",")+
		") AND ID <> CONNECTION_ID() AND USER = BINARY ?", s.spec.User)
	if err != nil {
		return 0, nil, err
	}
	ours := valuesOf(own, "i")
	for _, id := range ours {
		if _, err := c.ExecContext(ctx, "KILL "+id); err != nil && !isServerError(err) { // it may have ended by itself
			return 0, nil, err
		}
	}
	until := time.Now().Add(endTime)
	for _, h := range held {
		if !slices.Contains(ours, h.id) {
			continue
		}
		free, err := getLock(ctx, c, h.lock, max(0, time.Until(until)))
		if err != nil {
			return ended, stay, err
		}
		if !free {
			stay = append(stay, h.id)
			continue
		}
		ended++
		if _, err := c.ExecContext(ctx, "DO RELEASE_LOCK(?)", h.lock); err != nil {
			return ended, stay, err
		}
	}
	return ended, stay, nil
}

// holders asks which of some locks are held, and by whom.
func holders(ctx context.Context, c asker, locks []string) (held []holder, err error) {
	questions, args := make([]string, len(locks)), make([]any, len(locks))
	for i, name := range locks {
		questions[i], args[i] = fmt.Sprintf("IS_USED_LOCK(?) h%d", i), name
	}
	if len(locks) == 0 {
		return nil, nil
	}
	r, err := one(ctx, c, "SELECT "+strings.Join(questions, ", "), args...)
	if err != nil {
		return nil, err
	}
	for i, name := range locks {
		if id := r.get(fmt.Sprintf("h%d", i)); id != "" {
			held = append(held, holder{name, id})
		}
	}
	return held, nil
}

var errInstance = errors.New("the name of this standby is not of at most 16 letters and digits")

func validInstance(name string) error {
	odd := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	if len(name) > 16 || strings.ContainsFunc(name, odd) {
		return errInstance
	}
	return nil
}
