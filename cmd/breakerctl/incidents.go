package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) incidents() *cobra.Command {
	var f pastFlags
	var kind string
	c := &cobra.Command{
		Use: "incidents [ID]", Short: "List the incidents, or tell all about one", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeIncidents,
		Long: `List what went wrong, the newest first: the kind, because of whom, who was made to wait,
and what the policies decided about it. With an ID, everything about that one.

Those of the last day are listed, or of the time that --since and --until say, as far as
breakerd keeps them (history.max_age in breakerd.yaml(5)), also from before it was started
again; 1000 at the most. Those count that were open at some time of it.

An incident that is informational hurts nobody: a build, or a script.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				in, err := a.incident(c, args[0])
				if err != nil {
					return err
				}
				return a.writeIncident(c.OutOrStdout(), in.Incident)
			}
			since, until, err := f.stretch(time.Now())
			if err != nil {
				return err
			}
			if f.filter.Most < 1 {
				return fmt.Errorf("--most %d: it must be 1 or more", f.filter.Most)
			}
			f.filter.Since, f.filter.Until, f.filter.Kind = since, until, model.Kind(kind)
			all, err := a.client().Past(c.Context(), f.filter)
			if err != nil {
				return err
			}
			a.warnNoHistory(c)
			return a.writeIncidents(c.OutOrStdout(), all)
		},
	}
	f.add(c, "24h")
	c.Flags().StringVar(&kind, "kind", "", "only those of a `KIND`, such as fork_storm")
	c.Flags().StringVar(&f.filter.Cgroup, "cgroup", "", "only those whose culprit is in a `CGROUP` or below it (/system.slice)")
	c.Flags().StringVar(&f.filter.Unit, "unit", "", "only those whose culprit is in a systemd `UNIT` (nginx.service)")
	c.Flags().IntVar(&f.filter.Most, "most", api.MaxIncidents, "at most the newest `N`")
	completeValues(c, "kind", kindNames()...)
	return c
}

func kindNames() (names []string) {
	for _, k := range model.Kinds {
		names = append(names, string(k))
	}
	return names
}

// pastFlags say which stretch of time is meant.
type pastFlags struct {
	since, until string
	filter       model.IncidentFilter
}

// add adds the flags; without any it is as long ago as said.
func (f *pastFlags) add(c *cobra.Command, since string) {
	c.Flags().StringVar(&f.since, "since", since, "`WHEN` it begins: so long ago (30m, 24h, 7d), or a time (2006-01-02, 2006-01-02 15:04)")
	c.Flags().StringVar(&f.until, "until", "", "`WHEN` it ends, written likewise (default now)")
}

func (f *pastFlags) stretch(now time.Time) (since, until time.Time, err error) {
	if since, err = when("since", f.since, now); err != nil {
		return since, until, err
	}
	if f.until != "" {
		if until, err = when("until", f.until, now); err != nil {
			return since, until, err
		}
		if !since.Before(until) {
			return since, until, fmt.Errorf("--until %s is not after --since %s", f.until, f.since)
		}
	}
	return since, until, nil
}

// when reads a moment in the past, as people write it: so long ago, or a time here.
func when(flag, text string, now time.Time) (time.Time, error) {
	bad := fmt.Errorf("--%s %q: write so long ago (30m, 24h, 7d), or a time (2006-01-02, 2006-01-02 15:04)", flag, text)
	if days, found := strings.CutSuffix(text, "d"); found {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return now, bad
		}
		return now.AddDate(0, 0, -n), nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		if ago < 0 {
			return now, bad
		}
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04", time.DateTime} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return now, bad
}

// warnNoHistory says that a list may hold less than was asked for, or why an incident is
// not there.
func (a *app) warnNoHistory(c *cobra.Command) {
	s, err := a.client().Status(c.Context())
	switch {
	case err != nil: // the list was answered
	case !s.History.Enabled:
		fmt.Fprintln(c.ErrOrStderr(), "breakerctl: nothing is kept (history.enabled is false): these are those since breakerd started")
	case s.History.Problem != "":
		fmt.Fprintln(c.ErrOrStderr(), "breakerctl: what happens is not kept, and these may not be all:", safetext.Printable(s.History.Problem))
	case s.History.SetAside != "":
		fmt.Fprintln(c.ErrOrStderr(), "breakerctl: the history was damaged, and what was in it is not among these: it is set aside as", safetext.Printable(s.History.SetAside))
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
	if in.Unfinished {
		return "at least " + span(in.ClosedAt.Sub(in.OpenedAt))
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
