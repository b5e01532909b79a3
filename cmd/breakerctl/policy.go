package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/policy/workshop"
	"github.com/breakerd/breakerd/safetext"
	"github.com/breakerd/breakerd/settings"
)

func (a *app) policy() *cobra.Command {
	c := &cobra.Command{
		Use: "policy", Short: "Write policies, test them, and see what they would do", Args: cobra.NoArgs,
		Long: `Everything that a policy needs from its first line until it is armed: breakerd-policies(7)
says what a policy sees and can ask for. Nothing here but promote changes what a running breakerd does.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.policyInit(), a.policyCheck(), a.policyTest(), a.policyEval(), a.policyDiff(), a.policyFmt(), a.policySchema(), a.policyPromote())
	return c
}

const policyPaths = `Without PATH it is the folders of policies.paths in breakerd.yaml, /etc/breakerd/policies by
default, without a bundle: breakerctl config check looks at one that is on the disk.`

// policyPathsOr are the policies that the arguments name, or else those of breakerd.
func policyPathsOr(args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	cfg, _, err := settings.Load("")
	if err != nil {
		return nil, err
	}
	return cfg.PolicyPaths(), nil
}

func (a *app) policyInit() *cobra.Command {
	return &cobra.Command{
		Use: "init [DIR]", Short: "Write a first policy with its tests, to be changed", Args: cobra.MaximumNArgs(1),
		Long: `Write a commented policy and its tests into DIR (the current folder by default), which is
made if it is missing. No file is overwritten. The policy is held to a dry run by itself.`,
		RunE: func(c *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			files, err := workshop.Init(dir)
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), map[string]any{"files": files})
			}
			w := c.OutOrStdout()
			for _, f := range files {
				fmt.Fprintf(w, "wrote %s\n", safetext.Printable(f))
			}
			fmt.Fprintf(w, "next: breakerctl policy check %s; breakerctl policy test %s\n", safetext.Printable(dir), safetext.Printable(dir))
			return nil
		},
	}
}

func (a *app) policyFmt() *cobra.Command {
	write := false
	c := &cobra.Command{
		Use: "fmt PATH...", Short: "Write policies as opa fmt does", Args: cobra.MinimumNArgs(1),
		Long: `List the policies and tests that are not written as opa fmt writes them, or with --write
change them. Where a file cannot be read as Rego, none is changed.

Exit codes:
  0  all are formatted
  1  some are not, and --write was not given`,
		RunE: func(c *cobra.Command, args []string) error {
			changed, err := workshop.Format(args...)
			if err != nil {
				return err
			}
			files := []string{}
			for _, f := range changed {
				if write {
					if err := f.Write(); err != nil {
						return err
					}
				}
				files = append(files, f.File)
			}
			if a.output == jsonText {
				err = writeJSON(c.OutOrStdout(), map[string]any{"files": files})
			} else {
				for _, f := range files {
					fmt.Fprintln(c.OutOrStdout(), safetext.Printable(f))
				}
			}
			if err == nil && len(files) > 0 && !write {
				return errSilent
			}
			return err
		},
	}
	c.Flags().BoolVar(&write, "write", false, "change the files")
	return c
}

func (a *app) policySchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Show what a policy sees: every field with its unit and meaning", Args: cobra.NoArgs,
		Long: `Show every field of the input, with its type, unit and meaning. With -o json it is the JSON
schema that policies are compiled against.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.output == jsonText {
				_, err := c.OutOrStdout().Write(policy.Schema())
				return err
			}
			r := newRows(c.OutOrStdout(), "FIELD", "TYPE", "UNIT", "MEANING")
			for _, f := range policy.Fields() {
				meaning := f.Description
				if len(f.Kinds) > 0 {
					meaning += " (" + strings.Join(f.Kinds, ", ") + ")"
				}
				r.add(f.Name, f.Type, f.Unit, meaning)
			}
			return r.flush()
		},
	}
}
