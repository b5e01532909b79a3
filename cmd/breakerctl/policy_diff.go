package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/model"
)

// changedDecision is an incident about which two sets of policies want something else.
type changedDecision struct {
	Incident string     `json:"incident"`
	Kind     model.Kind `json:"kind"`
	Cgroup   string     `json:"cgroup"`
	OpenedAt time.Time  `json:"opened_at"`
	Old      []string   `json:"old"`
	New      []string   `json:"new"`
}

func (a *app) policyDiff() *cobra.Command {
	partial := false
	c := &cobra.Command{
		Use: "diff OLD NEW RECORDING...", Short: "Say what other policies would have changed, for whom", Args: cobra.MinimumNArgs(3),
		Long: `Take recordings (breakerctl record) through the detectors and through two sets of policies,
and show each incident about which they want something else. Both are judged as dry runs with
the recording's thresholds, so that the answer is the same each time and on every machine.

Exit codes:
  0  nothing would change
  1  it could not be told
  3  something would change`,
		RunE: func(c *cobra.Command, args []string) error {
			changes := []changedDecision{}
			incidents := 0
			for _, recording := range args[2:] {
				some, n, err := diffPolicies(c.Context(), args[0], args[1], recording, partial)
				if err != nil {
					return fmt.Errorf("%s: %w", recording, err)
				}
				changes, incidents = append(changes, some...), incidents+n
			}
			if a.output == jsonText {
				if err := writeJSON(c.OutOrStdout(), map[string]any{"incidents": incidents, "changes": changes}); err != nil {
					return err
				}
			} else if err := writePolicyDiff(c.OutOrStdout(), incidents, changes); err != nil {
				return err
			}
			if len(changes) > 0 {
				return exitStatus(3)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&partial, "partial", false, "accept truncated recordings, and judge what is whole")
	return c
}

func diffPolicies(ctx context.Context, old, new, recording string, partial bool) ([]changedDecision, int, error) {
	judged := func(path string) ([]model.Incident, error) {
		return replay(ctx, recording, replayOptions{policies: []string{path}, partial: partial})
	}
	was, err := judged(old)
	if err != nil {
		return nil, 0, err
	}
	is, err := judged(new)
	if err != nil {
		return nil, 0, err
	}
	byID := map[string][2]*model.Incident{}
	for i := range was {
		byID[was[i].ID] = [2]*model.Incident{&was[i], nil}
	}
	for i := range is {
		pair := byID[is[i].ID]
		pair[1] = &is[i]
		byID[is[i].ID] = pair
	}
	var changes []changedDecision
	for id, pair := range byID {
		o, n := wantedOf(pair[0]), wantedOf(pair[1])
		if slices.Equal(o, n) {
			continue
		}
		in := pair[0]
		if in == nil {
			in = pair[1]
		}
		changes = append(changes, changedDecision{id, in.Kind, in.Culprit.Cgroup, in.OpenedAt, o, n})
	}
	slices.SortFunc(changes, func(x, y changedDecision) int {
		return cmp.Or(x.OpenedAt.Compare(y.OpenedAt), strings.Compare(x.Incident, y.Incident))
	})
	return changes, len(byID), nil
}

// wantedOf says what was wanted of an incident, each thing once.
func wantedOf(in *model.Incident) []string {
	all := []string{}
	if in == nil {
		return all
	}
	for _, d := range in.Decisions {
		var text string
		switch {
		case d.Error != "":
			text = "failed: " + d.Error
		case d.Action == model.NoAction:
			text = "denied by " + d.Policy + ": " + d.Reason
		default:
			text = fmt.Sprintf("%s %s for %s by %s", d.Action, d.Scope, span(time.Duration(d.ForMS)*time.Millisecond), d.Policy)
		}
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

func writePolicyDiff(w io.Writer, incidents int, changes []changedDecision) error {
	if incidents == 0 {
		return errors.New("there is no incident in the recording: nothing can be compared")
	}
	fmt.Fprintf(w, "%d of %d incidents would be decided otherwise\n", len(changes), incidents)
	if len(changes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	r := newRows(w, "OPENED", "INCIDENT", "KIND", "CGROUP", "OLD", "NEW")
	for _, c := range changes {
		r.add(clock(c.OpenedAt), c.Incident, string(c.Kind), or(c.Cgroup, "-"), or(strings.Join(c.Old, "; "), "nothing"), or(strings.Join(c.New, "; "), "nothing"))
	}
	return r.flush()
}
