package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/model"
)

func (a *app) leases() *cobra.Command {
	return &cobra.Command{
		Use: "leases", Short: "List what is held now, and what waits for a person's yes", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := a.client().Leases(c.Context())
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), all)
			}
			status, err := a.client().Status(c.Context())
			if err != nil {
				return err
			}
			if len(all)+len(status.Enforcer.Approvals) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nothing is held")
				return nil
			}
			r := newRows(c.OutOrStdout(), "LEASE", "STATE", "ACTION", "CGROUP", "ENDS IN", "BECAUSE OF", "POLICY")
			for _, l := range all {
				r.add(l.ID, state(l), string(l.Decision.Action.Kind), l.Decision.Target.Cgroup, span(time.Until(l.ExpiresAt)), string(l.Decision.Kind), l.Decision.Policy)
			}
			waiting(r, status.Enforcer.Approvals)
			return r.flush()
		},
	}
}

func state(l model.Lease) string {
	text := string(l.State)
	if l.State == model.LeaseHeld && l.EasedAt != nil {
		text += ", loosened"
	}
	if l.DryRun {
		text += " (dry run)"
	}
	return text
}
