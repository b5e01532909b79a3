package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/model"
)

func (a *app) breakers() *cobra.Command {
	return &cobra.Command{
		Use: "breakers", Short: "List what is known of those who were held of late", Args: cobra.NoArgs,
		Long: `List the circuit breakers of the culprits that were held of late. Open: it is held. Half-open: it
was loosened or let go, and its victims are watched. Closed: neither.

EFFECT says whether holding it helped its victims, from how long anybody made them wait in each
second before and while it was held (BEFORE, AFTER). Where it did not help it was let go early and
is left alone for a while: RESTS.`,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := a.client().Breakers(c.Context())
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), all)
			}
			if len(all) == 0 {
				fmt.Fprintln(c.OutOrStdout(), "nobody was held of late")
				return nil
			}
			r := newRows(c.OutOrStdout(), "CGROUP", "STATE", "FOR", "OPENED", "EFFECT", "BEFORE", "AFTER", "LAST END", "RESTS")
			for _, b := range all {
				r.add(b.Cgroup, breakerState(b), span(time.Since(b.Since)), fmt.Sprint(b.Opened), string(b.LastEffect),
					fmt.Sprintf("%.0f ms/s", b.Before.OthersMS), fmt.Sprintf("%.0f ms/s", b.After.OthersMS), or(string(b.LastEnd), "-"), or(rests(b), "-"))
			}
			return r.flush()
		},
	}
}

func breakerState(b model.Breaker) string {
	if b.Eased {
		return string(b.State) + ", loosened"
	}
	return string(b.State)
}

// rests says for which kinds of trouble a culprit is left alone, and until when.
func rests(b model.Breaker) string {
	var all []string
	for _, r := range b.Resting {
		all = append(all, fmt.Sprintf("%s until %s", r.Kind, clock(r.Until)))
	}
	return strings.Join(all, ", ")
}
