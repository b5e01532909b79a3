package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/model"
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

const policyPaths = `Without PATH it is the policies that breakerd.yaml names, /etc/breakerd/policies by default.`

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
		Long: `Compile the policies as breakerd would, with their data, and show each rule with what its
author says of it. Each mistake is told with file, line and column, and where one is near
with the right name. Then come warnings: what can be loaded and is probably not meant,
such as two rules that contradict each other, a file without tests or not written as
breakerctl policy fmt writes it. ` + policyPaths + `

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
	files, err := policy.Read(paths...)
	if err != nil { // of the tests: the policies would be loaded
		r.Warnings = append(r.Warnings, strings.Split(err.Error(), "\n")...)
		return r
	}
	for _, rule := range r.Rules {
		test := strings.TrimSuffix(rule.File, ".rego") + "_test.rego"
		warn := rule.File + ": has no tests: write them into " + filepath.Base(test)
		if files.Modules[test] == nil && filepath.Ext(rule.File) == ".rego" && !slices.Contains(r.Warnings, warn) {
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

func (a *app) policyFmt() *cobra.Command {
	write := false
	c := &cobra.Command{
		Use: "fmt PATH...", Short: "Write policies as opa fmt does", Args: cobra.MinimumNArgs(1),
		Long: `List the policies and tests that are not written as opa fmt writes them, or with --write
change them. A file that cannot be read as Rego is left as it is.

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

// explained is what policy eval says.
type explained struct {
	Action   model.Action     `json:"action"`
	Policy   string           `json:"policy"`
	DryRun   bool             `json:"dry_run"`
	Denied   []string         `json:"denied"`
	Error    string           `json:"error"`
	Accounts []policy.Account `json:"rules"`
}

func (a *app) policyEval() *cobra.Command {
	var paths []string
	c := &cobra.Command{
		Use: "eval INCIDENT", Short: "Say what policies would want done about one incident, and why", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeIncidents,
		Long: `Put one incident to policies: INCIDENT is a file with an incident as breakerctl why -o json
shows it, or with a whole input of a policy; - is standard input; anything else is the ID of
an incident that a running breakerd remembers. Nothing is carried out.

Of each rule it says whether it spoke and, if not, which line stopped it and what was seen
there; first come those that nearly spoke.

Exit codes:
  0  the policies were asked
  1  they could not be, or one of them failed
  2  there is no such incident`,
		RunE: func(c *cobra.Command, args []string) error {
			paths, err := policyPathsOr(paths)
			if err != nil {
				return err
			}
			set, err := policy.Load(paths...)
			if err != nil {
				return err
			}
			in, err := a.policyInput(c, args[0])
			if err != nil {
				return err
			}
			v, accounts := set.Explain(c.Context(), in)
			e := explained{Action: v.Action, Policy: v.Policy, DryRun: v.DryRun, Denied: append([]string{}, v.Reasons()...), Error: v.Error, Accounts: append([]policy.Account{}, accounts...)}
			if a.output == jsonText {
				err = writeJSON(c.OutOrStdout(), e)
			} else {
				writeExplained(c.OutOrStdout(), e)
			}
			if err == nil && v.Error != "" {
				return errSilent
			}
			return err
		},
	}
	c.Flags().StringArrayVar(&paths, "policy", nil, "`PATH` of policies, instead of those that breakerd.yaml names; may be given more than once")
	return c
}

// maxIncidentFile bounds what is read as an incident.
const maxIncidentFile = 4 << 20

// policyInput is what a policy sees of an incident: of a file, or of a running breakerd.
func (a *app) policyInput(c *cobra.Command, name string) (policy.Input, error) {
	var r io.Reader
	switch f, err := os.Open(name); {
	case name == "-":
		r = c.InOrStdin()
	case err == nil:
		defer f.Close()
		r = f
	case strings.ContainsAny(name, "./"):
		return policy.Input{}, err
	default:
		in, err := a.incident(c, name)
		if err != nil {
			return policy.Input{}, err
		}
		s, err := a.client().Status(c.Context())
		if err != nil {
			return policy.Input{}, err
		}
		known, err := a.client().Breakers(c.Context())
		b := breaker.Unknown(in.Culprit.Cgroup)
		if i := slices.IndexFunc(known, func(b model.Breaker) bool { return b.Cgroup == in.Culprit.Cgroup }); i >= 0 {
			b = known[i]
		}
		return policy.InputOf(&in.Incident, b, s.Host, s.LastSampleAt), err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxIncidentFile+1))
	if err != nil {
		return policy.Input{}, err
	}
	if len(b) > maxIncidentFile {
		return policy.Input{}, fmt.Errorf("%s is larger than %d bytes", name, maxIncidentFile)
	}
	return readIncident(name, b)
}

