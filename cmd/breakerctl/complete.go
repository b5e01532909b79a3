package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/model"
)

// completeBound is how long a shell may wait for breakerd while somebody types.
const completeBound = time.Second

// completeIncidents offers the incidents that are remembered.
func (a *app) completeIncidents(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), completeBound)
	defer cancel()
	all, err := a.client().Past(ctx, model.IncidentFilter{Since: time.Now().Add(-24 * time.Hour), Most: 100})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, in := range all {
		ids = append(ids, in.ID+"\t"+string(in.Kind))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// completeApprovals offers what waits for a person's yes.
func (a *app) completeApprovals(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), completeBound)
	defer cancel()
	s, err := a.client().Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, q := range s.Enforcer.Approvals {
		ids = append(ids, q.ID+"\t"+string(q.Decision.Action.Kind)+" of "+q.Decision.Target.Cgroup)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// completeLeases offers what is held.
func (a *app) completeLeases(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), completeBound)
	defer cancel()
	all, err := a.client().Leases(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, l := range all {
		ids = append(ids, l.ID+"\t"+string(l.Decision.Kind))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// completeValues offers the values of a flag.
func completeValues(c *cobra.Command, flag string, values ...string) {
	err := c.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // there is no such flag
	}
}
