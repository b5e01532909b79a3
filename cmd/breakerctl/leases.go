package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/model"
)

func (a *app) leases() *cobra.Command {
	return &cobra.Command{
		Use: "leases", Short: "List what is held now, and until when", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := a.client().Leases(c.Context())
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), all)
			}
			if len(all) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nothing is held")
				return nil
			}
			r := newRows(c.OutOrStdout(), "LEASE", "STATE", "ACTION", "CGROUP", "ENDS IN", "BECAUSE OF", "POLICY")
			for _, l := range all {
				r.add(l.ID, state(l), string(l.Decision.Action.Kind), l.Decision.Target.Cgroup, span(time.Until(l.ExpiresAt)), string(l.Decision.Kind), l.Decision.Policy)
			}
			return r.flush()
		},
	}
}

func state(l model.Lease) string {
	if l.DryRun {
		return string(l.State) + " (dry run)"
	}
	return string(l.State)
}
