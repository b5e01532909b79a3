package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/api"
)

func (a *app) blame() *cobra.Command {
	var window time.Duration
	var most int
	c := &cobra.Command{
		Use: "blame", Short: "Say who made whom wait for a CPU", Args: cobra.NoArgs,
		Long: `Say who made whom wait for a CPU, measured in the scheduler: whose tasks ran while a
task of the victim was ready to run. A fight has two rows, one for each side: who took more
than its share of it is what breakerctl incidents says. The second table says where each one's whole wait
went; what a cgroup waits for its own tasks, or because of its own quota, is nobody
else's.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if most < 0 || window < 0 {
				return errors.New("--most and --window cannot be negative")
			}
			b, err := a.client().Blame(c.Context(), window)
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), b)
			}
			fmt.Fprintf(c.OutOrStdout(), "from %s to %s\n\n", clock(b.Since), clock(b.Until))
			if len(b.Victims) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nobody waited for a CPU")
				return nil
			}
			r := newRows(c.OutOrStdout(), "STALL", "VICTIM", "WAITED FOR", "RESOURCE")
			for _, p := range b.Pairs[:min(most, len(b.Pairs))] {
				r.add(millis(p.StallMS), name(p.Victim), name(p.Offender), string(p.Resource))
			}
			if err := r.flush(); err != nil {
				return err
			}
			if left := len(b.Pairs) - most; left > 0 {
				fmt.Fprintf(c.OutOrStdout(), "and %d more: --most shows them\n", left)
			}
			fmt.Fprintln(c.OutOrStdout())
			r = newRows(c.OutOrStdout(), "WAIT", "OTHERS", "SELF", "OWN QUOTA", "KERNEL", "STEAL", "UNKNOWN", "CGROUP")
			for _, v := range b.Victims[:min(most, len(b.Victims))] {
				r.add(millis(v.WaitMS), millis(v.NeighbourMS), millis(v.SelfMS), millis(v.OwnQuotaMS), millis(v.KernelMS), millis(v.StealMS), millis(v.UnknownMS), name(v.Cgroup))
			}
			return r.flush()
		},
	}
	c.Flags().DurationVar(&window, "window", 0, "only the last `DURATION`, such as 30s (default: since breakerd started)")
	c.Flags().IntVar(&most, "most", 20, "rows of a table at the most")
	return c
}

func millis(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

func name(c api.Cgroup) string { return or(c.Cgroup, fmt.Sprintf("cgroup %d", c.CgroupID)) }
