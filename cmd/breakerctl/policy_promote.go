package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) policyPromote() *cobra.Command {
	return &cobra.Command{
		Use: "promote", Short: "Put the policies in force that breakerd has on trial", Args: cobra.NoArgs,
		Long: `Put the set of policies in force that is tried beside the one before, without waiting for its
time, or although it would newly hold somebody who is protected or of whom there was no
incident before: breakerctl status says whom. Only root may, and whom allow.approvers names in
enforcer.yaml. The guards hold all the same: nobody protected is ever touched.`,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.client().Promote(c.Context())
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
