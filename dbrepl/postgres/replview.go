package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/blob"
	"github.com/drsync/drsync/internal/hint"
)

// replica is a captured point: the next cluster until it is published, then the
// visible one.
type replica struct {
	r *Replica
	p *replicaPoint

	mu        sync.Mutex
	published bool
}

var _ dbrepl.Captured = (*replica)(nil)

func (c *replica) Point() dbrepl.Point   { return c.p.Point }
func (c *replica) Counts() dbrepl.Counts { return c.p.Counts }
func (c *replica) Token() dbrepl.Token   { return c.p.token() }

func (c *replica) isPublished() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.published
}

func (c *replica) Close() error {
	if c.isPublished() {
		return nil
	}
	return c.r.endOwn()
}

func (c *replica) Publish(ctx context.Context) error {
	if err := interrupted(ctx); err != nil {
		return c.r.failed("publish", err)
	}
	if err := c.r.publish(ctx, c.p); err != nil {
		return c.r.failed("publish", err)
	}
	c.mu.Lock()
	c.published = true
	c.mu.Unlock()
	return nil
}

func (c *replica) Discard(ctx context.Context) error {
	if err := c.r.claim(ctx); err != nil {
		return c.r.failed("discard the capture of", err)
	}
	staged, err := c.r.next().point(c.r.e.opt.Name)
	if err == nil && staged != nil && staged.ID == c.p.ID {
		err = c.r.reset()
	}
	return c.r.failed("discard the capture of", err)
}

// where says which of the two servers is to be asked.
func (c *replica) where(context.Context) (*Engine, error) {
	if c.isPublished() {
		return c.r.e, nil
	}
	staged, err := c.r.next().point(c.r.e.opt.Name)
	if err == nil && (staged == nil || staged.ID != c.p.ID) {
		err = errGone
	}
	return c.r.staging, err
}

func (c *replica) Refs(ctx context.Context, query string) iter.Seq2[blob.Ref, error] {
	return func(yield func(blob.Ref, error) bool) {
		e, err := c.where(ctx)
		if err != nil {
			yield(blob.Ref{}, fmt.Errorf("list blobs of database %s: %w", c.r.e.opt.Name, err))
			return
		}
		e.refs(ctx, e.named, query)(yield)
	}
}

func (c *replica) Strings(ctx context.Context, query, arg string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		e, err := c.where(ctx)
		if err != nil {
			yield("", fmt.Errorf("ask database %s: %w", c.r.e.opt.Name, err))
			return
		}
		e.strings(ctx, e.named, query, arg)(yield)
	}
}

// named is where the database is on a replica: under its own name.
func (e *Engine) named(context.Context) (string, error) { return e.opt.Name, nil }

// Visible opens the visible database, if drsync has published it.
func (r *Replica) Visible(ctx context.Context) (dbrepl.View, error) {
	if _, err := r.whole(ctx); err != nil {
		return nil, r.failed("open", err)
	}
	return &visible{r.e}, nil
}

// whole returns the point of the visible cluster, whose server must run.
func (r *Replica) whole(ctx context.Context) (*replicaPoint, error) {
	if err := interrupted(ctx); err != nil {
		return nil, err
	}
	p, err := r.visible.point(r.e.opt.Name)
	if err == nil && p == nil {
		err = dbrepl.ErrNoDatabase
	}
	if err != nil {
		return nil, err
	}
	pid, err := r.visible.running()
	if err == nil && pid == 0 {
		err = hint.With(errors.New("the standby's server does not run"), "start it, and see its log")
	}
	return p, err
}

// Compare compares the visible database with the active's.
func (r *Replica) Compare(ctx context.Context) (dbrepl.Comparison, error) {
	_, err := r.whole(ctx)
	if err != nil {
		return dbrepl.Comparison{}, r.failed("compare", err)
	}
	c, err := r.e.compareVisible(ctx)
	return c, r.failed("compare", err)
}
