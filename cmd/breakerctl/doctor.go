package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

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

// exitStatus ends with this status after everything has been said.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what keeps breakerd from working here, and say what to do", Args: cobra.NoArgs,
		Long: `Look at everything that a support person would ask for: the kernel, BTF and what else
eBPF needs, cgroup2 and its controllers, pressure stall information, systemd, D-Bus and
journald, the clock, the configuration and the policies; and of a running breakerd which
programs are attached, its privileges, cost, losses and last errors, and the enforcer.
Nothing is changed. Some of it only root may see.

What is wrong is told with what to do about it. A failure keeps breakerd from doing what
it is there for; a warning takes something away, or is worth a look.

Exit codes:
  0  all is well
  1  there are warnings
  2  there are failures`,
		RunE: func(c *cobra.Command, _ []string) error {
			s := thisSite()
			all := s.machine(c.Context())
			all = append(all, s.configuration()...)
			all = append(all, a.running(c.Context(), s)...)
			if err := a.writeFindings(c, all); err != nil {
				return err
			}
			switch worst(all) {
			case failure:
				return exitStatus(2)
			case warning:
				return exitStatus(1)
			}
			return nil
		},
	}
}

// worst is the worst status of all.
func worst(all []finding) string {
	for _, status := range []string{failure, warning} {
		if slices.ContainsFunc(all, func(f finding) bool { return f.Status == status }) {
			return status
		}
	}
	return fine
}

func (a *app) writeFindings(c *cobra.Command, all []finding) error {
	if a.output == jsonText {
		return writeJSON(c.OutOrStdout(), map[string]any{"worst": worst(all), "findings": all})
	}
	for _, f := range all {
		fmt.Fprintf(c.OutOrStdout(), "%-8s %s: %s\n", f.Status, f.Name, safetext.Printable(f.Detail))
		if f.Advice != "" {
			fmt.Fprintf(c.OutOrStdout(), "         %s\n", safetext.Printable(f.Advice))
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
