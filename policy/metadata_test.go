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

func TestAMistypedModeArmsNothing(t *testing.T) {
	const (
		write   = ` holds nothing to a dry run: write "# custom:" and below it "#   mode: dry-run", or take it away`
		nowhere = `stands in no annotation, and holds nothing to a dry run: write "# custom:" and below it "#   mode: dry-run", in one block that begins with # METADATA`
		cannot  = `: it can only be "dry-run", and what is not held to that acts as breakerd's own mode says`
	)
	for _, tt := range []struct{ name, text, want string }{
		{"with a point", "# METADATA\n# custom.mode: dry-run\n", "x.rego:2:3: custom.mode" + write},
		{"at the top", "# METADATA\n# title: T\n# mode: dry-run\n", "x.rego:3:3: mode" + write},
		{"at the top, with another value", "# METADATA\n# mode: enforce\n", "x.rego:2:3: mode" + write},
		{"in capitals", "# METADATA\n# custom:\n#   Mode: dry-run\n", "x.rego:3:5: custom.Mode" + write},
		{"custom in capitals", "# METADATA\n# Custom:\n#   mode: dry-run\n", "x.rego:3:5: Custom.mode" + write},
		{"letters swapped", "# METADATA\n# custom:\n#   mdoe: dry-run\n", "x.rego:3:5: custom.mdoe" + write},
		{"the value as the key", "# METADATA\n# custom:\n#   dry_run: true\n", "x.rego:3:5: custom.dry_run" + write},
		{"too deep", "# METADATA\n# custom:\n#   breakerd:\n#     mode: dry-run\n", "x.rego:4:7: custom.breakerd.mode" + write},
		{"without a space", "#METADATA\n#custom:\n#  Mode: dry-run\n", "x.rego:3:4: custom.Mode" + write},
		{"a value like it", "# METADATA\n# custom:\n#   mode: dry_run\n", `x.rego:3:11: custom.mode is "dry_run"` + cannot},
		{"a list", "# METADATA\n# custom:\n#   mode: [dry-run]\n", `x.rego:3:11: custom.mode is ""` + cannot},
		{"in no annotation", "# Metadata\n# custom:\n#   mode: dry-run\n", "x.rego:3:1: " + nowhere},
		{"behind an empty line", "# METADATA\n# title: T\n\n# custom:\n#   mode: dry-run\n", "x.rego:5:1: " + nowhere},
		{"what is none", "# METADATA\n# title: Dry run\n# description: |\n#   mode: dry-run is not meant yet\n# custom:\n#   model: b\n#   night:\n#     mode: quiet\n", ""},
		{"a comment about it", "# Take the line mode: dry-run away when it does what you want.\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if _, err := LoadSources(map[string]string{"x.rego": tt.text + policyHead + "action contains " + freezeTree + "\n"}); err != nil {
				got = err.Error()
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
