package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/show"
)

func newChain(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "chain",
		Short: "Show where the active keeps its blobs",
		Long: `chain reads the active's binarystore.xml and shows its chain of storage
providers, the directories that hold the blobs on each side, and what this
version cannot carry. Passwords are not shown.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openStandby(o, output{noLog: true})
			if err != nil {
				return err
			}
			defer s.Close()
			text, err := s.runner.Chain(c.Context())
			if o.json {
				report := map[string]any{"chain": strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
				if err != nil {
					return reportedError{err, report}
				}
				return show.JSON(o.out, report)
			}
			if text != "" {
				fmt.Fprint(o.out, text)
			}
			return err
		},
	}
	o.addJSON(c)
	return c
}
