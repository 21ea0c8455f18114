package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/config"
	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/show"
)

// options are the flags that every command takes.
type options struct {
	env
	configPath string
	json       bool
}

// load reads the configuration. One that cannot be read is as wrong as one
// that says nonsense.
func (o *options) load() (*config.Config, error) {
	cfg, err := config.Load(o.configPath)
	if err != nil {
		return nil, usageError{err}
	}
	return cfg, nil
}

// execute parses the command line, runs the command it names and returns the
// exit status.
func execute(ctx context.Context, e env, args []string) int {
	if len(args) > 0 && args[0] == "rsync" { // whose words are not ours to look at
		return rsync(ctx, e, args[1:])
	}
	out := &written{Writer: e.out}
	e.out = out
	o := &options{env: e}
	root := newRoot(o)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage usageError
	if name := ""; err != nil && !errors.As(err, &usage) {
		// cobra's own error, which has no type.
		if _, serr := fmt.Sscanf(err.Error(), "unknown command %q for \"drsync\"", &name); serr == nil {
			err = unknownCommand(root, name)
		}
	}
	status := exitStatus(e, err)
	var said statusError
	if (o.json || slices.Contains(args, "--json")) && err != nil && !errors.As(err, &said) && !out.some {
		if perr := show.JSON(e.out, failure(err, status)); perr != nil {
			fmt.Fprintf(e.err, "error: %v\n", perr)
		}
	}
	return status
}

// written remembers whether anything was printed: with --json that is one
// object, also when a command fails.
type written struct {
	io.Writer
	some bool
}

func (w *written) Write(p []byte) (int, error) {
	w.some = w.some || len(p) > 0
	return w.Writer.Write(p)
}

// Unwrap returns the writer below, which may be a terminal.
func (w *written) Unwrap() io.Writer { return w.Writer }

func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "drsync",
		Short: "Keep a standby host ready to take over from an active one",
		Long: `drsync runs on the standby host of an active/passive pair. It captures the
active's database, copies the files that it names, and publishes both as one
snapshot; at every instant the standby can be promoted to a complete one.

Exit status: 0 done; 1 failed; 2 usage or configuration; 3 done but incomplete;
10 wrong role for this command; 11 another drsync is running; 130 interrupted.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(o.in)
	root.SetOut(o.out)
	root.SetErr(o.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if words := c.Flags().Args(); c.HasSubCommands() && len(words) > 0 {
			return unknownCommand(c, words[0]) // whose flags nobody can know
		}
		return usageError{err}
	})
	root.PersistentFlags().StringVar(&o.configPath, "config", "/etc/drsync/drsync.yaml", "the configuration `FILE`")
	root.AddCommand(
		newNow(o), newRun(o), newPlan(o), newStatus(o), newSnapshots(o), newPrune(o), newVerify(o), newRestore(o), newCheck(o), newChain(o),
		newFailover(o), newConfig(o), newAgent(o), newRsync(o), newDemo(o), newVersion(o),
	)
	root.SetHelpCommand(newHelp())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			onlyCommands(c)
		}
	}
	wrapArgs(root)
	return root
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		RunE: func(c *cobra.Command, args []string) error {
			about := c.Root()
			for _, name := range args {
				i := slices.IndexFunc(about.Commands(), func(sub *cobra.Command) bool { return sub.Name() == name })
				if i < 0 {
					return unknownCommand(about, name)
				}
				about = about.Commands()[i]
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// onlyCommands makes c, which only groups commands, explain itself when it is
// called alone and refuse words that are none of its commands.
func onlyCommands(c *cobra.Command) {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(c, args[0])
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

func unknownCommand(c *cobra.Command, name string) error {
	err := fmt.Errorf("unknown command %q for %q", name, c.CommandPath())
	c.SuggestionsMinimumDistance = max(c.SuggestionsMinimumDistance, 2)
	if like := c.SuggestionsFor(name); len(like) > 0 {
		return usageError{hint.With(err, "did you mean "+strings.Join(like, " or ")+"?")}
	}
	return usageError{hint.With(err, c.CommandPath()+" --help lists the commands")}
}

// wrapArgs makes wrong arguments of any command a usage error.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

func (o *options) addJSON(c *cobra.Command) {
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object on standard output")
}
