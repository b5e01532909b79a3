package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) whyNot() *cobra.Command {
	return &cobra.Command{
		Use: "why-not CGROUP | PID", Short: "Say what was seen of a cgroup or process, and why it is no incident", Args: cobra.ExactArgs(1),
		Long: `Say what breakerd saw of a cgroup, or of a process and its cgroup, over the last seconds:
what it used, who made it wait and whom it made wait; and beside each detector's threshold
the value that was measured. An incident opens where all of a kind's thresholds are met
for as long as that kind asks.

A cgroup is named by its path below the cgroup2 mount (/system.slice/nginx.service), a
process by its number. Exit code 2: there is no such cgroup or process.`,
		RunE: func(c *cobra.Command, args []string) error {
			subject := api.Subject{Cgroup: args[0]}
			if n, err := strconv.ParseInt(args[0], 10, 32); err == nil && n > 0 {
				subject = api.Subject{PID: int32(n)}
			}
			if subject.PID == 0 && !strings.HasPrefix(args[0], "/") {
				return fmt.Errorf("%q is neither a process id nor a cgroup: write a cgroup as its path below the cgroup2 mount, such as /system.slice/nginx.service", args[0])
			}
			out, err := a.client().WhyNot(c.Context(), subject)
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), out)
			}
			writeWhyNot(c.OutOrStdout(), out)
			return nil
		},
	}
}

func writeWhyNot(w io.Writer, out model.WhyNot) {
	g := out.Cgroup
	if p := out.Process; p != nil {
		paragraph(w, "", fmt.Sprintf("process %d (%s), uid %d, started by %d", p.PID, runs(*p), p.UID, p.ParentPID))
		section(w, "The process", processGrid([]model.ProcessFigures{*p}))
		fmt.Fprintln(w)
	}
	paragraph(w, "", fmt.Sprintf("cgroup %s (id %d)", or(g.Cgroup, "without a name"), g.CgroupID))
	if name := workloadName(g.Workload); name != "" {
		paragraph(w, "", name)
	}
	fmt.Fprintf(w, "seen over the last %.1f s\n", out.CoveredMS/1000)
	section(w, "The cgroup; ms in each second", cgroupGrid([]model.CgroupFigures{g}))
	if s := out.Shares; s.WaitMS > 0 {
		wait := &grid{titles: []string{"OTHERS", "SELF", "OWN QUOTA", "OUR THROTTLE", "KERNEL", "STEAL", "UNKNOWN"}}
		wait.add(figure(s.NeighbourMS), figure(s.SelfMS), figure(s.OwnQuotaMS), figure(s.OurThrottleMS), figure(s.KernelMS), figure(s.StealMS), figure(s.UnknownMS))
		section(w, fmt.Sprintf("Where its %.1f ms of waiting for a CPU went; ms in each second", s.WaitMS), wait)
	}
	section(w, "Who made it wait", blameGrid(out.WaitedFor))
	section(w, "Whom it made wait", blameGrid(out.WaitedForIt))
	section(w, "Read from its files", filesGrid([]model.CgroupFigures{g}))
	fmt.Fprintln(w)
	for _, k := range out.Kinds {
		writeMeasures(w, k)
	}
	switch {
	case len(out.Culprit) > 0:
		paragraph(w, "", "It is the culprit of "+strings.Join(out.Culprit, ", ")+": breakerctl why says more.")
	default:
		paragraph(w, "", "It is the culprit of no open incident.")
	}
	if len(out.Victim) > 0 {
		paragraph(w, "", "It is a victim of "+strings.Join(out.Victim, ", ")+": breakerctl why says more.")
	}
}

func writeMeasures(w io.Writer, k model.KindMeasures) {
	met := 0
	g := &grid{titles: []string{"VALUE", "THRESHOLD", "MET", "MEASURE"}, texts: 1}
	for _, m := range k.Measures {
		value, is := figure(m.Value), "no"
		switch {
		case !m.Known:
			value, is = "?", "?"
		case m.Met:
			is = "yes"
			met++
		}
		g.add(value, figure(m.Threshold), is, m.Name)
	}
	fmt.Fprintf(w, "  %s: %d of %d thresholds met\n", safetext.Printable(string(k.Kind)), met, len(k.Measures))
	g.write(w, "    ")
	if k.Missing != "" {
		paragraph(w, "    ", k.Missing)
	}
	fmt.Fprintln(w)
}

// workloadName is what people call a cgroup.
func workloadName(wl model.Workload) string {
	var parts []string
	if wl.Container != "" {
		parts = append(parts, strings.TrimSpace(wl.Runtime+" container "+wl.Container[:min(12, len(wl.Container))]))
	}
	if wl.PodUID != "" {
		parts = append(parts, "pod "+wl.PodUID)
	}
	if wl.Unit != "" {
		parts = append(parts, "unit "+wl.Unit)
	}
	if wl.Manager != "" {
		parts = append(parts, "of "+wl.Manager)
	}
	return strings.Join(parts, ", ")
}
