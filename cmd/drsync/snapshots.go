package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drsync/drsync/internal/hint"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/internal/snapshot"
	"github.com/drsync/drsync/internal/status"
)

func newSnapshots(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshots [ID]",
		Short: "List the published snapshots, or show one",
		Long: `snapshots lists the snapshots that this host keeps, newest first. With an ID it
shows one in full: position, counts, durations, and each missing blob with the
artifacts that need it. The records are files: STATE/snapshots/ID/record.json.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			all, err := snapshot.Read(cfg.Standby.State)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return showSnapshot(o, all, args[0])
			}
			if o.json {
				return show.JSON(o.out, status.List(all))
			}
			return status.Snapshots(o.out, all, o.now())
		},
	}
	o.addJSON(c)
	return c
}

func showSnapshot(o *options, all []snapshot.Record, id string) error {
	for _, r := range all {
		if r.ID != id {
			continue
		}
		if o.json {
			return show.JSON(o.out, r)
		}
		return status.Detail(o.out, r, o.now())
	}
	return hint.New(fmt.Sprintf("there is no snapshot %q", id), "drsync snapshots lists them")
}
