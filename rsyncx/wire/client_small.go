package wire

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/drsync/drsync/rsyncx"
)

// Clock is one reading of the agent's clock.
type Clock struct {
	Skew  time.Duration // the active's clock minus this host's
	Bound time.Duration // the true skew is within Skew ± Bound
}

// Clock reads the agent's clock a few times and returns the reading with the
// shortest round trip.
func (c *Conn) Clock(ctx context.Context) (Clock, error) {
	var best Clock
	err := c.request(ctx, func() error {
		for i := range 8 {
			start := time.Now()
			if err := c.ask(frameClock, nil); err != nil {
				return err
			}
			d, err := c.expect(frameTime)
			if err != nil {
				return err
			}
			trip := time.Since(start) // monotonic
			c.took(trip)
			theirs := time.Unix(0, d.int("time"))
			if err := d.end("time"); err != nil {
				return err
			}
			if bound := (trip + 1) / 2; i == 0 || bound < best.Bound {
				best = Clock{Skew: theirs.Sub(start.Add(trip / 2).Round(0)), Bound: bound}
			}
		}
		return nil
	})
	if err != nil {
		return Clock{}, fmt.Errorf("read the active's clock: %w", err)
	}
	return best, nil
}

// Open asks for a root directory and returns what its source can tell.
func (c *Conn) Open(ctx context.Context, t Tree) (rsyncx.Abilities, error) {
	if a, ok := c.opened[t]; ok {
		return a, nil
	}
	if len(t.Root) > maxRoot {
		return rsyncx.Abilities{}, fmt.Errorf("open a directory of the active: its name has %d bytes", len(t.Root))
	}
	var a rsyncx.Abilities
	start := time.Now()
	err := c.request(ctx, func() error {
		if err := c.ask(frameOpen, appendTree(nil, t)); err != nil {
			return err
		}
		d, err := c.expect(frameAbilities)
		if err != nil {
			return err
		}
		c.took(time.Since(start))
		a = d.abilities()
		return d.end("list of abilities")
	})
	if err != nil {
		return rsyncx.Abilities{}, fmt.Errorf("open %s: %w", rsyncx.Printable(t.Root), err)
	}
	c.opened[t] = a
	return a, nil
}

// took remembers how long a round trip took.
func (c *Conn) took(trip time.Duration) {
	if c.trip == 0 || trip < c.trip {
		c.trip = trip
	}
}

// Lstat describes one name below root.
func (c *Conn) Lstat(ctx context.Context, t Tree, path string) (rsyncx.Entry, error) {
	if err := checkPath(path); err != nil {
		return rsyncx.Entry{}, err
	}
	if _, err := c.Open(ctx, t); err != nil {
		return rsyncx.Entry{}, err
	}
	var e rsyncx.Entry
	err := c.request(ctx, func() error {
		if err := c.ask(frameLstat, appendString(appendTree(nil, t), path)); err != nil {
			return err
		}
		d, err := c.expect(frameEntry)
		if err != nil {
			return err
		}
		e = d.entry(&rsyncx.Entry{})
		if err := d.end("entry"); err != nil {
			return err
		}
		return checkSelf(path, &e)
	})
	switch {
	case isReported(err):
		return rsyncx.Entry{}, &rsyncx.PathError{Path: path, Err: err}
	case err != nil:
		return rsyncx.Entry{}, fmt.Errorf("look at %s: %w", rsyncx.Printable(join(t.Root, path)), err)
	}
	return e, nil
}

// checkSelf returns an error unless e can be the entry of path.
func checkSelf(path string, e *rsyncx.Entry) error {
	if want := path[strings.LastIndexByte(path, '/')+1:]; e.Name != want {
		return hostile("the entry of %q where that of %q was due", rsyncx.Printable(e.Name), rsyncx.Printable(want))
	}
	return nil
}

func orDot(path string) string {
	if path == "" {
		return "."
	}
	return path
}
