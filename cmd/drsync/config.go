package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/show"
)

func newConfig(o *options) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	onlyCommands(c)
	check := &cobra.Command{
		Use:   "check",
		Short: "Report everything that is wrong with the configuration, at once",
		Long: `check reads the configuration, the files that it names and the secrets that it
refers to, and connects to nothing. See drsync check for what both hosts say.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := openStandby(o, output{noLog: true, files: true})
			if err != nil {
				return err
			}
			defer s.Close()
			if o.json {
				return show.JSON(o.out, s.config)
			}
			_, err = fmt.Fprintf(o.out, "%s: nothing to complain about\n", s.config.File)
			return err
		},
	}
	o.addJSON(check)
	c.AddCommand(check)
	return c
}
