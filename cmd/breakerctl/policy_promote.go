package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) policyPromote() *cobra.Command {
	return &cobra.Command{
		Use: "promote [HASH]", Short: "Put the policies in force that breakerd has on trial", Args: cobra.MaximumNArgs(1),
		Long: `Put the set of policies in force that is tried beside the one before, without waiting for its
time, or although it would newly hold somebody who is protected or of whom there was no
incident before: breakerctl status -o json says whom (policies.trial.more). With HASH, the whole
policies.trial.hash that stands there, it must be that set, so that you say yes to none that has
come since you looked. Only root may, and whom allow.approvers names in
enforcer.yaml. The guards hold all the same: nobody protected is ever touched.`,
		RunE: func(c *cobra.Command, args []string) error {
			hash := ""
			if len(args) > 0 {
				hash = args[0]
			}
			p, err := a.client().Promote(c.Context(), hash)
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), p)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "in force: %s\n", p.Hash)
			return err
		},
	}
}
