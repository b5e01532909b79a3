package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/policy/workshop"
	"github.com/breakerd/breakerd/safetext"
)

// policyChecked is what policy check says.
type policyChecked struct {
	OK       bool          `json:"ok"`
	Hash     string        `json:"hash"`
	Rules    []policy.Rule `json:"rules"`
	Problems []string      `json:"problems"`
	Warnings []string      `json:"warnings"`
}

func (a *app) policyCheck() *cobra.Command {
	strict := false
	c := &cobra.Command{
		Use: "check [PATH]...", Short: "Say whether policies would be loaded, and what is probably not meant",
		Long: `Compile the policies as breakerd would, with their data, and show each rule with its title;
-o json has all that its author says of it. Each mistake is told with file, line and column,
and where one is near with the right name. Then come warnings: what can be loaded and is
probably not meant, such as two rules that contradict each other, a file without tests or
not written as breakerctl policy fmt writes it. ` + policyPaths + `

Exit codes:
  0  they would be loaded
  1  they would be refused, or there are warnings and --strict was given`,
		RunE: func(c *cobra.Command, args []string) error {
			paths, err := policyPathsOr(args)
			if err != nil {
				return err
			}
			r := checkPolicies(paths)
			if a.output == jsonText {
				if err := writeJSON(c.OutOrStdout(), r); err != nil {
					return err
				}
			} else if err := writePolicyCheck(c.OutOrStdout(), r); err != nil {
				return err
			}
			if !r.OK || strict && len(r.Warnings) > 0 {
				return errSilent
			}
			return nil
		},
	}
	c.Flags().BoolVar(&strict, "strict", false, "end with exit code 1 also where there are only warnings")
	return c
}

func checkPolicies(paths []string) policyChecked {
	r := policyChecked{OK: true, Rules: []policy.Rule{}, Problems: []string{}, Warnings: []string{}}
	refuse := func(err error) {
		r.OK = false
		r.Problems = append(r.Problems, strings.Split(err.Error(), "\n")...)
	}
	set, err := policy.Load(paths...)
	if err != nil {
		refuse(err)
		return r
	}
	r.Hash, r.Rules = set.Hash(), append(r.Rules, set.Rules()...)
	for _, p := range set.Lint() {
		r.Warnings = append(r.Warnings, p.String())
	}
	if _, err := policy.Read(paths...); err != nil { // of the tests: the policies would be loaded
		r.Warnings = append(r.Warnings, strings.Split(err.Error(), "\n")...)
		return r
	}
	for _, rule := range r.Rules {
		test := strings.TrimSuffix(rule.File, ".rego") + "_test.rego"
		warn := rule.File + ": has no tests: write them into " + filepath.Base(test)
		_, err := os.Stat(test) // it need not be named
		if err != nil && filepath.Ext(rule.File) == ".rego" && !slices.Contains(r.Warnings, warn) {
			r.Warnings = append(r.Warnings, warn)
		}
	}
	changed, err := workshop.Format(paths...)
	if err != nil {
		refuse(err)
	}
	for _, f := range changed {
		r.Warnings = append(r.Warnings, f.File+": is not formatted: breakerctl policy fmt --write "+f.File)
	}
	return r
}

func writePolicyCheck(w io.Writer, r policyChecked) error {
	for _, p := range r.Problems {
		fmt.Fprintf(w, "%-8s %s\n", failure, safetext.Printable(p))
	}
	for _, p := range r.Warnings {
		fmt.Fprintf(w, "%-8s %s\n", warning, safetext.Printable(p))
	}
	if !r.OK {
		return nil
	}
	if len(r.Rules) == 0 {
		fmt.Fprintf(w, "%-8s no policy: nothing will ever be done\n", fine)
		return nil
	}
	fmt.Fprintf(w, "%-8s %d rules would be loaded, as %s\n\n", fine, len(r.Rules), short(r.Hash))
	t := newRows(w, "POLICY", "RULE", "ABOUT", "MODE", "TITLE")
	for _, rule := range r.Rules {
		mode := "-"
		if rule.DryRun {
			mode = "dry-run"
		}
		about := "everything"
		if rule.Kinds != nil {
			about = strings.Join(rule.Kinds, " ")
		}
		t.add(rule.Policy, fmt.Sprintf("%s:%d", rule.Name, rule.Line), about, mode, or(rule.Title, "-"))
	}
	return t.flush()
}
