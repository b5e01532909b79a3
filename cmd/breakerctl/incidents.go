package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) incidents() *cobra.Command {
	return &cobra.Command{
		Use: "incidents [ID]", Short: "List the incidents, or tell all about one", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeIncidents,
		Long: `List what went wrong, the newest first: the kind, because of whom, who was made to wait,
and what the policies decided about it. With an ID, everything about that one.

An incident that is informational hurts nobody: a build, or a script.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				in, err := a.incident(c, args[0])
				if err != nil {
					return err
				}
				return a.writeIncident(c.OutOrStdout(), in)
			}
			all, err := a.client().Incidents(c.Context())
			if err != nil {
				return err
			}
			return a.writeIncidents(c.OutOrStdout(), all)
		},
	}
}

func (a *app) writeIncidents(w io.Writer, all []model.Incident) error {
	if a.output == jsonText {
		if all == nil {
			all = []model.Incident{}
		}
		return writeJSON(w, all)
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "no incidents")
		return nil
	}
	r := newRows(w, "ID", "OPENED", "LASTED", "KIND", "LEVEL", "CULPRIT", "VICTIMS", "DECISION")
	for _, in := range all {
		r.add(in.ID, clock(in.OpenedAt), lasted(in), string(in.Kind), string(in.Level), culprit(in.Culprit), victims(in.Victims), decision(in.Decisions))
	}
	return r.flush()
}

func (a *app) writeIncident(w io.Writer, in model.Incident) error {
	if a.output == jsonText {
		return writeJSON(w, in)
	}
	fmt.Fprintf(w, "%s\n\n", safetext.Printable(in.Summary))
	pairs := []string{
		"incident", fmt.Sprintf("%s, %s, %s (severity %.2f)", in.ID, in.Kind, in.Level, in.Severity),
		"opened", clock(in.OpenedAt),
		"lasted", lasted(in),
		"culprit", accused(in.Culprit),
		"command", in.Culprit.Root.Cmdline,
		"cgroup", in.Culprit.Cgroup,
	}
	for _, v := range in.Victims {
		pairs = append(pairs, "victim", fmt.Sprintf("%s waited %.0f ms for %s", or(v.Cgroup, fmt.Sprint(v.CgroupID)), v.StallMS, v.Resource))
	}
	for _, key := range sortedKeys(in.Evidence) {
		pairs = append(pairs, key, fmt.Sprint(in.Evidence[key]))
	}
	for _, d := range in.Decisions {
		pairs = append(pairs, "decision", fmt.Sprintf("%s by %s: %s", d.Action, or(d.Policy, "-"), told(d)))
	}
	return facts(w, pairs...)
}

func lasted(in model.Incident) string {
	if in.ClosedAt == nil {
		return span(time.Since(in.OpenedAt)) + ", open"
	}
	return span(in.ClosedAt.Sub(in.OpenedAt))
}

// accused is the culprit with its figures.
func accused(c model.Culprit) string {
	if !c.Known() {
		return culprit(c)
	}
	return fmt.Sprintf("%s, uid %d, %d processes, %.0f %% of the cause", culprit(c), c.UID, c.Processes, 100*c.Share)
}

func culprit(c model.Culprit) string {
	if !c.Known() {
		return "nobody stands out"
	}
	if c.Scope == model.ScopeCgroup {
		return or(c.Cgroup, fmt.Sprint(c.CgroupID))
	}
	return fmt.Sprintf("%s[%d] in %s", c.Root.Comm, c.Root.PID, or(c.Cgroup, fmt.Sprint(c.CgroupID)))
}

func victims(all []model.Victim) string {
	if len(all) == 0 {
		return "-"
	}
	text := fmt.Sprintf("%s %.0f ms", or(all[0].Cgroup, fmt.Sprint(all[0].CgroupID)), all[0].StallMS)
	if len(all) > 1 {
		text += fmt.Sprintf(" +%d", len(all)-1)
	}
	return text
}

func decision(all []model.DecisionRecord) string {
	if len(all) == 0 {
		return "-"
	}
	d := all[len(all)-1]
	return fmt.Sprintf("%s: %s", d.Action, told(d))
}

// told says what became of a decision.
func told(d model.DecisionRecord) string {
	switch {
	case d.Error != "":
		return "failed: " + d.Error
	case d.RefusedBy != "":
		return fmt.Sprintf("refused by %s: %s", d.RefusedBy, d.Reason)
	}
	held := fmt.Sprintf("held for %s", span(time.Duration(d.ForMS)*time.Millisecond))
	if d.DryRun {
		held = "dry run, would be " + held
	}
	return strings.TrimSpace(held + ", " + d.Reason)
}
