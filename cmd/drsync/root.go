package main

import (
	"context"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/config"
)

// options are the flags that every command takes.
type options struct {
	env
	configPath string
	json       bool
}

func (o *options) load() (*config.Config, error) { return config.Load(o.configPath) }

// execute parses the command line and runs the command it names.
func execute(ctx context.Context, e env, args []string) error {
	root := newRoot(e)
	root.SetArgs(args)
	if _, _, err := root.Find(args); err != nil {
		return usageError{err}
	}
	return root.ExecuteContext(ctx)
}

func newRoot(e env) *cobra.Command {
	o := &options{env: e}
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
		Args:          cobra.NoArgs,
	}
	root.SetIn(e.in)
	root.SetOut(e.out)
	root.SetErr(e.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVar(&o.configPath, "config", "/etc/drsync/drsync.yaml", "the configuration `FILE`")
	root.AddCommand(
		newNow(o), newRun(o), newPlan(o), newStatus(o), newSnapshots(o), newPrune(o), newVerify(o), newCheck(o), newChain(o),
		newFailover(o), newConfig(o), newAgent(o), newDemo(o), newVersion(o),
	)
	wrapArgs(root)
	return root
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

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
