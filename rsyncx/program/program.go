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
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drsync/drsync/internal/event"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/rsyncx"
	"github.com/drsync/drsync/rsyncx/cli"
	"github.com/drsync/drsync/rsyncx/filter"
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
	Shell          string        // of --rsh; "" is the built-in ssh
	Program        string        // of --rsync-path, for the host's shell; "" is "drsync"
	Roots          []string      // directories that will be asked for
	Install        bool          // the program, where the host has none
	Compress       cli.Compress  // what travels
	BytesPerSecond int64         // that may arrive, of everything together; 0 is no limit
	Silence        time.Duration // after which the host is given up; 0 is the usual one
	ConnectTimeout time.Duration // 0 is the usual one
}

// Host is a remote host.
type Host interface {
	// Source opens the directory root, which may be relative to the login's home.
	Source(ctx context.Context, root string, v rsyncx.View) (rsyncx.Source, error)
	Close() error
}

// counter is a Host that counts the bytes on the line.
type counter interface {
	Traffic() (sent, received int64)
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
	log      *logFile // nil for none
	lead     string   // stands before names when they are shown
	// renamed is how the source calls what is sent as the name as; "" for all but one name.
	renamed, as string
	implied     []*unimplied  // of --no-implied-dirs
	skippedDot  bool          // that the "." of -R is not sent was said
	left        []event.Event // about names of -R that rules leave out
	io          Status        // the worst thing that did not stop the run
	line        ruleSet       // the rules of the line
	progress    progress
	sums        *sumTeller // of %C; nil when nobody asks
}

func (r *run) do(ctx context.Context, args []string) (err error) {
	if r.c, err = cli.ParseLine(args); err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			return failed{Unsupported, err}
		}
		return usage(err)
	}
	if r.c.AllToErr {
		r.out.w = r.Err
	}
	r.out.hold = r.c.Blocks
	if done := r.about(); done {
		return nil
	}
	if r.c.Quiet {
		r.out.w = io.Discard
	}
	sources, dest, err := operands(r.c.Paths)
	if err != nil {
		return usage(err)
	}
	if r.c.ConnectTimeout > 0 && !sources[0].remote {
		return usage(errors.New("--contimeout is for a remote host, and the sources are here"))
	}
	if dest == "" || r.c.List {
		r.c.List, r.c.Dirs = true, true
	}
	if r.c.LogFile != "" {
		if r.log, err = openLog(r.here(r.c.LogFile), r.Now); err != nil {
			r.problem("drsync: %v", err)
			r.out.line(`Ignoring "log file" setting.`)
		}
	}
	rules, err := r.rules()
	if err != nil {
		return err
	}
	r.line = rules
	tree, err := r.open(ctx, sources)
	if err != nil {
		return err
	}
	defer tree.close()
	r.lead = tree.lead
	if r.c.List {
		if err := tempDir(r.here("."), r.c.Options.TempDir); err != nil { // of which rsync wants to know as well
			return usage(err)
		}
		return r.list(ctx, tree, rules)
	}
	r.header()
	for _, line := range r.c.Warnings {
		r.problem("%s", line)
	}
	for _, e := range r.left {
		r.show(e)
	}
	if tree.source == nil { // what was wrong with the sources has been said
		if err := errors.Join(r.bare(ctx, tree, dest), r.backupDir(r.here(dest))); err != nil {
			return err
		}
		return r.closing(rsyncx.Stats{}, tree)
	}
	return r.copy(ctx, tree, dest, rules)
}

// header tells that the listing begins.
func (r *run) header() {
	direction, log := "sending", "building file list"
	if r.c.Remote {
		direction, log = "receiving", "receiving file list"
	}
	r.logged(log)
	switch {
	case r.c.Info("FLIST") == 0 || !r.c.Recursive && !r.c.Dirs:
	case r.c.Incremental():
		r.out.line(direction + " incremental file list")
	default:
		r.out.line(log + " ... done")
	}
}

