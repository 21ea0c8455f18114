package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/show"
	drsync "github.com/drsync/drsync/sync"
)

func newVerify(o *options) *cobra.Command {
	var deep bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check that every blob the standby's database names is there",
		Long: `verify reads the standby's visible database and asks the disk for each blob that
it names: present, with its length; with --deep also with its hash. It needs no
active, takes no lock and changes nothing.

Exit status: 0 every blob is as it should be; 3 some are not.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := openStandby(o, output{noLog: true})
			if err != nil {
				return err
			}
			defer s.Close()
			report, err := s.runner.Verify(c.Context(), deep)
			if err != nil {
				return err
			}
			return printVerify(o, report)
		},
	}
	c.Flags().BoolVar(&deep, "deep", false, "read every blob and compute its hash")
	o.addJSON(c)
	return c
}

func printVerify(o *options, r drsync.VerifyReport) error {
	if o.json {
		if err := show.JSON(o.out, r); err != nil {
			return err
		}
	} else {
		how := "length"
		if r.Deep {
			how = "length and hash"
		}
		fmt.Fprintf(o.out, "%s blobs named (%s), %s with another %s or absent\n", show.Count(r.Named), show.Bytes(r.Bytes), show.Count(r.Broken), how)
		for _, p := range r.Problems {
			fmt.Fprintf(o.out, "  %s: %s\n", p.Set, p.Problem)
		}
		if more := r.Broken - int64(len(r.Problems)); more > 0 {
			fmt.Fprintf(o.out, "  and %s more\n", show.Count(more))
		}
	}
	if r.Broken > 0 {
		return statusError(exitIncomplete)
	}
	return nil
}