// readIncident takes a whole input of a policy, or an incident at the time when it opened.
func readIncident(name string, b []byte) (policy.Input, error) {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return policy.Input{}, fmt.Errorf("%s: read an incident: %w", name, err)
	}
	var in policy.Input
	if parts["incident"] != nil {
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			return in, fmt.Errorf("%s: read the input of a policy: %w", name, err)
		}
	} else {
		var inc model.Incident
		if err := json.Unmarshal(b, &inc); err != nil {
			return in, fmt.Errorf("%s: read an incident: %w", name, err)
		}
		in = policy.InputOf(&inc, breaker.Unknown(inc.Culprit.Cgroup), model.Host{}, inc.OpenedAt)
	}
	if !slices.Contains(model.Kinds, in.Incident.Kind) {
		return in, fmt.Errorf("%s: %q is no kind of incident: it is one of %v", name, in.Incident.Kind, model.Kinds)
	}
	return in, nil
}

func writeExplained(w io.Writer, e explained) {
	switch {
	case e.Error != "":
		fmt.Fprintf(w, "nothing: %s\n", safetext.Printable(e.Error))
	case len(e.Denied) > 0:
		fmt.Fprintf(w, "nothing: denied by %s\n", safetext.Printable(strings.Join(e.Denied, "; ")))
	case e.Action.Kind == model.NoAction:
		fmt.Fprintln(w, "nothing: nobody asked for anything")
	default:
		mode := ""
		if e.DryRun {
			mode = ", held to a dry run by its author"
		}
		fmt.Fprintf(w, "%s, asked for by %s%s: %s\n", actionText(e.Action), e.Policy, mode, safetext.Printable(e.Action.Reason))
	}
	fmt.Fprintln(w)
	for _, a := range e.Accounts {
		writeAccount(w, "", a)
	}
}

func writeAccount(w io.Writer, indent string, a policy.Account) {
	how := "silent"
	switch {
	case a.Spoke:
		how = "spoke"
	case a.Nearly():
		how = "nearly"
	}
	name := a.Name
	if indent == "" {
		name = a.Policy + " " + a.Name
	}
	fmt.Fprintf(w, "%s%-6s %s (%s:%d)", indent, how, safetext.Printable(name), safetext.Printable(a.File), a.Line)
	if a.Spoke {
		fmt.Fprintln(w)
		return
	}
	fmt.Fprintf(w, ", %d of %d\n%s       stopped at %s: %s\n", a.Passed, a.Conditions, indent, safetext.Printable(a.At), safetext.Printable(a.Stopped))
	for _, s := range a.Saw {
		fmt.Fprintf(w, "%s       %s is %s\n", indent, safetext.Printable(s.Ref), safetext.Printable(or(s.Value, "not there")))
	}
	for _, b := range a.Because {
		writeAccount(w, indent+"       ", b)
	}
}

// actionText says an action in a line.
func actionText(x model.Action) string {
	if x.Kind == model.NoAction {
		return "nothing"
	}
	text := fmt.Sprintf("%s %s for %s", x.Kind, x.Scope, span(x.For()))
	for _, limit := range []struct {
		name  string
		value float64
	}{{"cpu_percent", x.CPUPercent}, {"memory_high", float64(x.MemoryHigh)}, {"io_percent", x.IOPercent}, {"pids_max", float64(x.PIDsMax)}} {
		if limit.value != 0 {
			text += fmt.Sprintf(" %s=%.0f", limit.name, limit.value)
		}
	}
	return text
}

