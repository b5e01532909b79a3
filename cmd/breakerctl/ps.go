package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
)

func (a *app) ps() *cobra.Command {
	key := string(model.SortStallCaused)
	most := 20
	c := &cobra.Command{
		Use: "ps", Short: "List the processes that weigh most", Args: cobra.NoArgs,
		Long: `List the processes that weigh most, over the last seconds.

Stall is measured by cgroup, in the scheduler. ~CAUSED is the part of its cgroup's stall
that a process has by its CPU time: an estimate. SUFFERED cannot be divided: it is what
the process's whole cgroup suffered because of others. Both are ms in each second.
CPU % is of one CPU, between the last two walks over all processes (each second while
the machine is busy, each ten seconds while it is calm); ? is not known yet.`,
		RunE: func(c *cobra.Command, _ []string) error {
			by, err := sortKey(key)
			if err != nil {
				return err
			}
			if most < 1 || most > api.MaxRanked {
				return fmt.Errorf("--most: %d is not between 1 and %d", most, api.MaxRanked)
			}
			all, err := a.client().Processes(c.Context(), api.Ranking{By: by, Most: most})
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), all)
			}
			psGrid(all).write(c.OutOrStdout(), "")
			fmt.Fprintln(c.OutOrStdout(), "~CAUSED is estimated by CPU time; SUFFERED is the whole cgroup's. ms in each second")
			return nil
		},
	}
	c.Flags().StringVar(&key, "sort", key, "`KEY`: "+keys())
	c.Flags().IntVar(&most, "most", most, "rows at the most")
	return c
}

func keys() string {
	var names []string
	for _, k := range model.SortKeys {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func sortKey(s string) (model.SortKey, error) {
	if k := model.SortKey(s); slices.Contains(model.SortKeys, k) {
		return k, nil
	}
	return "", fmt.Errorf("--sort %s: the keys are %s", s, keys())
}

func psGrid(all []model.ProcessFigures) *grid {
	g := &grid{titles: []string{"PID", "CPU %", "RSS", "FORKS/S", "~CAUSED", "SUFFERED", "COMMAND", "CGROUP"}, texts: 2}
	for _, p := range all {
		g.add(fmt.Sprint(p.PID), percent(p), size(p.RSSBytes), figure(p.ForksPerSecond), figure(p.StallCausedEstimate), figure(p.CgroupStallSuffered),
			runs(p), or(p.Cgroup, fmt.Sprint(p.CgroupID)))
	}
	return g
}