// copy stages and publishes.
func (r *run) copy(ctx context.Context, tree *tree, dest string, rules ruleSet) (err error) {
	nothing, err := r.nothing(ctx, tree, dest, rules)
	if err != nil {
		return err
	}
	if nothing {
		return r.closing(rsyncx.Stats{}, tree)
	}
	to, err := r.aim(ctx, tree, dest)
	if err != nil {
		return err
	}
	like := r.likeness(ctx, tree, &to)
	root, err := r.root(&to, like)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close(), to.close(err != nil)) }()
	o := r.options(tree)
	if err := tempDir(root.Path(), o.TempDir); err != nil {
		return usage(err)
	}
	if err := r.backupDir(to.dir); err != nil {
		return err
	}
	destPath, err := filepath.Abs(to.dir)
	if err != nil {
		return failed{FileIO, err}
	}
	if to.empty != "" {
		o.AltDests = seenFrom(destPath, o.AltDests)
	}
	if o.Filter, err = rules.build(tree, o.DeleteExcluded, tree.path, destPath); err != nil {
		return usage(err)
	}
	if r.c.NoImplied && r.c.Relative {
		r.hideImplied(tree, root.Path())
		o.KeepImplied = true
	}
	source := tree.source
	if n := r.c.BytesPerSecond; n > 0 && tree.host == nil { // a host's whole line is limited
		source = &limited{source, &rate{perSecond: n, now: r.Now}}
	}
	if to.as != "" && to.as != tree.only[0] {
		hidden, _ := o.Filter.Root().Excluded(tree.only[0], isDir(tree.single), filter.Sender)
		if hidden {
			return r.closing(rsyncx.Stats{}, tree)
		}
		source = &renamed{source, tree.only[0], to.as}
		r.renamed, r.as = tree.only[0], to.as
		o.Only = nil
		if !isDir(tree.single) {
			o.Filter = nil // the rules are about the name at the source
		}
	}
	if r.c.Debug("DELTASUM") > 0 {
		state := "enabled"
		if o.WholeFile {
			state = "disabled for local transfer or --whole-file"
		}
		r.say("delta-transmission " + state)
	}
	o.NewRoot = to.make > 0 && !tree.keepRoot && !r.c.MakePath // which is made before, as a directory like any other
	told := r.tellSums(ctx, source)
	stats, err := rsyncx.Sync(ctx, r.watch(source), root, o)
	told()
	r.out.close()
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = hint.With(err, "DEST needs room for all that is new or changed beside what it has, since it is put in place at the end; --delete-before makes room first, or copy one part after the other")
	}
	if err == nil {
		err = to.narrow(like)
	}
	if err != nil {
		return err
	}
	if r.c.Info("STATS") > 0 {
		if err := r.countAgain(ctx, tree, o.Filter, &stats); err != nil {
			return err
		}
	}
	return r.closing(stats, tree)
}

// options completes those of the line with what the sources are.
func (r *run) options(t *tree) rsyncx.Options {
	o := r.c.Options
	o.Only, o.Flat, o.Shallow, o.KeepRoot = t.only, t.flat, t.shallow, t.keepRoot
	o.WholeFile = o.WholeFile || t.host == nil && !r.c.Delta && !o.Append
	if t.failed && !o.IgnoreErrors && o.Delete {
		r.problem("IO error encountered -- skipping file deletion")
		o.Delete, o.DeleteBefore, o.DeleteExcluded = false, false, false
	}
	o.KeepIfVanished = true
	o.NoSync = !r.c.Fsync
	o.OwnNumbers = t.host != nil // as the side of rsync that receives has them
	o.Explain = r.c.Explains()
	o.Renames = t.host != nil && !r.c.NoRenames // here a copy costs no more than looking for what was moved
	o.Event = r.sink
	return o
}

func (r *run) closing(s rsyncx.Stats, t *tree) error {
	totals := cli.Totals{Size: s.Bytes, Elapsed: r.Now().Sub(r.began)}
	moved := max(0, s.TransferredBytes-s.Reused) // what alternate directories gave was not transferred
	switch c, counts := t.host.(counter); {
	case counts:
		totals.Sent, totals.Received = c.Traffic()
	case t.host != nil:
		totals.Received = moved
	default:
		totals.Sent = moved
	}
	if r.c.Debug("DELTASUM") > 0 {
		r.say(fmt.Sprintf("total: matches=0  hash_hits=0  false_alarms=0 data=%d", moved))
	}
	if r.c.Info("STATS") > 1 {
		r.out.line("")
		for _, line := range r.c.Statistics(s, totals) {
			r.say(line)
		}
	} else {
		for _, note := range s.Notes {
			if r.c.Verbose > 0 {
				r.problem("drsync: %s", note)
			}
		}
	}
	if r.c.Info("STATS") > 0 {
		r.out.line("")
		for _, line := range r.c.Closing(totals) {
			r.out.line(line)
		}
	}
	for _, line := range r.c.LogClosing(totals) {
		r.logged(line)
	}
	switch {
	case s.Unreadable > 0 || s.Torn > 0 || s.Left > 0:
		r.worse(Partial)
	case s.Vanished > 0:
		r.worse(Vanished)
	case s.NotDeleted > 0:
		r.worse(DeleteLimit)
	}
	if s.NotDeleted > 0 {
		r.problem("Deletions stopped due to --max-delete limit (%d skipped)", s.NotDeleted)
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

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
