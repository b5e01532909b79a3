package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

const heldToADryRun = "# METADATA\n# title: Tried out\n# custom:\n#   mode: dry-run\n"

func TestARuleThatItsAuthorHoldsToADryRun(t *testing.T) {
	const (
		harsh = `action contains {"kind": "freeze", "scope": "tree", "for": "60s", "reason": "acts"} if input.incident.kind == "fork_storm"` + "\n\n"
		mild  = `action contains {"kind": "throttle", "scope": "tree", "for": "1s", "reason": "tries", "cpu_percent": 90} if input.incident.kind == "fork_storm"` + "\n"
		deny  = "\ndeny contains \"no\"\n"
	)
	for _, tt := range []struct {
		name, text string
		dry        bool
		kind       model.ActionKind
	}{
		{"alone", policyHead + heldToADryRun + mild, true, model.Throttle},
		{"beside one that acts, though it is milder", policyHead + harsh + heldToADryRun + mild, false, model.Freeze},
		{"a whole package", heldToADryRun + policyHead + harsh + mild, true, model.Throttle},
		{"one that acts", policyHead + harsh, false, model.Freeze},
		{"a package that denies", heldToADryRun + policyHead + harsh + deny, false, model.NoAction},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := mustLoad(t, "x.rego", tt.text).Decide(t.Context(), stormInput())
			if v.DryRun != tt.dry || v.Action.Kind != tt.kind || v.Error != "" {
				t.Errorf("got %+v", v)
			}
		})
	}
}

func TestRulesAreDescribedByTheirAuthors(t *testing.T) {
	s := mustLoad(t, "x.rego", "# METADATA\n# title: The package\n# description: What it does.\n"+policyHead+
		heldToADryRun+"action contains "+freezeTree+" if input.incident.kind in {\"fork_storm\", \"cpu_contention\"}\n\ndeny contains \"no\" if input.host.cpus > 100\n")
	want := []Rule{
		{Name: "action", Policy: "breaker.x", File: "x.rego", Line: 12, Title: "Tried out", DryRun: true, Kinds: []string{"cpu_contention", "fork_storm"}},
		{Name: "deny", Policy: "breaker.x", File: "x.rego", Line: 14, Title: "The package", Description: "What it does."},
	}
	if d := cmp.Diff(want, s.Rules()); d != "" {
		t.Error(d)
	}
}
