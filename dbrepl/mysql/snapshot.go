package mysql

import (
	"cmp"
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

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// snapshot is a number of sessions of the active that all see its database as
// of one point.
type snapshot struct {
	sessions []*sql.Conn
	point    dbrepl.Point
	locked   time.Duration // how long commits were locked for it
	between  func()        // for tests, called before each session begins
	claims   *claims       // nil when the sessions do not say whose they are
	held     []string      // the lock of each session, if any
}

// How long a lock on the active may last, at the most.
const (
	lockWait = 5 * time.Second // until it is given
	lockHold = 2 * time.Second // until it is let go
	lockIdle = 5 * time.Second // until the server ends a session that has the lock and says nothing
)

// lockedAgainst is what such a lock keeps others from.
const lockedAgainst = "commits"

// tries is how often sessions are lined up anew while the active commits between them.
const tries = 50

func (s *snapshot) close() {
	var work sync.WaitGroup
	for i, c := range s.sessions {
		work.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), killTime)
			defer cancel()
			// A session that cannot be rolled back is of no further use.
			if _, err := c.ExecContext(ctx, "ROLLBACK"); err != nil {
				_ = c.Raw(func(any) error { return driver.ErrBadConn })
			}
			if s.claims != nil {
				s.claims.release(ctx, c, s.held[i])
			}
			c.Close()
		})
	}
	work.Wait()
}

