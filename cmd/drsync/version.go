package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/show"
)

func newVersion(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if o.json {
				return show.JSON(o.out, map[string]string{"version": o.version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
			}
			_, err := fmt.Fprintf(o.out, "drsync %s (%s, %s/%s)\n", o.version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	o.addJSON(c)
	return c
}
