package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/drsync/drsync/internal/demo"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/sshserver"
	drsync "github.com/drsync/drsync/sync"
)

func newDemo(o *options) *cobra.Command {
	var keep string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Make an active and a standby in a directory and watch the main job at work",
		Long: `demo makes an active (an Artifactory home with 560 blobs and its database),
serves it over SSH on loopback, and runs the main job against it: a first run,
a run after changes, pruning, and a check of every blob that the standby's
database names, by code that shares nothing with drsync. It needs neither root
nor a network, and removes everything in the end.

With --keep the laboratory stays, with a configuration that reaches the active
as a directory of this host, and the commands to try on it are printed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runDemo(c.Context(), o, keep) },
	}
	c.Flags().StringVar(&keep, "keep", "", "make the laboratory in `DIR` and leave it there")
	return c
}

func runDemo(ctx context.Context, o *options, keep string) (err error) {
	dir := ""
	if keep != "" {
		if dir, err = filepath.Abs(keep); err != nil {
			return err
		}
	} else {
		if dir, err = os.MkdirTemp("", "drsync-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	story := demo.NewStory(o.out, isTerminal(o.out))
	story.Title("drsync: an active, its standby, and one hour between them")

	story.Step("An active that must survive")
	lab, err := demo.NewLab(dir)
	if err != nil {
		return err
	}
	defer lab.Close()
	story.Say("An Artifactory home with %d artifacts (%s), its configuration, keys and scratch folders, and a database that names every blob. The standby has nothing but its own host-specific files.", lab.Artifacts, demo.Bytes(lab.Bytes))
	d := &demonstration{o: o, lab: lab, story: story}
	stop, err := d.serve(ctx)
	if err != nil {
		return err
	}
	defer stop()

	if err := d.tell(ctx); err != nil {
		return err
	}
	if keep != "" {
		return d.leave()
	}
	return story.Err()
}

// demonstration is a demo at work.
type demonstration struct {
	o      *options
	lab    *demo.Lab
	story  *demo.Story
	config string
}

// tell runs the main job twice and asks whether it kept its promise.
func (d *demonstration) tell(ctx context.Context) error {
	d.story.Step("The first run: database, blobs, home")
	if _, err := d.now(ctx); err != nil {
		return err
	}

	d.story.Step("An hour later on the active")
	changes, err := d.lab.Change(ctx)
	if err != nil {
		return err
	}
	d.story.Changes(changes)

	d.story.Step("The second run moves only that, then prunes")
	report, err := d.now(ctx)
	if err != nil {
		return err
	}
	if report.Prune != nil {
		d.story.Say("What no kept snapshot names went into quarantine; from there it comes back without being copied, or is deleted after the time that the configuration gives.")
	}

	d.story.Step("drsync status")
	status := newStatus(&options{env: d.o.env, configPath: d.config})
	status.SetArgs([]string{})
	status.SilenceUsage, status.SilenceErrors = true, true
	if err := status.ExecuteContext(ctx); err != nil {
		return err
	}

	d.story.Step("Does the standby have every blob that its database names?")
	check, err := d.lab.Check(ctx)
	if err != nil {
		return err
	}
	d.story.Check(check)
	if !check.OK() {
		return errors.New("the standby is not what it must be")
	}
	return nil
}

// now makes one run and tells what it did.
func (d *demonstration) now(ctx context.Context) (drsync.Report, error) {
	began := time.Now()
	s, err := openStandby(&options{env: d.o.env, configPath: d.config}, output{quiet: true})
	if err != nil {
		return drsync.Report{}, err
	}
	defer s.Close()
	report, err := s.runner.Run(ctx, false)
	s.finishOutput()
	if err != nil {
		return report, err
	}
	r := report.Snapshot
	d.story.Fact("snapshot", "%s, the active as of %s", r.ID, r.Time.Format("15:04:05.000 MST"))
	for _, db := range r.Databases {
		d.story.Fact("database", "%s tables, %s rows, %s", show.Count(int64(db.Tables)), show.Count(db.Rows), show.Bytes(db.Bytes))
	}
	for _, b := range r.BlobSets {
		d.story.Fact("blobs", "%s named, %s copied (%s)", show.Count(b.Named), show.Count(b.Copied), show.Bytes(b.CopiedBytes))
	}
	for _, t := range r.Trees {
		d.story.Fact("home", "%s entries, %s files transferred (%s), %s deleted", show.Count(t.Files), show.Count(t.Transferred), show.Bytes(t.TransferredBytes), show.Count(t.Deleted))
	}
	if report.Prune != nil {
		d.story.Fact("prune", "%s", describePrune(*report.Prune))
	}
	d.story.Fact("took", "%s", demo.Took(time.Since(began)))
	return report, nil
}

// leave writes the configuration that works without the demo's SSH server.
func (d *demonstration) leave() error {
	config, err := d.lab.WriteConfig("local", demo.SSH{})
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	program = typed(program)
	d.story.Step("The laboratory stays in " + d.lab.Dir)
	d.story.Say("Its configuration reaches the active as a directory. Try:")
	for _, command := range []string{"plan", "now -v", "status", "snapshots", "verify --deep", "prune --dry-run", "now --dry-run --json"} {
		d.story.Command(fmt.Sprintf("%s %s --config %s", program, command, quoted(config)))
	}
	return d.story.Err()
}

// typed is how a person starts the program again. What "go run" built lies in a
// directory that is gone when it ends.
func typed(program string) string {
	for element := range strings.SplitSeq(program, "/") {
		if strings.HasPrefix(element, "go-build") {
			return "go run ./cmd/drsync"
		}
	}
	return quoted(program)
}

// quoted is a path as a shell reads it.
func quoted(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func isTerminal(w io.Writer) bool {
	if wrapped, ok := w.(interface{ Unwrap() io.Writer }); ok {
		w = wrapped.Unwrap()
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func splitPort(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}

// serve starts an SSH server on loopback whose only account reaches the lab's
// agent, and writes the configuration that uses it.
func (d *demonstration) serve(ctx context.Context) (stop func(), err error) {
	roots := []string{d.lab.ActiveHome, filepath.Dir(d.lab.ActiveDB)}
	keys, err := demoKeys(d.lab.Dir)
	if err != nil {
		return nil, err
	}
	server, err := sshserver.Start(ctx, sshserver.Options{
		Authorized: keys.public,
		Exec: func(ctx context.Context, _ string, in io.Reader, out, _ io.Writer) int {
			// Whatever the client asks for, it gets this: a forced command.
			if err := serveAgent(ctx, d.o.version, roots, in, out); err != nil {
				return exitFailed
			}
			return exitDone
		},
	})
	if err != nil {
		return nil, err
	}
	host, port, err := splitPort(server.Addr())
	if err == nil {
		err = os.WriteFile(keys.knownHosts, []byte(server.KnownHostsLine()+"\n"), 0o600)
	}
	if err == nil {
		d.config, err = d.lab.WriteConfig("agent", demo.SSH{Host: host, Port: port, User: "demo", Identity: keys.private, KnownHosts: keys.knownHosts})
	}
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	d.story.Say("It is served over SSH on %s, by an agent that can only read.", server.Addr())
	return func() { _ = server.Close() }, nil
}
