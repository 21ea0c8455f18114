package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/show"
	drsync "github.com/drsync/drsync/sync"
)

func newCheck(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Ask whether a run would be refused, and why",
		Long: `check asks both sides everything that now asks before it begins: role, the
active's home and storage, keys, the standby's application, both databases with
their versions and privileges. It changes nothing and takes no lock.

Exit status: 0 a run would start; 1 it would be refused.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openStandby(o, output{noLog: true})
			if err != nil {
				return err
			}
			defer s.Close()
			results, warnings, err := s.runner.Check(c.Context())
			if err != nil {
				return err
			}
			return printCheck(o, results, warnings)
		},
	}
	o.addJSON(c)
	return c
}

func printCheck(o *options, results []drsync.CheckResult, warnings []string) error {
	refused := 0
	for _, r := range results {
		if !r.OK {
			refused++
		}
	}
	if o.json {
		if err := show.JSON(o.out, map[string]any{"ok": refused == 0, "checks": results, "warnings": warnings}); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			mark, indent := "ok  ", "\n               "
			if !r.OK {
				mark = "FAIL"
			}
			fmt.Fprintf(o.out, "%s %s\n", mark, strings.TrimRight(fmt.Sprintf("%-10s%s", r.Name, strings.ReplaceAll(r.Problem, "\n", indent)), " "))
			if r.Fix != "" {
				fmt.Fprintf(o.out, "     fix:      %s\n", strings.ReplaceAll(r.Fix, "\n", indent))
			}
		}
		for _, w := range warnings {
			fmt.Fprintf(o.out, "warn %s\n", w)
		}
	}
	if refused > 0 {
		return statusError(exitFailed)
	}
	return nil
}
