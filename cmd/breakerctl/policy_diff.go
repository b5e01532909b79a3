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

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
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

// policyDiffed is what policy diff says.
type policyDiffed struct {
	Incidents int               `json:"incidents"`
	Changes   []changedDecision `json:"changes"`
}

func (a *app) policyDiff() *cobra.Command {
	var f pastFlags
	partial := false
	c := &cobra.Command{
		Use: "diff OLD NEW [RECORDING]...", Short: "Say what other policies would have changed, for whom", Args: cobra.MinimumNArgs(2),
		Long: `Put what has been to two sets of policies, and show each incident about which they want
something else. Nothing is carried out.

Without a RECORDING it is the incidents in the history of a running breakerd: of the last
seven days, or of the time that --since and --until say. Each is put to both sets with what
the policies saw when they were asked first and last, also where none was loaded. That is
kept of the newest 5000; of older ones it is the incident as it was seen last, by a culprit
of whom nothing is known.

A RECORDING (breakerctl record) is taken through the detectors, and both sets are judged as
dry runs with the recording's thresholds: then each second counts, and what they learn of a
culprit. Either way the answer is the same each time and on every machine.

Exit codes:
  0  nothing would change
  1  it could not be told
  3  something would change`,
		RunE: func(c *cobra.Command, args []string) error {
			old, new, recordings := args[0], args[1], args[2:]
			var d policyDiffed
			var err error
			switch {
			case len(recordings) == 0:
				d, err = a.diffHistory(c, old, new, f)
			case c.Flags().Changed("since") || c.Flags().Changed("until"):
				err = errors.New("--since and --until are about the history: with them, name no recording")
			default:
				d, err = diffRecordings(c.Context(), old, new, recordings, partial)
			}
			if err != nil {
				return err
			}
			if a.output == jsonText {
				if err := writeJSON(c.OutOrStdout(), d); err != nil {
					return err
				}
			} else if err := writePolicyDiff(c.OutOrStdout(), d); err != nil {
				return err
			}
			if len(d.Changes) > 0 {
				return exitStatus(3)
			}
			return nil
		},
	}
	f.add(c, "7d")
	c.Flags().BoolVar(&partial, "partial", false, "accept truncated recordings, and judge what is whole")
	return c
}

// diffHistory compares two sets on what is kept.
func (a *app) diffHistory(c *cobra.Command, old, new string, flags pastFlags) (d policyDiffed, err error) {
	var f model.IncidentFilter
	if f.Since, f.Until, err = flags.stretch(time.Now()); err != nil {
		return d, err
	}
	both, err := loadBoth(old, new)
	if err != nil {
		return d, err
	}
	d.Changes = []changedDecision{}
	ctx, known := c.Context(), map[string]bool{}
	for more := true; more; {
		page, err := a.client().Past(ctx, f)
		if err != nil {
			return d, err
		}
		more = false
		for _, in := range page {
			if known[in.ID] {
				continue
			}
			known[in.ID], more = true, len(page) == api.MaxIncidents
			f.Until = in.OpenedAt // of the next page
			story, err := a.client().Story(ctx, in.ID)
			if errors.Is(err, api.ErrNotFound) {
				continue // too old by now
			}
			if err != nil {
				return d, err
			}
			if err := d.add(ctx, both, &story); err != nil {
				return d, err
			}
		}
	}
	a.warnNoHistory(c)
	d.sort()
	return d, nil
}

func loadBoth(old, new string) (both [2]*policy.Set, err error) {
	for i, path := range []string{old, new} {
		if both[i], err = policy.Load(path); err != nil {
			return both, err
		}
	}
	return both, nil
}

