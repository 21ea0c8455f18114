package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/internal/event"
)

var _ dbrepl.Comparer = (*Engine)(nil)

// Compare implements dbrepl.Comparer. There is no server that could make sums of
// ranges, so the active's database is brought here as for a capture, into a file
// of its own that is removed afterwards, and both are read in the order of their keys.
// Of a row no more than itself is held in memory. Indexes are checked against their tables,
// on both sides.
func (e *Engine) Compare(ctx context.Context) (_ dbrepl.Comparison, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("compare %s: %w", e.f.live, because(ctx, err))
		}
	}()
	none := dbrepl.Comparison{}
	if _, err := e.published(); err != nil {
		return none, err
	}
	skew, bound, err := e.o.Clock(ctx)
	if err != nil {
		return none, fmt.Errorf("compare the clocks: %w", err)
	}
	if err := os.Remove(e.f.asked); err != nil && !errors.Is(err, fs.ErrNotExist) { // of one that was killed
		return none, err
	}
	quiet := *e
	quiet.o.Event = func(v event.Event) {
		if v.Step == "capture" {
			v.Step = "compare"
		}
		e.o.Event.Emit(v)
	}
	got, err := quiet.fetch(ctx, e.f.asked, e.f.live)
	if err != nil {
		return none, err
	}
	defer os.Remove(e.f.asked)
	c, err := e.compareWith(ctx, got)
	if err != nil {
		return none, err
	}
	c.Active = generation{Time: got.Time, SQLite: got.SQLite, SHA256: got.hash, Skew: skew, SkewError: bound}.point()
	return c, nil
}

// compareWith compares the visible file with what was fetched.
func (e *Engine) compareWith(ctx context.Context, got fetched) (dbrepl.Comparison, error) {
	none := dbrepl.Comparison{}
	// This must be done with before SQLite opens the file: closing one takes away
	// every lock that this process has on it.
	same, err := e.samePages(ctx, got)
	if err != nil {
		return none, err
	}
	there, err := openSide(ctx, "the active", candidate{e.f.asked, readStaged})
	if err != nil {
		return none, err
	}
	defer there.Close()
	c := &comparing{chunk: e.chunkRows(), progress: e.o.Event}
	if same && !e.rowsAlways {
		if err := c.check(ctx, there); err != nil {
			return none, err
		}
		if err := c.countOnly(ctx, there); err != nil {
			return none, err
		}
		return c.result(), nil
	}
	here, err := openSide(ctx, "the standby", candidate{e.f.live, readLive})
	if err != nil {
		return none, err
	}
	defer here.Close()
	if err := c.check(ctx, there, here); err != nil {
		return none, err
	}
	if err := c.run(ctx, there, here); err != nil {
		return none, err
	}
	return c.result(), nil
}

// samePages says whether the visible file is the fetched one, byte by byte, and nothing
// lies beside it that SQLite would read as well. Then no row can differ.
func (e *Engine) samePages(ctx context.Context, got fetched) (bool, error) {
	for _, path := range leftovers(e.f.live) {
		if fi, err := os.Lstat(path); err == nil && fi.Size() > 0 {
			return false, nil
		}
	}
	fi, err := os.Lstat(e.f.live)
	if err != nil || fi.Size() != got.Length {
		return false, err
	}
	err = verifyFile(ctx, e.f.live, generation{Length: got.Length, SHA256: got.hash})
	if errors.Is(err, errOther) {
		return false, nil
	}
	return err == nil, err
}

// side is one of the two databases, read inside one transaction.
type side struct {
	who string
	v   *view
	c   *sql.Conn
	// encoding is that of its texts.
	encoding string
}

func openSide(ctx context.Context, who string, name candidate) (_ *side, err error) {
	v, err := openView(ctx, name)
	if err != nil {
		return nil, err
	}
	s := &side{who: who, v: v, c: v.pin}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if _, err := s.c.ExecContext(ctx, "BEGIN"); err != nil {
		return nil, err
	}
	// The first reading begins the transaction.
	var objects int64
	if err := s.c.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&objects); err != nil {
		return nil, err
	}
	return s, s.c.QueryRowContext(ctx, "PRAGMA encoding").Scan(&s.encoding)
}

func (s *side) Close() error {
	_, err := s.c.ExecContext(context.Background(), "ROLLBACK")
	return errors.Join(err, s.v.Close())
}

// check looks whether sides are sound, all at once, which includes that indexes have
// what their tables have. Damage is a difference.
func (c *comparing) check(ctx context.Context, sides ...*side) error {
	found := make([]error, len(sides))
	var checking sync.WaitGroup
	for i, s := range sides {
		checking.Go(func() { found[i] = integrityCheck(ctx, s.c) })
	}
	checking.Wait()
	for i, err := range found {
		damaged, unchecked := (*damage)(nil), (*uncheckable)(nil)
		switch {
		case errors.As(err, &damaged):
			c.addText("", "%s's database is damaged: %s", sides[i].who, damaged.verdict)
		case errors.As(err, &unchecked):
			c.progress.Emit(event.Event{Kind: event.Warning, Text: sides[i].who + "'s database: " + err.Error()})
		case err != nil:
			return err
		}
	}
	return nil
}

func (e *Engine) chunkRows() int64 {
	if e.chunk > 0 {
		return e.chunk
	}
	return chunkRows
}
