package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/dbrepl"
	"github.com/drsync/drsync/dbrepl/postgres"
	"github.com/drsync/drsync/failover"
	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/remote"
	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
)

func newFailover(o *options) *cobra.Command {
	var f failover.Options
	var yes, dryRun bool
	c := &cobra.Command{
		Use:   "failover",
		Short: "Make this standby the active host",
		Long: `failover promotes this host to the last published snapshot. It finishes an
interrupted publish, checks the blobs, raises the epoch, makes the database
writable, sets the role to active and starts the service. Afterwards now refuses
on this host.

It does not fence the old active and moves no address: see to it that the old
active cannot come back as one before you use this. It refuses while the old
active answers. A failover that stopped is continued by calling it again.

Exit status: 0 done; 1 refused or failed; 10 this host is active already; 11
another drsync is running.`,
		Example: "  drsync failover --dry-run\n  drsync failover --reason 'disk shelf lost'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runFailover(c.Context(), o, f, yes, dryRun)
		},
	}
	c.Flags().BoolVar(&f.Force, "force", false, "go on although the old active answers, or blobs are missing")
	c.Flags().StringVar(&f.Reason, "reason", "", "`WHY`, for the report and the role file")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "print the steps, do none")
	o.addJSON(c)
	return c
}

func runFailover(ctx context.Context, o *options, f failover.Options, yes, dryRun bool) error {
	s, err := openStandby(o, output{})
	if err != nil {
		return err
	}
	defer s.Close()
	d, err := s.failoverDeps()
	if err != nil {
		return err
	}
	steps, err := failover.Plan(d, f)
	if err != nil {
		return err
	}
	where := o.err
	if dryRun {
		where = o.out
	}
	if dryRun || !yes && !o.json {
		for i, step := range steps {
			fmt.Fprintf(where, "%2d  %-10s %s\n", i+1, step.Name, step.Detail)
		}
	}
	if dryRun {
		return nil
	}
	if !yes {
		if err := confirm(o, "failover", fmt.Sprintf("This makes %s the active host. Type its name to go on: ", d.Host), d.Host); err != nil {
			return err
		}
	}
	report, err := failover.Run(ctx, d, f)
	s.finishOutput()
	switch {
	case err != nil:
		return reportedError{err, report}
	case o.json:
		return show.JSON(o.out, report)
	}
	return printFailover(o.out, report)
}

// confirm asks a question on a terminal, to which only one answer goes on, and
// refuses elsewhere.
func confirm(o *options, command, question, want string) error {
	if in, ok := o.in.(*os.File); !ok || !show.IsTerminal(in) {
		return usageError{errors.New(command + " asks before it acts; without a terminal say --yes")}
	}
	fmt.Fprint(o.err, question)
	var answer string
	if _, err := fmt.Fscanln(o.in, &answer); err != nil || answer != want {
		return errors.New("not confirmed, nothing was done")
	}
	return nil
}

// failoverDeps gives the failover what it works on.
func (s *standby) failoverDeps() (failover.Deps, error) {
	host, err := os.Hostname()
	if err != nil {
		return failover.Deps{}, err
	}
	r := s.runner
	return failover.Deps{
		StateDir: r.StateDir, Home: r.Home, Host: host, Now: s.now, Event: r.Event,
		ActiveAnswers: func(ctx context.Context) (string, bool, error) { return s.activeAnswers(ctx, answerTimeout) },
		Recover: func(ctx context.Context) error {
			_, err := r.Recover(ctx)
			return err
		},
		Snapshot: func(context.Context) (snapshot.Record, bool, error) {
			snaps, err := snapshot.Open(r.StateDir)
			if err != nil {
				return snapshot.Record{}, false, err
			}
			all, err := snaps.List()
			if err != nil || len(all) == 0 {
				return snapshot.Record{}, false, err
			}
			return all[0], true, nil // the one published last
		},
		Verify: func(ctx context.Context) (failover.Presence, error) {
			v, err := r.Verify(ctx, false)
			return failover.Presence{Named: v.Named, Missing: v.Broken}, err
		},
		Promote: func(ctx context.Context) ([]dbrepl.Point, error) {
			if r.Engine == nil {
				return nil, nil
			}
			point, err := r.Engine.Promote(ctx)
			return []dbrepl.Point{point}, err
		},
		Start: failover.Command{Argv: s.config.Failover.Service.Start, Timeout: s.config.Failover.Service.Timeout},
	}, nil
}