// add puts an incident to both sets.
func (d *policyDiffed) add(ctx context.Context, both [2]*policy.Set, s *model.Story) error {
	if !s.Culprit.Known() {
		return nil // nobody is asked about it
	}
	inputs, err := inputsOf(s)
	if err != nil {
		return err
	}
	wanted := [2][]string{{}, {}}
	for i, set := range both {
		for _, in := range inputs {
			v := set.Decide(ctx, in)
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			wanted[i] = alsoWanted(wanted[i], &v)
		}
	}
	d.Incidents++
	if !slices.Equal(wanted[0], wanted[1]) {
		d.Changes = append(d.Changes, changedDecision{s.ID, s.Kind, s.Culprit.Cgroup, s.OpenedAt, wanted[0], wanted[1]})
	}
	return nil
}

// alsoWanted adds what a verdict wants to what was wanted before, each thing once.
func alsoWanted(all []string, v *policy.Verdict) []string {
	if text := verdictText(v); text != "" && !slices.Contains(all, text) {
		all = append(all, text)
	}
	return all
}

// verdictText says what a verdict wants, with all that makes it another; "" where nobody said
// anything.
func verdictText(v *policy.Verdict) string {
	switch {
	case v.Error != "":
		return "failed: " + v.Error
	case len(v.Denied) > 0:
		return "denied by " + v.Policy + ": " + v.Denied[0].Reason
	case v.Action.Kind == model.NoAction:
		return ""
	}
	text := actionText(v.Action)
	for _, next := range v.Action.Then {
		text += ", then " + actionText(next)
	}
	text += " by " + v.Policy
	if v.DryRun {
		text += ", held to a dry run by its author"
	}
	return text
}

func (d *policyDiffed) sort() {
	slices.SortFunc(d.Changes, func(x, y changedDecision) int {
		return cmp.Or(x.OpenedAt.Compare(y.OpenedAt), strings.Compare(x.Incident, y.Incident))
	})
}

// diffRecordings compares two sets on recordings.
func diffRecordings(ctx context.Context, old, new string, recordings []string, partial bool) (policyDiffed, error) {
	d := policyDiffed{Changes: []changedDecision{}}
	for _, recording := range recordings {
		some, n, err := diffPolicies(ctx, old, new, recording, partial)
		if err != nil {
			return d, fmt.Errorf("%s: %w", recording, err)
		}
		d.Changes, d.Incidents = append(d.Changes, some...), d.Incidents+n
	}
	d.sort()
	return d, nil
}

func diffPolicies(ctx context.Context, old, new, recording string, partial bool) (changes []changedDecision, incidents int, err error) {
	var both [2]*replayer
	for i, path := range []string{old, new} {
		if both[i], err = replay(ctx, recording, replayOptions{policies: []string{path}, partial: partial}); err != nil {
			return nil, 0, err
		}
	}
	// Policies change nothing about what is detected: both have the same incidents.
	for _, in := range both[0].all {
		wanted := [2][]string{{}, {}}
		for i, r := range both {
			wanted[i] = append(wanted[i], r.wanted[in.ID]...)
		}
		if !slices.Equal(wanted[0], wanted[1]) {
			changes = append(changes, changedDecision{in.ID, in.Kind, in.Culprit.Cgroup, in.OpenedAt, wanted[0], wanted[1]})
		}
	}
	return changes, len(both[0].all), nil
}

func writePolicyDiff(w io.Writer, d policyDiffed) error {
	if d.Incidents == 0 {
		return errors.New("there is no incident: nothing can be compared")
	}
	fmt.Fprintf(w, "%d of %d incidents would be decided otherwise\n", len(d.Changes), d.Incidents)
	if len(d.Changes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	r := newRows(w, "OPENED", "INCIDENT", "KIND", "CGROUP", "OLD", "NEW")
	for _, c := range d.Changes {
		r.add(clock(c.OpenedAt), c.Incident, string(c.Kind), or(c.Cgroup, "-"), wantedList(c.Old), wantedList(c.New))
	}
	return r.flush()
}

// wantedList says what was wanted in a cell of a table. A policy may have answered something
// else each second of an incident, such as a limit that it works out.
func wantedList(all []string) string {
	const most = 4
	if more := len(all) - most; more > 0 {
		all = append(slices.Clone(all[:most]), fmt.Sprintf("and %d more", more))
	}
	return or(strings.Join(all, "; "), "nothing")
}
