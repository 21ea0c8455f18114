package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
)

// snapshot is a number of sessions of the active that all see its database as
// of one point.
type snapshot struct {
	sessions []*sql.Conn
	point    dbrepl.Point
}

// How long a lock on the active may last, at the most.
const (
	lockWait = 5 * time.Second // until it is given
	lockHold = 2 * time.Second // until it is let go
)

// tries is how often sessions are lined up anew while the active commits between them.
const tries = 50

func (s *snapshot) close() {
	for _, c := range s.sessions {
		// A session that cannot be rolled back is of no further use.
		ctx, cancel := context.WithTimeout(context.Background(), killTime)
		if _, err := c.ExecContext(ctx, "ROLLBACK"); err != nil {
			_ = c.Raw(func(any) error { return driver.ErrBadConn })
		}
		cancel()
		c.Close()
	}
}

// openSnapshot lines up n sessions. The gentlest way that works is taken:
// MariaDB tells each snapshot's own position, so equal positions prove equal
// snapshots; elsewhere a position that is the same before and after proves it;
// and only if neither can, a lock stops commits for a moment.
func (e *Engine) openSnapshot(ctx context.Context, id identity, tables []table, n int) (_ *snapshot, err error) {
	s := &snapshot{point: dbrepl.Point{Server: id.String()}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for range n {
		c, err := e.active.session(ctx, e.opt.Name)
		if err != nil {
			return nil, err
		}
		s.sessions = append(s.sessions, c)
	}
	k, err := readClock(ctx, s.sessions[0])
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	s.point.Skew, s.point.SkewError = k.skew, k.within

	err = s.gather(ctx, e, id, tables)
	if hasNumber(err, errNoDatabaseAccess, errAccessDeniedLocal) && n > 1 {
		e.warn("%v; so one session reads everything, which is slower", err)
		for _, c := range s.sessions[1:] {
			c.Close()
		}
		s.sessions = s.sessions[:1]
		err = s.gather(ctx, e, id, tables)
	}
	if err != nil {
		return nil, fmt.Errorf("consistent snapshot of the active database: %w", e.active.explain(ctx, err))
	}
	return s, nil
}

// gather starts a snapshot in each session, all of the same moment.
func (s *snapshot) gather(ctx context.Context, e *Engine, id identity, tables []table) error {
	server := func(ctx context.Context, c *sql.Conn) (string, error) { return serverPosition(ctx, c, id) }
	done, err := false, error(nil)
	switch {
	case id.MariaDB && id.BinaryLog:
		done, err = s.lineUp(ctx, ownPosition)
	case len(s.sessions) == 1 || id.BinaryLog:
		done, err = s.lineUp(ctx, server)
	}
	if err != nil || done {
		return err
	}
	return e.withLock(ctx, id, tables, func() error {
		done, err := s.lineUp(ctx, server)
		if err == nil && !done {
			err = errors.New("the active database commits in spite of the lock")
		}
		return err
	})
}

// lineUp starts a snapshot in each session until the position was the same for
// all. The time is read just before the first, so the snapshot holds at least
// what was committed by then.
func (s *snapshot) lineUp(ctx context.Context, position func(context.Context, *sql.Conn) (string, error)) (bool, error) {
	for range tries {
		before, err := position(ctx, s.sessions[0])
		if err != nil {
			return false, err
		}
		at, err := serverTime(ctx, s.sessions[0])
		if err != nil {
			return false, err
		}
		same, first := true, before
		for i, c := range s.sessions {
			if _, err := c.ExecContext(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
				return false, err
			}
			now, err := position(ctx, c)
			if err != nil {
				return false, err
			}
			if i == 0 && strings.HasPrefix(now, snapshotMark) {
				first = now // a snapshot's own position needs no other before it
			}
			same = same && now == first
		}
		if same {
			own, is := strings.CutPrefix(first, snapshotMark)
			if is {
				own, err = withGTID(ctx, s.sessions[0], own)
			}
			s.point.Time, s.point.Position = at, own
			return true, err
		}
		for _, c := range s.sessions {
			if _, err := c.ExecContext(ctx, "ROLLBACK"); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// snapshotMark tells positions of a snapshot from those of the server.
const snapshotMark = "snapshot "

// ownPosition is the binary log position of the session's own snapshot, which
// MariaDB keeps for it.
func ownPosition(ctx context.Context, c *sql.Conn) (string, error) {
	status, err := records(ctx, c, "SHOW STATUS LIKE 'binlog_snapshot_%'")
	if err != nil {
		return "", err
	}
	var file, offset string
	for _, r := range status {
		switch strings.ToLower(r.get("variable_name")) {
		case "binlog_snapshot_file":
			file = r.get("value")
		case "binlog_snapshot_position":
			offset = r.get("value")
		}
	}
	if file == "" {
		return "", errors.New("the server does not tell the snapshot's position")
	}
	return snapshotMark + file + ":" + offset, nil
}

// withGTID adds the GTID to a position of the binary log. The server reads the
// log from its beginning for that, so it is asked once, and not while sessions
// are lined up.
func withGTID(ctx context.Context, c *sql.Conn, position string) (string, error) {
	i := strings.LastIndexByte(position, ':')
	r, err := one(ctx, c, "SELECT BINLOG_GTID_POS(?, ?) g", position[:i], position[i+1:])
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(position + " " + r.get("g")), nil
}

// serverPosition is the server's position now: "" without a binary log or
// without the right to see it.
func serverPosition(ctx context.Context, c *sql.Conn, id identity) (string, error) {
	if !id.BinaryLog {
		return "", nil
	}
	show, set := "SHOW MASTER STATUS", "@@GLOBAL.gtid_binlog_pos"
	if !id.MariaDB {
		set = "@@GLOBAL.gtid_executed"
		if id.atLeast(8, 2, 0) {
			show = "SHOW BINARY LOG STATUS"
		}
	}
	status, err := records(ctx, c, show)
	if hasNumber(err, errAccessDeniedLocal) {
		return "", nil
	}
	if err != nil || len(status) == 0 {
		return "", err
	}
	r, err := one(ctx, c, "SELECT "+set+" g")
	if err != nil {
		return "", err
	}
	gtid := strings.ReplaceAll(r.get("g"), "\n", "")
	return strings.TrimSpace(fmt.Sprintf("%s:%s %s", status[0].get("file"), status[0].get("position"), gtid)), nil
}

// withLock runs do while no transaction of the active can commit. The lock is
// refused rather than waited for, and a watchdog drops its connection, and with
// it the lock, when do takes too long.
func (e *Engine) withLock(ctx context.Context, id identity, tables []table, do func() error) error {
	c, err := e.active.session(ctx, e.opt.Name)
	if err != nil {
		return err
	}
	defer c.Close()
	drop := func() { _ = c.Raw(func(any) error { return driver.ErrBadConn }) }
	lock, unlock := lockStatements(id)
	wait, cancel := context.WithTimeoutCause(ctx, 2*lockWait, errSilent)
	defer cancel()
	asked := time.Now()
	err = execAll(wait, c, append([]string{fmt.Sprintf("SET SESSION lock_wait_timeout=%d", lockWait/time.Second)}, lock...)...)
	if hasNumber(err, errAccessDeniedLocal) && len(tables) > 0 {
		names := make([]string, len(tables))
		for i, t := range tables {
			names[i] = quote(t.name) + " READ"
		}
		lock, unlock = []string{"LOCK TABLES … READ"}, "UNLOCK TABLES"
		err = execAll(wait, c, "LOCK TABLES "+strings.Join(names, ", "))
	}
	if err != nil {
		drop()
		err = fmt.Errorf("lock for a moment: %w", e.active.explain(wait, err))
		if hasNumber(err, errNoDatabaseAccess, errAccessDeniedLocal) {
			return hint.With(err, fmt.Sprintf("GRANT RELOAD ON *.* TO %s", asAccount(id.User)))
		}
		return err
	}
	given := time.Now()
	expired := make(chan struct{})
	watchdog := time.AfterFunc(lockHold, func() {
		drop()
		close(expired)
	})
	err = do()
	if !watchdog.Stop() {
		<-expired
		return errors.Join(fmt.Errorf("the lock on the active database was given up after %v", lockHold), err)
	}
	if uerr := execAll(ctx, c, unlock, fmt.Sprintf("SET SESSION lock_wait_timeout=%d", max(1, e.opt.Lock/time.Second))); uerr != nil {
		drop()
		return errors.Join(err, e.active.explain(ctx, uerr))
	}
	e.opt.Event.Emit(event.Event{Kind: event.Info, Name: e.opt.Name,
		Text: fmt.Sprintf("%s was held on the active database for %v, after a wait of %v", lock[len(lock)-1], since(given), given.Sub(asked).Round(time.Microsecond))})
	return err
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Microsecond) }

func lockStatements(id identity) (lock []string, unlock string) {
	if id.MariaDB && id.atLeast(10, 4, 1) {
		return []string{"BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT"}, "BACKUP STAGE END"
	}
	return []string{"FLUSH TABLES WITH READ LOCK"}, "UNLOCK TABLES"
}

func execAll(ctx context.Context, c asker, statements ...string) error {
	for _, s := range statements {
		if _, err := c.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