// changedDecision is an incident about which two sets of policies want something else.
type changedDecision struct {
	Incident string     `json:"incident"`
	Kind     model.Kind `json:"kind"`
	Cgroup   string     `json:"cgroup"`
	OpenedAt time.Time  `json:"opened_at"`
	Old      []string   `json:"old"`
	New      []string   `json:"new"`
}

func (a *app) policyDiff() *cobra.Command {
	partial := false
	c := &cobra.Command{
		Use: "diff OLD NEW RECORDING...", Short: "Say what other policies would have changed, for whom", Args: cobra.MinimumNArgs(3),
		Long: `Take recordings (breakerctl record) through the detectors and through two sets of policies,
and show each incident about which they want something else. Both are judged as dry runs with
the recording's thresholds, so that the answer is the same each time and on every machine.

Exit codes:
  0  nothing would change
  1  it could not be told
  3  something would change`,
		RunE: func(c *cobra.Command, args []string) error {
			changes := []changedDecision{}
			incidents := 0
			for _, recording := range args[2:] {
				some, n, err := diffPolicies(c.Context(), args[0], args[1], recording, partial)
				if err != nil {
					return fmt.Errorf("%s: %w", recording, err)
				}
				changes, incidents = append(changes, some...), incidents+n
			}
			if a.output == jsonText {
				if err := writeJSON(c.OutOrStdout(), map[string]any{"incidents": incidents, "changes": changes}); err != nil {
					return err
				}
			} else if err := writePolicyDiff(c.OutOrStdout(), incidents, changes); err != nil {
				return err
			}
			if len(changes) > 0 {
				return exitStatus(3)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&partial, "partial", false, "accept truncated recordings, and judge what is whole")
	return c
}

func diffPolicies(ctx context.Context, old, new, recording string, partial bool) ([]changedDecision, int, error) {
	judged := func(path string) ([]model.Incident, error) {
		return replay(ctx, recording, replayOptions{policies: []string{path}, partial: partial})
	}
	was, err := judged(old)
	if err != nil {
		return nil, 0, err
	}
	is, err := judged(new)
	if err != nil {
		return nil, 0, err
	}
	byID := map[string][2]*model.Incident{}
	for i := range was {
		byID[was[i].ID] = [2]*model.Incident{&was[i], nil}
	}
	for i := range is {
		pair := byID[is[i].ID]
		pair[1] = &is[i]
		byID[is[i].ID] = pair
	}
	var changes []changedDecision
	for id, pair := range byID {
		o, n := wantedOf(pair[0]), wantedOf(pair[1])
		if slices.Equal(o, n) {
			continue
		}
		in := pair[0]
		if in == nil {
			in = pair[1]
		}
		changes = append(changes, changedDecision{id, in.Kind, in.Culprit.Cgroup, in.OpenedAt, o, n})
	}
	slices.SortFunc(changes, func(x, y changedDecision) int {
		return cmp.Or(x.OpenedAt.Compare(y.OpenedAt), strings.Compare(x.Incident, y.Incident))
	})
	return changes, len(byID), nil
}

// wantedOf says what was wanted of an incident, each thing once.
func wantedOf(in *model.Incident) []string {
	all := []string{}
	if in == nil {
		return all
	}
	for _, d := range in.Decisions {
		var text string
		switch {
		case d.Error != "":
			text = "failed: " + d.Error
		case d.Action == model.NoAction:
			text = "denied by " + d.Policy + ": " + d.Reason
		default:
			text = fmt.Sprintf("%s %s for %s by %s", d.Action, d.Scope, span(time.Duration(d.ForMS)*time.Millisecond), d.Policy)
		}
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

func writePolicyDiff(w io.Writer, incidents int, changes []changedDecision) error {
	if incidents == 0 {
		return errors.New("there is no incident in the recording: nothing can be compared")
	}
	fmt.Fprintf(w, "%d of %d incidents would be decided otherwise\n", len(changes), incidents)
	if len(changes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	r := newRows(w, "OPENED", "INCIDENT", "KIND", "CGROUP", "OLD", "NEW")
	for _, c := range changes {
		r.add(clock(c.OpenedAt), c.Incident, string(c.Kind), or(c.Cgroup, "-"), or(strings.Join(c.Old, "; "), "nothing"), or(strings.Join(c.New, "; "), "nothing"))
	}
	return r.flush()
}
