package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
)

// seeded is a captured copy of the schema.
type seeded struct {
	captured
	r *Replica
}

var _ dbrepl.Captured = (*seeded)(nil)

func (c *seeded) Token() dbrepl.Token {
	return replicaToken{Seed: true, Generation: c.captured.Token()}.token()
}

func (c *seeded) Publish(ctx context.Context) error {
	defer c.r.e.settle()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := c.r.publishSeed(ctx, c.g); err != nil {
		return fmt.Errorf("publish database %s: %w", c.r.e.opt.Name, err)
	}
	return nil
}

// followed is a captured point of the active. Until it is published it is read
// from the snapshot that it was taken from, on the active.
type followed struct {
	r    *Replica
	g    *generation
	from string
	snap *snapshotView
	// there is how the active defines its schema, if the capture is to be verified.
	there *schema

	mu        sync.Mutex
	published bool
}

var _ dbrepl.Captured = (*followed)(nil)

func (c *followed) Point() dbrepl.Point   { return c.g.Point }
func (c *followed) Counts() dbrepl.Counts { return c.g.Counts }

func (c *followed) Token() dbrepl.Token {
	return replicaToken{From: c.from, Generation: []byte(c.g.token())}.token()
}

func (c *followed) Close() error {
	c.snap.close()
	return nil
}

func (c *followed) Publish(ctx context.Context) error {
	defer c.r.e.settle()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := c.r.publishPoint(ctx, c.from, c.g); err != nil {
		return fmt.Errorf("publish database %s: %w", c.r.e.opt.Name, err)
	}
	c.mu.Lock()
	c.published = true
	c.mu.Unlock()
	if c.there == nil {
		c.snap.close()
	}
	return nil
}

func (c *followed) Discard(ctx context.Context) error {
	c.mu.Lock()
	published := c.published
	c.mu.Unlock()
	if published {
		return nil
	}
	defer c.r.e.settle()
	c.snap.close()
	if err := c.r.discard(ctx); err != nil {
		return fmt.Errorf("discard the capture of database %s: %w", c.r.e.opt.Name, err)
	}
	return nil
}

// asked returns what is to be asked now: the snapshot or the standby.
func (c *followed) asked() asked {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.published {
		return c.r.e.askIn(c.r.e.opt.Name)
	}
	return asked{c.r.e.active, c.snap.ask}
}

func (c *followed) Refs(ctx context.Context, query string) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) { refs(ctx, c.r.e, c.asked(), query, yield) }
}

func (c *followed) Strings(ctx context.Context, query, arg string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { joined(ctx, c.r.e, c.asked(), query, arg, yield) }
}

// viewSessions is how many questions a snapshot of the active answers at once: a
// list, a question about one of its lines, and one to spare.
const viewSessions = 3

// snapshotView answers questions from a snapshot of the active. It may be used
// by several goroutines at once.
type snapshotView struct {
	e    *Engine
	free chan *sql.Conn

	mu   sync.Mutex
	snap *snapshot // nil once closed
	lost int       // sessions that died
}

func newSnapshotView(e *Engine, s *snapshot) *snapshotView {
	v := &snapshotView{e: e, snap: s, free: make(chan *sql.Conn, len(s.sessions))}
	for _, c := range s.sessions {
		v.free <- c
	}
	return v
}

func (v *snapshotView) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.snap != nil {
		v.snap.close()
		v.snap = nil
	}
}

var errSnapshotOver = errors.New("the snapshot of the active database is over")

func (v *snapshotView) take() (*sql.Conn, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.snap == nil || v.lost == cap(v.free) {
		return nil, errSnapshotOver
	}
	select {
	case c := <-v.free:
		return c, nil
	default:
		return nil, fmt.Errorf("more than %d questions at once are asked of the snapshot of the active database", cap(v.free)-v.lost)
	}
}

// ask runs a query in the snapshot. A session that breaks is not replaced,
// since another one would see something else.
func (v *snapshotView) ask(ctx context.Context, query string, args ...any) (*sql.Rows, func(), error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	if !question.MatchString(query) {
		return nil, nil, errNoQuestion
	}
	c, err := v.take()
	if err != nil {
		return nil, nil, err
	}
	rows, err := c.QueryContext(ctx, query, args...)
	if err != nil {
		v.giveBack(c)
		return nil, nil, v.e.active.explain(ctx, err)
	}
	return rows, func() {
		rows.Close()
		v.giveBack(c)
	}, nil
}

func (v *snapshotView) giveBack(c *sql.Conn) {
	err := c.Raw(func(inner any) error {
		if i, ok := inner.(driver.Validator); ok && !i.IsValid() {
			return driver.ErrBadConn
		}
		return nil
	})
	if err != nil {
		v.mu.Lock()
		v.lost++
		v.mu.Unlock()
		return
	}
	v.free <- c
}
