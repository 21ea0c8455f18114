package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newChain(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "chain",
		Short: "Show where the active keeps its blobs",
		Long: `chain reads the active's binarystore.xml and shows its chain of storage
providers, the directories that hold the blobs on each side, and what this
version cannot carry. Passwords are not shown.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openStandby(o, output{})
			if err != nil {
				return err
			}
			defer s.Close()
			text, err := s.runner.Chain(c.Context())
			if text != "" {
				fmt.Fprint(o.out, text)
			}
			return err
		},
	}
}
