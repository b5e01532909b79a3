package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/enforce"
)

// undoAll is --undo.
func undoAll(c *cobra.Command, p enforce.Program) error {
	leases, err := p.Undo(c.Context())
	for _, l := range leases {
		line := fmt.Sprintf("undone: lease %s of %s", l.ID, l.Decision.Target.Cgroup)
		if l.Note != "" {
			line += " (" + l.Note + ")"
		}
		fmt.Fprintln(c.OutOrStdout(), line)
	}
	if err == nil && len(leases) == 0 {
		fmt.Fprintln(c.OutOrStdout(), "nothing to undo")
	}
	return err
}