// answerTimeout bounds how long each way to the old active is tried.
const answerTimeout = 10 * time.Second

// activeAnswers tries to reach the old active the way a run does: its SSH
// server, and its database when that is reached directly. Only silence counts as
// no answer: a host that refuses the login, or shows another key, is there. An
// error says that it could not be found out.
func (s *standby) activeAnswers(ctx context.Context, timeout time.Duration) (evidence string, answers bool, err error) {
	evidence, answers, err = s.hostAnswers(ctx, timeout)
	database := s.config.Database
	if answers || database.Active.Via != config.ViaDirect {
		return evidence, answers, err
	}
	network, address := "tcp", database.Active.Address
	switch {
	case database.Engine == config.EnginePostgres:
		network, address = postgres.Server{Address: address}.Target()
	case filepath.IsAbs(address):
		network = "unix"
	}
	seen, accepted, dbErr := databaseAnswers(ctx, network, address, timeout)
	switch {
	case accepted:
		return seen, true, nil
	case evidence != "" && seen != "":
		evidence += "; "
	}
	return evidence + seen, false, errors.Join(err, dbErr)
}

func (s *standby) hostAnswers(ctx context.Context, timeout time.Duration) (evidence string, answers bool, err error) {
	if s.config.Active.Transport == config.TransportLocal {
		home := s.config.Active.Home
		if _, err := os.Stat(home); err != nil {
			return fmt.Sprintf("its home cannot be read: %v", err), false, nil
		}
		return "its home " + home + " can be read", true, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no login within %v", timeout))
	defer cancel()
	host, err := s.active.get(ctx)
	switch {
	case err == nil:
		return host.Describe() + " lets us log in", true, nil
	case errors.Is(err, remote.ErrAnswered):
		return "its SSH server answers, though there is no login: " + err.Error(), true, nil
	case errors.Is(err, remote.ErrUnreachable):
		return err.Error(), false, nil
	}
	return "", false, err
}

// databaseAnswers tries the old active's database server; that it accepts a
// connection is enough.
func databaseAnswers(ctx context.Context, network, address string, timeout time.Duration) (evidence string, answers bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no connection within %v", timeout))
	defer cancel()
	err = remote.Knock(ctx, network, address)
	switch {
	case err == nil:
		return "its database server accepts connections at " + address, true, nil
	case errors.Is(err, remote.ErrUnreachable):
		return "database: " + err.Error(), false, nil
	}
	return "", false, fmt.Errorf("database: %w", err)
}

func printFailover(w io.Writer, r failover.Report) error {
	fmt.Fprintf(w, "This host is %s now, epoch %d.\n", role.Active, r.Epoch)
	fmt.Fprintf(w, "  snapshot  %s, the old active as of %s\n", r.Snapshot, r.Time.UTC().Format("2006-01-02 15:04:05 MST"))
	fmt.Fprintf(w, "  loss      what was written there in the last %s before\n", show.Duration(r.Loss()))
	if p := r.Presence; p != nil {
		fmt.Fprintf(w, "  blobs     %s named, %s missing\n", show.Count(p.Named), show.Count(p.Missing))
	}
	for _, position := range r.Positions {
		fmt.Fprintf(w, "  database  %s\n", position)
	}
	fmt.Fprintf(w, "  service   %s\n", r.Service)
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "  note      %s\n", warning)
	}
	return nil
}
