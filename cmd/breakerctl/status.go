package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say how breakerd is doing, and what is missing", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.client().Status(c.Context())
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), s)
			}
			if err := facts(c.OutOrStdout(), statusFacts(s)...); err != nil {
				return err
			}
			for _, m := range s.Missing {
				fmt.Fprintf(c.OutOrStdout(), "! %s\n", safetext.Printable(m.Text))
			}
			for _, p := range s.Problems {
				fmt.Fprintf(c.OutOrStdout(), "! %s\n", safetext.Printable(p))
			}
			return nil
		},
	}
}

func statusFacts(s api.Status) []string {
	return []string{
		"breakerd", fmt.Sprintf("%s, pid %d, up %s", s.Version, s.PID, span(time.Since(s.StartedAt))),
		"mode", string(s.Mode),
		"watching", fmt.Sprintf("%d samples, one each %d ms, the last %s ago", s.Samples, s.TickMS, span(time.Since(s.LastSampleAt))),
		"kernel", fmt.Sprintf("%s, %s", s.Kernel, strings.Join(s.Programs, " ")),
		"cgroup2", fmt.Sprintf("%s, controllers: %s", s.CgroupMount, or(strings.Join(s.Controllers, " "), "none")),
		"lost", lost(s),
		"policies", policies(s.Policies),
		"bundle", bundleLine(s.Policies.Bundle),
		"on trial", trial(s.Policies.Trial),
		"enforcer", safetext.Printable(strings.TrimSpace(strings.Join([]string{s.Enforcer.State, s.Enforcer.Error, s.Enforcer.Paused}, " "))),
		"incidents", fmt.Sprintf("%d open, %d since the start", s.OpenIncidents, s.Incidents),
		"leases", leasesLine(s),
		"history", historyState(s.History),
		"privileges", or(s.Privileges, "not settled yet"),
		"own cost", fmt.Sprintf("%.2f %% of one CPU since the start, %d MB", s.Cost.CPUPercent, s.Cost.RSSBytes>>20),
	}
}

func leasesLine(s api.Status) string {
	n := 0
	for _, q := range s.Enforcer.Approvals {
		if q.State == model.ApprovalWaiting {
			n++
		}
	}
	if n == 0 {
		return fmt.Sprint(s.Leases)
	}
	return fmt.Sprintf("%d, and %d waiting for a person's yes: breakerctl leases", s.Leases, n)
}

func historyState(h api.History) string {
	switch {
	case !h.Enabled:
		return "none: history.enabled is false"
	case h.Problem != "":
		return "not written: see below"
	}
	text := fmt.Sprintf("%s, %s", h.Dir, size(uint64(max(0, h.Bytes))))
	if h.Dropped > 0 {
		text += fmt.Sprintf(", %d records found no room", h.Dropped)
	}
	return text
}

func lost(s api.Status) string {
	l := s.LostSinceBoot
	if l.Events+l.Cells+l.Cgroups == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%d event records, %d waits, %d cgroup counts", l.Events, l.Cells, l.Cgroups)
}

func policies(p api.Policies) string {
	switch {
	case len(p.Packages) == 0 && p.Error != "":
		return "none, refused: see below"
	case len(p.Packages) == 0:
		return "none: nothing will ever be done"
	}
	text := fmt.Sprintf("%s (%s), in force since %s", strings.Join(p.Packages, " "), short(p.Hash), clock(p.LoadedAt))
	if p.RefusedAt != nil {
		text += ", a newer set refused " + clock(*p.RefusedAt)
	}
	return text
}

func bundleLine(b *api.Bundle) string {
	if b == nil {
		return "none"
	}
	text := safetext.Printable(b.Source)
	if b.Revision != "" {
		text += ", revision " + safetext.Printable(b.Revision)
	}
	if b.AskedAt != nil {
		text += ", asked for " + clock(*b.AskedAt)
	}
	if b.Error != "" {
		text += ": no answer that can be used, see below"
	}
	return text
}

// trial says how a set of policies fares that is tried.
func trial(t *model.PolicyTrial) string {
	if t == nil {
		return "no policies"
	}
	text := fmt.Sprintf("%s since %s, until %s: asked %d times, it would hold %d more", short(t.Hash), clock(t.Since), clock(t.Until), t.Asked, len(t.More))
	if t.Fewer > 0 {
		text += fmt.Sprintf(", and not %d times where the set in force does", t.Fewer)
	}
	if t.Withheld != "" {
		text += "; it waits, see below"
	}
	return text
}

func short(hash string) string { return hash[:min(len(hash), len("sha256:")+12)] }
