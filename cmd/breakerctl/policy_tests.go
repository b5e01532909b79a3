package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/policy/workshop"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) policyTest() *cobra.Command {
	var match string
	var least float64
	c := &cobra.Command{
		Use: "test [PATH]...", Short: "Run the tests of policies, and say what they do not go through",
		Long: `Run every rule whose name begins with test_ in the files that end in _test.rego, and say
which lines of the policies no test goes through. ` + policyPaths + `

Exit codes:
  0  all tests passed, and they cover as much as was asked for
  1  a test failed, there is none, or too little is covered`,
		RunE: func(c *cobra.Command, args []string) error {
			paths, err := policyPathsOr(args)
			if err != nil {
				return err
			}
			r, err := workshop.Run(c.Context(), match, paths...)
			if err != nil {
				return err
			}
			if a.output == jsonText {
				if err := writeJSON(c.OutOrStdout(), r); err != nil {
					return err
				}
			} else {
				writePolicyTests(c.OutOrStdout(), r)
			}
			if !r.Passed() || r.Percent < least {
				return errSilent
			}
			return nil
		},
	}
	c.Flags().StringVar(&match, "run", "", "run only the tests whose full name matches this regular `EXPRESSION`")
	c.Flags().Float64Var(&least, "cover", 0, "end with exit code 1 if the tests go through less than this `PERCENT` of the lines")
	return c
}

func writePolicyTests(w io.Writer, r workshop.Report) {
	counts := map[string]int{}
	for _, t := range r.Tests {
		counts[t.Result]++
		if t.Result == "passed" {
			continue
		}
		fmt.Fprintf(w, "%-8s %s.%s (%s:%d)\n", t.Result, safetext.Printable(t.Package), safetext.Printable(t.Name), safetext.Printable(t.File), t.Line)
		if t.Detail != "" {
			fmt.Fprintf(w, "         %s\n", safetext.Printable(t.Detail))
		}
	}
	for _, f := range r.Files {
		if len(f.NotCovered) == 0 {
			continue
		}
		var lines []string
		for _, l := range f.NotCovered {
			lines = append(lines, l.String())
		}
		fmt.Fprintf(w, "%-8s %s: no test goes through line %s\n", warning, safetext.Printable(f.File), strings.Join(lines, ", "))
	}
	if len(r.Tests) == 0 {
		fmt.Fprintf(w, "%-8s there are no tests: write rules named test_… into files that end in _test.rego\n", failure)
		return
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped; %.0f %% covered\n", counts["passed"], counts["failed"]+counts["error"], counts["skipped"], r.Percent)
}
