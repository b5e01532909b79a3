package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/safetext"
)

// finding is one thing that doctor looked at.
type finding struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warning or failure
	Detail string `json:"detail"`
	Advice string `json:"advice"` // what to do; "" where nothing is to be done
}

const (
	fine    = "ok"
	warning = "warning"
	failure = "failure"
)

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what keeps breakerd from working here, and say what to do", Args: cobra.NoArgs,
		Long: `Look at the kernel, at cgroups and at pressure stall information, and ask a running breakerd
how it is doing, if there is one. The exit status is 1 if something keeps breakerd from
working here.`,
		RunE: func(c *cobra.Command, _ []string) error {
			all := append(machine(), a.running(c.Context())...)
			if err := a.writeFindings(c, all); err != nil {
				return err
			}
			if slices.ContainsFunc(all, func(f finding) bool { return f.Status == failure }) {
				return errSilent
			}
			return nil
		},
	}
}

func (a *app) writeFindings(c *cobra.Command, all []finding) error {
	if a.output == jsonText {
		return writeJSON(c.OutOrStdout(), map[string]any{"findings": all})
	}
	for _, f := range all {
		fmt.Fprintf(c.OutOrStdout(), "%-8s %s: %s\n", f.Status, f.Name, safetext.Printable(f.Detail))
		if f.Advice != "" {
			fmt.Fprintf(c.OutOrStdout(), "         %s\n", safetext.Printable(f.Advice))
		}
	}
	return nil
}

// machine looks at what breakerd needs of the machine.
func machine() []finding {
	all := []finding{kernel(), btf()}
	mount, err := host.FindCgroup2("/proc")
	if err != nil {
		return append(all, finding{"cgroup2", failure, err.Error(), "mount it, or boot with systemd.unified_cgroup_hierarchy=1"})
	}
	reader := host.Reader{ProcRoot: "/proc", CgroupRoot: mount.Point}
	return append(all, cgroups(reader, mount), pressure(reader))
}

func kernel() finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{"kernel", failure, err.Error(), ""}
	}
	f := finding{"kernel", fine, unix.ByteSliceToString(u.Release[:]), ""}
	var major, minor int
	if _, err := fmt.Sscanf(f.Detail, "%d.%d", &major, &minor); err == nil && (major < 5 || major == 5 && minor < 10) {
		f.Status, f.Advice = failure, "boot Linux 5.10 or later"
	}
	return f
}

func btf() finding {
	const path = "/sys/kernel/btf/vmlinux"
	if _, err := os.Stat(path); err != nil {
		return finding{"BTF", failure, err.Error(), "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as every Debian, Ubuntu and Fedora kernel since 2020 is"}
	}
	return finding{"BTF", fine, path, ""}
}

func cgroups(r host.Reader, mount host.CgroupMount) finding {
	f := finding{"cgroup2", fine, mount.Point, ""}
	names, err := r.Controllers()
	switch {
	case err != nil:
		f.Status, f.Detail = failure, err.Error()
	case !slices.Contains(names, "cpu"):
		f.Status = warning
		f.Detail += ", controllers: " + or(strings.Join(names, " "), "none")
		f.Advice = "freezing works without controllers, and quotas are not seen; for all of it boot with systemd.unified_cgroup_hierarchy=1"
	default:
		f.Detail += ", controllers: " + strings.Join(names, " ")
	}
	return f
}

func pressure(r host.Reader) finding {
	_, err := r.Pressure()
	switch {
	case errors.Is(err, host.ErrPressureOff):
		return finding{"pressure", warning, "pressure stall information is off: cpu_contention cannot be seen", "boot with psi=1 on the kernel's command line"}
	case err != nil:
		return finding{"pressure", warning, err.Error(), ""}
	}
	return finding{"pressure", fine, "/proc/pressure", ""}
}

// running asks the breakerd that runs.
func (a *app) running(ctx context.Context) []finding {
	s, err := a.client().Status(ctx)
	if err != nil {
		return []finding{{"breakerd", warning, err.Error(), "everything above is about the machine alone"}}
	}
	all := []finding{
		{"breakerd", fine, fmt.Sprintf("%s, pid %d, mode %s, %d samples", s.Version, s.PID, s.Mode, s.Samples), ""},
		{"cost", fine, fmt.Sprintf("%.2f %% of one CPU, %d MB", s.Cost.CPUPercent, s.Cost.RSSBytes>>20), ""},
	}
	if err := a.client().Ready(ctx); err != nil {
		all = append(all, finding{"samples", failure, err.Error(), "the journal says why: journalctl -t breakerd"})
	}
	for _, p := range s.Problems {
		all = append(all, finding{"problem", warning, p, ""})
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
