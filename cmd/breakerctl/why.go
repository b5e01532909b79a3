package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) why() *cobra.Command {
	return &cobra.Command{
		Use: "why ID", Short: "Say why an incident opened: its cause and what was seen then", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeIncidents,
		Long: `Say what an incident is about, what caused it, and what was seen when it opened: the
processes and cgroups that weighed most, who waited for whom, the pressures, the limits,
and the programs that were started last. That was captured once, when it opened; the
newest 5000 incidents keep it (200 without a history). Then what was decided about it, how often, and what was
held, with how long its victims waited meanwhile.`,
		RunE: func(c *cobra.Command, args []string) error {
			in, err := a.incident(c, args[0])
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), in)
			}
			writeStory(c.OutOrStdout(), in)
			return nil
		},
	}
}

func (a *app) incident(c *cobra.Command, id string) (model.Story, error) {
	in, err := a.client().Story(c.Context(), id)
	if errors.Is(err, api.ErrNotFound) {
		a.warnNoHistory(c)
		return in, fmt.Errorf("no incident %s: breakerctl incidents lists those that are remembered%w", id, silent{api.ErrNotFound})
	}
	return in, err
}

// silent is an error that has been said in other words.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// writeStory writes why an incident opened, and all that came of it.
func writeStory(w io.Writer, s model.Story) {
	if len(s.Verdicts) == 0 {
		writeWhy(w, s.Incident)
		return
	}
	in := s.Incident
	in.Decisions = nil // the verdicts say more
	writeWhy(w, in)
	fmt.Fprintln(w, "\nDECISIONS")
	for _, v := range s.Verdicts {
		often := ""
		if v.Times > 1 {
			often = fmt.Sprintf(" (%d times, until %s)", v.Times, v.LastAt.Local().Format(time.TimeOnly))
		}
		paragraph(w, "  ", fmt.Sprintf("%s %s by %s: %s%s", clock(v.At), v.Action, or(v.Policy, "-"), told(v.DecisionRecord), often))
	}
	g := &grid{titles: []string{"AT", "FOR", "WAITED BEFORE", "MEANWHILE", "END", "VICTIM"}, texts: 2}
	for _, h := range s.Holds {
		held := h.CreatedAt
		if h.HeldAt != nil {
			held = *h.HeldAt
		}
		lasted := "?"
		if h.EndedAt != nil {
			lasted = span(h.EndedAt.Sub(held))
		}
		for _, v := range h.During {
			before := 0.0
			for _, b := range h.Before {
				if b.CgroupID == v.CgroupID && b.Resource == v.Resource {
					before = b.StallMS
				}
			}
			g.add(held.Local().Format(time.TimeOnly), lasted, fmt.Sprintf("%.0f ms", before), fmt.Sprintf("%.0f ms", v.StallMS), ended(&h.Lease), or(v.Cgroup, fmt.Sprint(v.CgroupID)))
		}
	}
	section(w, "While it was held, or in a dry run would have been", g)
}

// ended says how a lease has ended, and since when it was held more loosely.
func ended(l *model.Lease) string {
	text := or(string(l.EndReason), "-")
	if l.EasedAt != nil && l.EndedAt != nil {
		text += fmt.Sprintf(", loosened %s before", span(l.EndedAt.Sub(*l.EasedAt)))
	}
	return text
}

func writeWhy(w io.Writer, in model.Incident) {
	fmt.Fprintf(w, "%s  %s, %s (severity %.2f), %s\n\n", safetext.Printable(in.ID), in.Kind, in.Level, in.Severity, lasted(in))
	paragraph(w, "  ", in.Summary)
	t := in.Triage
	if t == nil {
		fmt.Fprintln(w, "\nWhat was seen when it opened is not kept any more.")
		writeDecisions(w, in)
		return
	}
	fmt.Fprintln(w, "\nCAUSE")
	paragraph(w, "  ", t.Cause)
	fmt.Fprintf(w, "\nWHEN IT OPENED, %s, over the last seconds\n", clock(in.OpenedAt))
	if p := t.Pressure; p != nil {
		paragraph(w, "  ", "host pressure: "+pressures(p))
	}
	processes := "Processes, the culprit's cgroup first"
	if !in.Culprit.Known() {
		processes = "Processes" // nobody stands out
	}
	section(w, processes, processGrid(t.Processes))
	section(w, "Cgroups; ms in each second", cgroupGrid(t.Cgroups))
	section(w, "Who waited for whom; ms in each second", blameGrid(t.Blame))
	section(w, "Read from the cgroups' files", filesGrid(t.Cgroups))
	section(w, "The last programs that were started", eventGrid(t.Execs, false))
	section(w, "The last processes that were made", eventGrid(t.Forks, true))
	o := t.Seen
	fmt.Fprintln(w)
	paragraph(w, "  ", fmt.Sprintf("Seen: %d samples over %.1f s, the longest tick %.0f ms, the latest %.0f ms late; lost: %d event records, %d waits, %d cgroup counts.",
		o.Samples, o.CoveredMS/1000, o.LongestTickMS, o.LateMS, o.LostEvents, o.LostCells, o.LostCgroups))
	writeDecisions(w, in)
}

