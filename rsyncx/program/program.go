// Package program is rsync's command line from its words to its exit status,
// carried out by rsyncx.
//
// It owns one invariant: what the line asks for is done as rsync does it, or it
// is refused before anything was changed.
package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/cli"
)

// World is what a run uses of the process that it is part of.
type World struct {
	In       io.Reader
	Out, Err io.Writer
	Dir      string              // that relative paths start from; "" is the process's own
	Env      func(string) string // the environment; nil has nothing
	Now      func() time.Time
	Version  string
	// Dial opens a remote host; nil knows none.
	Dial func(context.Context, Remote) (Host, error)
	// Status says which exit status stands for an error of a Host; 0 is none of its own. It may be nil.
	Status func(error) int
}

// Remote says which host to reach and how.
type Remote struct {
	Host, User     string
	Shell          []string // of -e, in words; none is the built-in ssh
	Program        []string // of --rsync-path, in words; none is "drsync"
	Silence        time.Duration
	ConnectTimeout time.Duration
}

// Host is a remote host.
type Host interface {
	// Source opens the directory root, which may be relative to the login's home.
	Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error)
	Close() error
}

// Run carries out one command line and returns its exit status, which is rsync's.
func Run(ctx context.Context, w World, args []string) int {
	r := &run{World: w, began: w.Now()}
	r.out.w, r.err.w = w.Out, w.Err
	err := r.do(ctx, args)
	return r.finish(ctx, err)
}

// run is one Run at work.
type run struct {
	World
	c     cli.Command
	began time.Time

	out, err lines
	io       Status // the worst thing that did not stop the run
}

func (r *run) do(ctx context.Context, args []string) (err error) {
	if r.c, err = cli.ParseLine(args); err != nil {
		return usage(err)
	}
	sources, dest, err := operands(r.c.Paths)
	if err != nil {
		return usage(err)
	}
	rules, err := r.rules()
	if err != nil {
		return err
	}
	tree, err := r.open(ctx, sources)
	if err != nil {
		return err
	}
	defer tree.close()
	return r.copy(ctx, tree, dest, rules)
}

// copy stages and publishes.
func (r *run) copy(ctx context.Context, tree *tree, dest string, rules ruleSet) (err error) {
	o := r.c.Options
	root, err := r.destination(dest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if o.Filter, err = rules.build(o.DeleteExcluded, tree.path, root.Path()); err != nil {
		return usage(err)
	}
	if r.c.Verbose > 0 || r.c.Itemize {
		r.out.line("sending incremental file list")
	}
	o.Event = r.sink
	stats, err := rsyncx.Sync(ctx, tree.source, root, o)
	if err != nil {
		return err
	}
	return r.closing(stats)
}

func (r *run) closing(s rsyncx.Stats) error {
	totals := cli.Totals{Size: s.Bytes, Elapsed: r.Now().Sub(r.began)}
	if r.c.Stats {
		r.out.line("")
		for _, line := range r.c.Statistics(s, totals) {
			r.out.line(line)
		}
	}
	if r.c.Stats || r.c.Verbose > 0 {
		r.out.line("")
		for _, line := range r.c.Closing(totals) {
			r.out.line(line)
		}
	}
	switch {
	case s.Unreadable > 0 || s.Torn > 0:
		r.worse(Partial)
	case s.Vanished > 0:
		r.worse(Vanished)
	case s.NotDeleted > 0:
		r.worse(DeleteLimit)
	}
	return nil
}

func usage(err error) error { return failed{Usage, err} }

// failed is an error with rsync's status for it.
type failed struct {
	Status
	error
}

func (f failed) Unwrap() error { return f.error }

func fail(s Status, format string, args ...any) error { return failed{s, fmt.Errorf(format, args...)} }
