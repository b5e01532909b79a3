package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) approve() *cobra.Command {
	return &cobra.Command{
		Use: "approve ID", Short: "Say yes to what a policy wants done only with a person's yes", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeApprovals,
		Long: `Say yes to an action for which a policy asks with "approval". breakerctl leases lists what waits,
and the journal says so when it begins to. Only root may, and whom allow.approvers names in
enforcer.yaml. To say no, do nothing: the question expires.

It is carried out when breakerd asks for it next, within a second, if the trouble goes on. Every
guard is asked again, and who is meant is looked at again. The yes is for once. A restart of the
enforcer forgets questions and answers, and asks again where that is still wanted.`,
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] == "" {
				return errors.New("the ID is empty: breakerctl leases lists what waits")
			}
			e := enforce.NewClient(a.runtimeDir)
			defer e.Close()
			// breakerd is not asked: it may not say yes.
			given, err := e.Approve(c.Context(), args[0])
			if err != nil {
				return fmt.Errorf("%w (where breaker-enforcer does not run, nothing is asked)", err)
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), given)
			}
			d := given.Decision
			fmt.Fprintf(c.OutOrStdout(), "approved: %s of %s for %s, if it is asked for again before %s; see breakerctl leases\n",
				d.Action.Kind, safetext.Printable(d.Target.Cgroup), d.Action.For(), clock(given.ExpiresAt))
			return nil
		},
	}
}

// waiting lists what waits for a person's yes, or was said yes to and not done yet.
func waiting(r *rows, all []model.Approval) {
	for _, q := range all {
		d := q.Decision
		state := "waits for a yes"
		if q.State == model.ApprovalGiven {
			state = "approved"
		}
		r.add(q.ID, state, string(d.Action.Kind), d.Target.Cgroup, span(time.Until(q.ExpiresAt)), string(d.Kind), d.Policy)
	}
}
