package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/drill"
	"github.com/breakerd/breakerd/policy"
)

func (a *app) drill() *cobra.Command {
	var running bool
	c := &cobra.Command{
		Use: "drill [SCENARIO]...", Short: "Prove the whole chain on this machine, with offenders and victims of its own",
		Args: knownScenarios, ValidArgs: drill.Names(),
		Long: `Make a fork storm, CPU hogs beside a service, and a busy job that hurts nobody, in
disposable cgroups, and score what breakerd makes of them: what was detected, who was
blamed, how long it took to act and to undo. Whether a cgroup stands still it asks the
kernel. It needs root, takes half a minute, and leaves nothing behind, also when it is
interrupted or killed. fork-storm, cpu-hogs and parallel-job are the names of the three,
to go through some of them only.

By default it starts a breakerd and a breaker-enforcer of its own, side by side with
whatever runs, with a policy that freezes its own offenders and nothing else. With
--running it drills the breakerd that answers on --runtime-dir, as that is configured:
what was decided and not done is shown, and not held against it.`,
		RunE: func(c *cobra.Command, only []string) (err error) {
			ctx, cancel := context.WithCancel(c.Context())
			defer cancel()
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o := drill.Options{Self: self, Client: a.client(), Only: only}
			if a.output == table {
				o.Narrate = func(format string, args ...any) { fmt.Fprintf(c.OutOrStdout(), format+"\n", args...) }
			}
			if !running {
				private, err := startPrivate(ctx)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, private.Stop()) }()
				o.Client, o.Dir = private.Client, private.Dir()
			}
			report, err := drill.Run(ctx, o)
			if err != nil {
				return err
			}
			return a.writeReport(c, report)
		},
	}
	c.Flags().BoolVar(&running, "running", false, "drill the breakerd that runs, as it is configured")
	return c
}

func knownScenarios(_ *cobra.Command, args []string) error {
	for _, name := range args {
		if !slices.Contains(drill.Names(), name) {
			return fmt.Errorf("there is no scenario %q: there are %s", name, strings.Join(drill.Names(), ", "))
		}
	}
	return nil
}

func startPrivate(ctx context.Context) (*drill.Private, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a drill makes cgroups and loads kernel programs: run it as root, as in: sudo breakerctl drill")
	}
	rego, err := fs.ReadFile(policy.Shipped(), "drill.rego")
	if err != nil {
		return nil, err
	}
	return drill.StartPrivate(ctx, rego)
}

func (a *app) writeReport(c *cobra.Command, report drill.Report) error {
	w := c.OutOrStdout()
	if a.output == jsonText {
		if err := writeJSON(w, report); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(w)
		r := newRows(w, "SCENARIO", "EXPECTED", "CULPRIT", "DETECT", "ACT", "CONFIRM", "UNDO", "RESULT")
		for _, s := range report.Scenarios {
			r.add(s.Name, or(string(s.Kind), s.Expected), yes(s.CulpritCorrect, s.Kind == ""), optional(s.DetectMS), optional(s.ActMS), optional(s.ConfirmMS), optional(s.UndoMS), passed(s.Passed))
		}
		if err := r.flush(); err != nil {
			return err
		}
		fmt.Fprintf(w, "\n%d passed, %d failed\n", report.Passed, report.Failed)
	}
	if report.Failed > 0 {
		return errSilent
	}
	return nil
}

func yes(right, none bool) string {
	switch {
	case none && right:
		return "-"
	case right:
		return "right"
	}
	return "WRONG"
}

func passed(ok bool) string {
	if ok {
		return "passed"
	}
	return "FAILED"
}

func optional(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return millis(*ms)
}

// drillVictim and drillJanitor are parts that a drill plays in processes of their own.
func drillVictim() *cobra.Command {
	return &cobra.Command{
		Use: "drill-victim", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return drill.Serve(c.Context(), c.OutOrStdout()) },
	}
}

func drillJanitor() *cobra.Command {
	return &cobra.Command{
		Use: "drill-janitor GROUND DIR", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return drill.Janitor(args[0], args[1]) },
	}
}
