package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/show"
)

func newPlan(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "plan",
		Short: "Print the steps of a run without doing any",
		Long: `plan prints the steps that now would walk, from the configuration alone. It
connects to nothing; now --dry-run also says what each step would do.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := openStandby(o, output{noLog: true})
			if err != nil {
				return err
			}
			defer s.Close()
			steps := s.runner.Plan()
			if o.json {
				return show.JSON(o.out, map[string]any{"steps": steps})
			}
			for i, step := range steps {
				if _, err := fmt.Fprintf(o.out, "%2d  %-8s %s\n", i+1, step.Name, step.Detail); err != nil {
					return err
				}
			}
			return nil
		},
	}
	o.addJSON(c)
	return c
}
