package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/safetext"
)

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
an incident that a running breakerd has in its history. Of an incident that is over it is what
was seen when the policies were asked last. Nothing is carried out.

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
		if in.State == model.Closed {
			all, err := inputsOf(&in)
			return all[len(all)-1], err
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

// inputsOf are what the policies saw of an incident when they were asked first and last. Where
// that is not kept it is the incident as it was seen last, by a culprit of whom nothing is
// known.
func inputsOf(s *model.Story) ([]policy.Input, error) {
	var all []policy.Input
	for _, text := range s.Inputs {
		var in policy.Input
		if err := json.Unmarshal(text, &in); err != nil {
			return []policy.Input{in}, fmt.Errorf("incident %s: what the policies saw cannot be read: %w", s.ID, err)
		}
		all = append(all, in)
	}
	if len(all) > 0 {
		return all, nil
	}
	at := s.OpenedAt
	if s.ClosedAt != nil {
		at = *s.ClosedAt
	}
	var host model.Host
	if s.Host != nil {
		host = *s.Host
	}
	return []policy.Input{policy.InputOf(&s.Incident, breaker.Unknown(s.Culprit.Cgroup), host, at)}, nil
}

// readIncident takes a whole input of a policy, or an incident as it was kept.
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
		var s model.Story
		if err := json.Unmarshal(b, &s); err != nil {
			return in, fmt.Errorf("%s: read an incident: %w", name, err)
		}
		all, err := inputsOf(&s)
		if err != nil {
			return in, fmt.Errorf("%s: %w", name, err)
		}
		in = all[len(all)-1]
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
			text += fmt.Sprintf(" %s=%s", limit.name, strconv.FormatFloat(limit.value, 'f', -1, 64))
		}
	}
	if x.EaseMS > 0 {
		text += fmt.Sprintf(" ease=%s", span(x.Ease()))
	}
	if x.ApprovalMS > 0 {
		text += fmt.Sprintf(" approval=%s", span(time.Duration(x.ApprovalMS)*time.Millisecond))
	}
	return text
}