func section(w io.Writer, title string, g *grid) {
	if len(g.rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n  %s\n", title)
	g.write(w, "  ")
}

func writeDecisions(w io.Writer, in model.Incident) {
	if len(in.Decisions) == 0 {
		return
	}
	fmt.Fprintln(w, "\nDECISIONS")
	for _, d := range in.Decisions {
		paragraph(w, "  ", fmt.Sprintf("%s %s by %s: %s", clock(d.At), d.Action, or(d.Policy, "-"), told(d)))
	}
}

func pressures(p *model.PressurePercent) string {
	return fmt.Sprintf("cpu %.0f %%, memory %.0f %% (full %.0f %%), io %.0f %% (full %.0f %%)", p.CPUSome, p.MemorySome, p.MemoryFull, p.IOSome, p.IOFull)
}

func processGrid(all []model.ProcessFigures) *grid {
	g := &grid{titles: []string{"PID", "UID", "CPU %", "RSS", "FORKS/S", "COMMAND", "CGROUP"}, texts: 2}
	for _, p := range all {
		g.add(fmt.Sprint(p.PID), fmt.Sprint(p.UID), percent(p), size(p.RSSBytes), figure(p.ForksPerSecond), runs(p), or(p.Cgroup, fmt.Sprint(p.CgroupID)))
	}
	return g
}

// runs is what a process runs; a kernel thread has no command line.
func runs(p model.ProcessFigures) string {
	if p.Kernel {
		return "[" + p.Comm + "]"
	}
	return or(p.Cmdline, p.Comm)
}

func percent(p model.ProcessFigures) string {
	if !p.CPUKnown {
		return "?"
	}
	return figure(p.CPUPercent)
}

func figure(v float64) string {
	if v == 0 {
		return "-"
	}
	if v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func cgroupGrid(all []model.CgroupFigures) *grid {
	g := &grid{titles: []string{"PROCS", "CPU %", "CAUSED", "SUFFERED", "WAITED", "FORKS/S", "RSS", "CGROUP"}, texts: 1}
	for _, c := range all {
		g.add(fmt.Sprint(c.Processes), figure(c.CPUPercent), figure(c.StallCausedMSPerSecond), figure(c.StallSufferedMSPerSecond),
			figure(c.WaitMSPerSecond), figure(c.ForksPerSecond), size(c.RSSBytes), or(c.Cgroup, fmt.Sprint(c.CgroupID)))
	}
	return g
}

func filesGrid(all []model.CgroupFigures) *grid {
	g := &grid{titles: []string{"CPU MAX %", "MEM MAX", "MEM HIGH", "PIDS MAX", "MEMORY", "PSI % C/M/I", "CGROUP"}, texts: 1}
	limit := func(n uint64, text string) string {
		if n == 0 {
			return "-"
		}
		return text
	}
	for _, c := range all {
		f := c.Files
		if f == nil {
			continue
		}
		p := "?"
		if f.Pressure != nil {
			p = fmt.Sprintf("%.0f/%.0f/%.0f", f.Pressure.CPUSome, f.Pressure.MemorySome, f.Pressure.IOSome)
		}
		g.add(figure(f.CPUMaxPercent), limit(f.MemoryMaxBytes, size(f.MemoryMaxBytes)), limit(f.MemoryHighBytes, size(f.MemoryHighBytes)),
			limit(f.PIDsMax, fmt.Sprint(f.PIDsMax)), limit(f.MemoryBytes, size(f.MemoryBytes)), p, or(c.Cgroup, fmt.Sprint(c.CgroupID)))
	}
	return g
}

func blameGrid(all []model.BlamePair) *grid {
	g := &grid{titles: []string{"MS/S", "FOR", "HOW", "VICTIM", "WAITED FOR"}, texts: 2}
	for _, p := range all {
		g.add(figure(p.MSPerSecond), string(p.Resource), how(p.Estimated), or(p.Victim, fmt.Sprint(p.VictimID)), or(p.Offender, fmt.Sprint(p.OffenderID)))
	}
	return g
}

func how(estimated bool) string {
	if estimated {
		return "estimated"
	}
	return "measured"
}

func eventGrid(all []model.ProcessEvent, forks bool) *grid {
	g := &grid{titles: []string{"AT", "PID", "COMMAND", "CGROUP"}, texts: 2}
	if forks {
		g.titles[2] = "NAME, FORKED BY"
	}
	for _, e := range all {
		what := or(e.Cmdline, e.Comm)
		if forks {
			what = fmt.Sprintf("%s, %d", e.Comm, e.ParentPID)
		}
		g.add(e.At.Local().Format(time.TimeOnly), fmt.Sprint(e.PID), what, or(e.Cgroup, fmt.Sprint(e.CgroupID)))
	}
	return g
}
