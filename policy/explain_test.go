package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestAnAccountSaysWhatARuleEndedAt(t *testing.T) {
	s := mustLoad(t, "x.rego", policyHead+`action contains `+freezeTree+` if {
	input.incident.kind == "fork_storm"
	input.incident.severity > 0.9
}

action contains `+freezeTree+` if {
	input.incident.kind == "fork_storm"
	hurt
}

hurt if {
	some v in input.incident.victims
	v.stall_ms > data.limits.stall_ms
}

deny contains "never" if input.incident.kind == "io_pressure"

deny contains "on call" if input.incident.culprit.uid == 1000
`, "data.json", `{"limits": {"stall_ms": 5000}}`)
	v, got := s.Explain(t.Context(), stormInput())
	if d := cmp.Diff(s.Decide(t.Context(), stormInput()), v, noTime); d != "" {
		t.Error(d)
	}
	want := []Account{
		{Rule: Rule{Name: "deny", Line: 22}, Spoke: true, Passed: 1, Conditions: 1},
		{Rule: Rule{Name: "action", Line: 5}, Passed: 1, Conditions: 2, Stopped: "input.incident.severity > 0.9", At: "x.rego:7",
			Saw: []Seen{{"input.incident.severity", "0.82"}}},
		{Rule: Rule{Name: "action", Line: 10}, Passed: 1, Conditions: 2, Stopped: "hurt", At: "x.rego:12",
			Because: []Account{{Rule: Rule{Name: "hurt", Line: 15}, Passed: 1, Conditions: 2, Stopped: "v.stall_ms > data.limits.stall_ms", At: "x.rego:17",
				Saw: []Seen{{"data.limits.stall_ms", "5000"}}}}},
		{Rule: Rule{Name: "deny", Line: 20}, Conditions: 1, Stopped: "deny contains \"never\" if input.incident.kind == \"io_pressure\"", At: "x.rego:20",
			Saw: []Seen{{"input.incident.kind", `"fork_storm"`}}},
	}
	ignore := cmp.Options{cmpopts.IgnoreFields(Rule{}, "Policy", "File", "Kinds"), cmpopts.EquateEmpty()}
	if d := cmp.Diff(want, got, ignore); d != "" {
		t.Error(d)
	}
	if !got[1].Nearly() || got[0].Nearly() || got[3].Nearly() {
		t.Error("nearly is not the rule that one condition stopped")
	}
}
