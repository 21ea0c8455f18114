package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/hint"
)

// Recover finishes or removes what a crash left.
func (e *Engine) Recover(ctx context.Context, commit dbrepl.Token) error {
	return e.failed("recover", e.recover(ctx, commit))
}

func (e *Engine) recover(ctx context.Context, commit dbrepl.Token) error {
	if err := interrupted(ctx); err != nil {
		return err
	}
	if commit == nil {
		if err := e.claim(ctx); err != nil {
			return err
		}
		return e.dropStaging(ctx)
	}
	g, err := parseToken(commit, e.opt.Name)
	if err != nil {
		return err
	}
	return e.publish(ctx, g)
}

// publisher makes one generation the visible one. What has been done is asked
// from the standby each time, so every step may be repeated.
type publisher struct {
	*Engine
	g    *generation
	conn *pgx.Conn
}

func (e *Engine) publish(ctx context.Context, g *generation) error {
	if err := e.claim(ctx); err != nil {
		return err
	}
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return err
	}
	defer end(c)
	p := &publisher{Engine: e, g: g, conn: c}
	return adviseRoom(e.standby.explain(ctx, p.run(ctx)))
}

func (p *publisher) run(ctx context.Context) error {
	found, err := p.generations(ctx, p.conn)
	if err != nil {
		return err
	}
	switch {
	case found.holds(p.opt.Name, p.g):
		return nil
	case !found.holds(p.stagingName(), p.g):
		return hint.With(fmt.Errorf("%w; the visible one is unchanged", dbrepl.ErrCaptureGone), "run drsync now, which captures anew")
	}
	if _, there := found[p.prevName()]; there {
		drop := "DROP DATABASE IF EXISTS " + quote(p.prevName())
		err := p.whenFree(ctx, p.prevName(), func() error { return p.do(ctx, p.conn, drop) })
		if err != nil {
			return fmt.Errorf("drop the generation before the last: %w", err)
		}
	}
	_, visible := found[p.opt.Name]
	return p.whenFree(ctx, p.opt.Name, func() error { return p.swap(ctx, visible) })
}

type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// do executes a statement that changes something.
func (p *publisher) do(ctx context.Context, x executor, statement string) error {
	if p.before != nil {
		if err := p.before(statement); err != nil {
			return err
		}
	}
	_, err := x.Exec(ctx, statement)
	return err
}

// swap gives the visible database its other name and the staged one its name,
// in one transaction: there is never a moment, and no crash leaves one, in which
// there is no visible database. A rename waits up to 5 s for sessions to end.
func (p *publisher) swap(ctx context.Context, visible bool) error {
	tx, err := p.conn.Begin(ctx)
	if err != nil {
		return err
	}
	// A rollback that does not come through is one as well: the connection is gone.
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if visible {
		if err := p.do(ctx, tx, rename(p.opt.Name, p.prevName())); err != nil {
			return err
		}
	}
	if err := p.do(ctx, tx, rename(p.stagingName(), p.opt.Name)); err != nil {
		return err
	}
	if p.before != nil {
		if err := p.before("COMMIT"); err != nil {
			return err
		}
	}
	// An interrupt waits from here on: whether a COMMIT that was cut short came to
	// pass would only be known from the next look.
	return tx.Commit(context.WithoutCancel(ctx))
}

func rename(from, to string) string {
	return "ALTER DATABASE " + quote(from) + " RENAME TO " + quote(to)
}

// whenFree repeats what fails while others are connected to a database, until
// the time limit of locks. Then it says who they are.
func (p *publisher) whenFree(ctx context.Context, name string, try func() error) error {
	deadline := time.NewTimer(p.opt.Lock)
	defer deadline.Stop()
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for {
		// Asked before, since a rename that meets a session waits 5 s for its end and
		// keeps everybody else out meanwhile.
		who, err := p.sessionsIn(ctx, name)
		if err != nil {
			return err
		}
		if who == nil {
			if err = try(); !hasCode(err, codeInUse, codeLockNotAvailable) {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			return inUse(name, who, err)
		case <-pause.C:
		}
	}
}

// sessionsIn lists the applications' sessions in a database. What the server
// does there by itself, which has no user, ends when a statement asks for the database.
func (p *publisher) sessionsIn(ctx context.Context, name string) ([]string, error) {
	return column(ctx, p.conn, `SELECT format('process %s of %s (%s%s)', pid, coalesce(usename::text, '?'), coalesce(nullif(application_name, ''), 'a program without a name'),
			coalesce(' from ' || host(client_addr), ''))
		FROM pg_stat_activity WHERE datname = $1 AND usesysid IS NOT NULL AND pid <> pg_backend_pid() AND coalesce(backend_type, 'client backend') = 'client backend' ORDER BY pid`, name)
}

// inUse explains a wait that was in vain. err is what the server said, if it
// was asked.
func inUse(name string, who []string, err error) error {
	text := fmt.Errorf("the standby database %s is in use by %s", name, some(who, "a session that has just ended"))
	if err != nil {
		text = fmt.Errorf("%w: %w", text, err)
	}
	return hint.With(text, "stop the application on this host, or end the session with SELECT pg_terminate_backend(PROCESS)")
}

// dropStaging removes what a capture or a restore left, on the server and in the
// scratch directory.
func (e *Engine) dropStaging(ctx context.Context) error {
	if err := e.clearScratch(); err != nil {
		return err
	}
	c, err := e.standby.connect(ctx, e.opt.Maintenance)
	if err != nil {
		return err
	}
	defer end(c)
	for _, name := range []string{e.stagingName(), e.draftName()} {
		if err := e.dropDatabase(ctx, c, name, true); err != nil {
			return e.standby.explain(ctx, err)
		}
	}
	return nil
}