// openSnapshot lines up n sessions. The gentlest way that works is taken:
// MariaDB tells each snapshot's own position, so equal positions prove equal
// snapshots; MySQL with GTIDs tells whether anything is being committed, so that
// a position that is the same before and after proves it; and only if neither
// can, a lock stops commits for a moment. Without GTIDs a position proves
// nothing: it moves on when a transaction is written to the binary log, which
// others see some time later.
func (e *Engine) openSnapshot(ctx context.Context, id identity, tables []table, n int) (_ *snapshot, err error) {
	s := &snapshot{point: dbrepl.Point{Server: id.String()}, between: e.between}
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
	if err := e.claim(ctx, s); err != nil {
		return nil, e.active.explain(ctx, err)
	}
	k, err := readClock(ctx, s.sessions[0])
	if err != nil {
		return nil, e.active.explain(ctx, err)
	}
	s.point.Skew, s.point.SkewError = k.skew, k.within

	err = s.gather(ctx, e, id, tables)
	if hasNumber(err, errNoDatabaseAccess, errAccessDeniedLocal) || errors.Is(err, errLongStatement) {
		e.warn("%v; so one session reads everything, which is slower, and its position is not known", err)
		s.keep(func(i int) bool { return i == 0 })
		err = s.alone(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("consistent snapshot of the active database: %w", e.active.explain(ctx, err))
	}
	return s, nil
}

// gather starts a snapshot in each session, all of the same moment.
func (s *snapshot) gather(ctx context.Context, e *Engine, id identity, tables []table) error {
	switch {
	case id.MariaDB && id.BinaryLog:
		return s.lineUpUnlocked(ctx, e)
	case !id.BinaryLog && len(s.sessions) == 1:
		return s.alone(ctx)
	case id.BinaryLog:
		gtids, err := hasGTIDs(ctx, s.sessions[0])
		if err != nil {
			return err
		}
		if gtids {
			done, err := s.lineUp(ctx, func(ctx context.Context, c *sql.Conn) (string, error) { return restingPosition(ctx, c, id) })
			if err != nil || done {
				return err
			}
		}
	}
	if err := e.mayLock(ctx, s.sessions[0], id); err != nil {
		return err
	}
	var err error
	s.locked, err = e.withLock(ctx, id, tables, func() error {
		done, err := s.lineUp(ctx, func(ctx context.Context, c *sql.Conn) (string, error) { return serverPosition(ctx, c, id) })
		if err == nil && !done {
			err = errors.New("the active database commits in spite of the lock")
		}
		return err
	})
	return err
}

// lineUpUnlocked starts a snapshot in all sessions at once, until each tells the
// same position. Where so much is committed that it never comes to that, those
// of the last attempt that are at one position must do: at least one, and no lock.
func (s *snapshot) lineUpUnlocked(ctx context.Context, e *Engine) error {
	for try := 1; ; try++ {
		at, err := serverTime(ctx, s.sessions[0])
		if err != nil {
			return err
		}
		positions := make([]string, len(s.sessions))
		var work errgroup.Group
		for i, c := range s.sessions {
			if s.between != nil {
				s.between()
			}
			begin := func() (err error) {
				if _, err = c.ExecContext(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err == nil {
					positions[i], err = ownPosition(ctx, c)
				}
				return err
			}
			if s.between == nil {
				work.Go(begin)
			} else if err := begin(); err != nil {
				return err
			}
		}
		if err := work.Wait(); err != nil {
			return err
		}
		most := mostOf(positions)
		same := !slices.ContainsFunc(positions, func(p string) bool { return p != most })
		if try == tries && !same {
			e.warn("the active database commits so often that only some sessions see one moment; the capture is slower, and locks nothing")
			s.keep(func(i int) bool { return positions[i] == most })
			same = true
		}
		if same {
			s.point.Time = at
			s.point.Position, err = withGTID(ctx, s.sessions[0], strings.TrimPrefix(most, snapshotMark))
			return err
		}
		for _, c := range s.sessions {
			if _, err := c.ExecContext(ctx, "ROLLBACK"); err != nil {
				return err
			}
		}
	}
}

// mostOf returns what is most often among all, which are not none.
func mostOf(all []string) (most string) {
	count := make(map[string]int)
	for _, v := range all {
		if count[v]++; count[v] > count[most] {
			most = v
		}
	}
	return most
}

// keep lets go of the sessions of which wanted does not say that they stay.
func (s *snapshot) keep(wanted func(i int) bool) {
	stay, rest := &snapshot{}, &snapshot{claims: s.claims}
	for i, c := range s.sessions {
		to := rest
		if wanted(i) {
			to = stay
		}
		to.sessions = append(to.sessions, c)
		if s.claims != nil {
			to.held = append(to.held, s.held[i])
		}
	}
	s.sessions, s.held = stay.sessions, stay.held
	rest.close()
}

// alone starts a snapshot in the only session.
func (s *snapshot) alone(ctx context.Context) (err error) {
	if s.point.Time, err = serverTime(ctx, s.sessions[0]); err != nil {
		return err
	}
	_, err = s.sessions[0].ExecContext(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
	return err
}

// hasGTIDs says whether every transaction of a server of MySQL gets a GTID.
func hasGTIDs(ctx context.Context, c *sql.Conn) (bool, error) {
	r, err := one(ctx, c, "SELECT @@GLOBAL.gtid_mode m")
	return r.get("m") == "ON", err
}

// errMoving says that a position tells nothing about snapshots now.
var errMoving = errors.New("a transaction is being committed")

// restingPosition is the position of a server of MySQL with GTIDs, or errMoving
// while a transaction is between the binary log and its end: it owns its GTID
// from before the one until after the other. So if no GTID is owned before and
// after something, and the same are executed, nothing was committed meanwhile.
func restingPosition(ctx context.Context, c *sql.Conn, id identity) (string, error) {
	end, err := logEnd(ctx, c, showLogEnd(id))
	if err != nil {
		return "", err
	}
	owned, err := one(ctx, c, "SELECT @@GLOBAL.gtid_owned o")
	if err != nil {
		return "", err
	}
	if owned.get("o") != "" {
		return "", errMoving
	}
	r, err := one(ctx, c, "SELECT @@GLOBAL.gtid_executed g") // after the other
	return cmp.Or(end, "unknown") + " " + strings.ReplaceAll(r.get("g"), "\n", ""), err
}

// lineUp starts a snapshot in each session until the position was the same for
// all. The time is read just before the first, so the snapshot holds at least
// what was committed by then.
func (s *snapshot) lineUp(ctx context.Context, position func(context.Context, *sql.Conn) (string, error)) (bool, error) {
	for range tries {
		before, err := position(ctx, s.sessions[0])
		if errors.Is(err, errMoving) {
			continue
		}
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
			if err != nil && !errors.Is(err, errMoving) {
				return false, err
			}
			if i == 0 && strings.HasPrefix(now, snapshotMark) {
				first = now // a snapshot's own position needs no other before it
			}
			same = same && err == nil && now == first
		}
		if same {
			s.point.Time, s.point.Position = at, first
			return true, nil
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

// withGTID adds the GTID to a position of the binary log. Nothing can have been
// written while that is still the end of the log; else the server has to read
// the log from its beginning, so it is asked once, and not while sessions are
// lined up.
func withGTID(ctx context.Context, c *sql.Conn, position string) (string, error) {
	r, err := one(ctx, c, "SELECT @@GLOBAL.gtid_binlog_pos g")
	if err != nil {
		return "", err
	}
	if end, err := logEnd(ctx, c, "SHOW MASTER STATUS"); err != nil {
		return "", err
	} else if end != position {
		i := strings.LastIndexByte(position, ':')
		if r, err = one(ctx, c, "SELECT BINLOG_GTID_POS(?, ?) g", position[:i], position[i+1:]); err != nil {
			return "", err
		}
	}
	return strings.TrimSpace(position + " " + r.get("g")), nil
}

func showLogEnd(id identity) string {
	if !id.MariaDB && id.atLeast(8, 2, 0) {
		return "SHOW BINARY LOG STATUS"
	}
	return "SHOW MASTER STATUS"
}

// logEnd is where the binary log ends, as show tells: "" without the right to
// see it.
func logEnd(ctx context.Context, c *sql.Conn, show string) (string, error) {
	status, err := records(ctx, c, show)
	if hasNumber(err, errAccessDeniedLocal) {
		return "", nil
	}
	if err != nil || len(status) == 0 {
		return "", err
	}
	return status[0].get("file") + ":" + status[0].get("position"), nil
}

// serverPosition is the server's position now: "" without a binary log or
// without the right to see it.
func serverPosition(ctx context.Context, c *sql.Conn, id identity) (string, error) {
	if !id.BinaryLog {
		return "", nil
	}
	set := "@@GLOBAL.gtid_binlog_pos"
	if !id.MariaDB {
		set = "@@GLOBAL.gtid_executed"
	}
	end, err := logEnd(ctx, c, showLogEnd(id))
	if err != nil || end == "" {
		return "", err
	}
	r, err := one(ctx, c, "SELECT "+set+" g")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(end + " " + strings.ReplaceAll(r.get("g"), "\n", "")), nil
}

// errLongStatement says that nobody should ask for a lock now.
var errLongStatement = errors.New("a lock would have to wait for a statement that has run for long")

// mayLock waits, no longer than for a table, until no statement on the active has
// run for as long as a lock is waited for. FLUSH TABLES WITH READ LOCK waits for
// whoever reads a table, with everybody who wants to write behind it; and when it
// has given up, who comes to that table still waits until the reader is done.
func (e *Engine) mayLock(ctx context.Context, c *sql.Conn, id identity) error {
	if stagedLock(id) {
		return nil // it waits for nobody who reads
	}
	until := time.Now().Add(e.opt.Lock)
	for {
		long, err := longStatements(ctx, c)
		switch {
		case err != nil:
			return err
		case long == nil:
			return nil
		case time.Now().After(until):
			return fmt.Errorf("%w, %s", errLongStatement, someOf(long))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// longStatements names the sessions that have been at one statement for longer
// than a lock is waited for. Those of others are only seen by who has PROCESS. The
// threads of a replica, which have no statement, only wait for one.
func longStatements(ctx context.Context, c *sql.Conn) (who []string, err error) {
	found, err := records(ctx, c, fmt.Sprintf("SELECT ID id, USER user, TIME time FROM information_schema.PROCESSLIST "+
		"WHERE COMMAND IN ('Query', 'Execute') AND INFO IS NOT NULL AND TIME >= %d AND ID <> CONNECTION_ID() ORDER BY TIME DESC", int(lockWait/time.Second)))
	for _, r := range found {
		who = append(who, fmt.Sprintf("connection %s of %s for %s s", r.get("id"), r.get("user"), r.get("time")))
	}
	return who, err
}

// withLock runs do while no transaction of the active can commit. The lock is
// refused rather than waited for, and a watchdog drops its connection, and with
// it the lock, when do takes too long.
//
// It returns how long others had to wait at most: from when the lock was asked
// for, since who comes after it waits already then, until it was let go.
func (e *Engine) withLock(ctx context.Context, id identity, tables []table, do func() error) (held time.Duration, err error) {
	c, err := e.active.session(ctx, e.opt.Name)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	drop := func() { _ = c.Raw(func(any) error { return driver.ErrBadConn }) }
	lock, unlock := lockStatements(id)
	wait, cancel := context.WithTimeoutCause(ctx, 2*lockWait, errSilent)
	defer cancel()
	began := time.Now()
	// When the line freezes the watchdog's end of the connection does not reach the server, which
	// has to let go by itself.
	err = execAll(wait, c, append([]string{fmt.Sprintf("SET SESSION lock_wait_timeout=%d, wait_timeout=%d", lockWait/time.Second, lockIdle/time.Second)}, lock...)...)
	if hasNumber(err, errAccessDeniedLocal) && len(tables) > 0 {
		names := make([]string, len(tables))
		for i, t := range tables {
			names[i] = quote(t.name) + " READ"
		}
		unlock = "UNLOCK TABLES"
		err = execAll(wait, c, "LOCK TABLES "+strings.Join(names, ", "))
	}
	if err != nil {
		drop()
		err = fmt.Errorf("lock for a moment: %w", e.active.explain(wait, err))
		if hasNumber(err, errNoDatabaseAccess, errAccessDeniedLocal) {
			return 0, hint.With(err, fmt.Sprintf("GRANT RELOAD ON *.* TO %s", asAccount(id.User)))
		}
		return 0, err
	}
	expired := make(chan struct{})
	watchdog := time.AfterFunc(lockHold, func() {
		drop()
		close(expired)
	})
	err = do()
	if !watchdog.Stop() {
		<-expired
		return 0, errors.Join(fmt.Errorf("the lock on the active database was given up after %v", lockHold), err)
	}
	uerr := execAll(ctx, c, unlock)
	held = time.Since(began)
	if uerr == nil {
		uerr = execAll(ctx, c, fmt.Sprintf("SET SESSION lock_wait_timeout=%d, wait_timeout=%d", max(1, e.opt.Lock/time.Second), noTimeout))
	}
	if uerr != nil {
		drop()
		return held, errors.Join(err, e.active.explain(ctx, uerr))
	}
	return held, err
}

// stagedLock says whether a server has a lock that stops nothing but commits.
func stagedLock(id identity) bool { return id.MariaDB && id.atLeast(10, 4, 1) }

func lockStatements(id identity) (lock []string, unlock string) {
	if stagedLock(id) {
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
