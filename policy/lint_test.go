package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const titled = "# METADATA\n# title: T\npackage breaker.x\n\nimport rego.v1\n\n"

const throttleTree = `{"kind": "throttle", "scope": "tree", "for": "60s", "reason": "storm", "cpu_percent": 50}`

func TestWhatIsProbablyNotMeantIsWarnedOf(t *testing.T) {
	const storm = " if input.incident.kind == \"fork_storm\"\n\n"
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", titled + "action contains " + freezeTree + " if {\n\tinput.incident.kind == \"fork_storm\"\n\tinput.incident.severity > 0.5\n}\n\ndeny contains \"x\" if input.host.cpus > 5\n", ""},
		{"no title", policyHead + "deny contains \"x\" if input.host.cpus > 5\n",
			"x.rego:5:1: deny has no title: write one above it or above the package, under # METADATA"},
		{"every kind", titled + "action contains " + freezeTree + " if input.incident.severity > 0.5\n",
			"x.rego:7:1: action speaks about every kind of incident: test input.incident.kind"},
		{"two kinds at once", titled + "deny contains \"x\" if {\n\tinput.incident.kind == \"fork_storm\"\n\tinput.incident.kind == \"memory_leak\"\n}\n",
			"x.rego:7:1: deny is never true: it asks for two kinds of incident at once"},
		{"a deny of everything", titled + "deny contains \"x\"\n", "x.rego:7:1: deny is always true: with it nothing will ever be done"},
		{"a name that the process chose", titled + "deny contains \"x\" if input.incident.culprit.root.comm == \"sshd\"\n",
			"x.rego:7:22: comm is chosen by the process: never let it tell friend from foe"},
		{"a name in a reason", titled + "deny contains sprintf(\"not %s\", [input.incident.culprit.root.comm]) if input.host.cpus > 5\n", ""},
		{"a deny of what another asks for", titled + "action contains " + freezeTree + storm + "deny contains \"x\" if input.incident.kind in {\"fork_storm\", \"memory_leak\"}\n",
			"x.rego:7:1: action can never have its way: the deny at x.rego:9 denies every fork_storm"},
		{"two that ask for different things", titled + "action contains " + freezeTree + storm + "action contains " + throttleTree + storm,
			"x.rego:7:1: action asks for a freeze about fork_storm, and the one at x.rego:9 for a throttle: where both speak the milder wins; a priority says otherwise"},
		{"two of different kinds", titled + "action contains " + freezeTree + storm + "action contains " + throttleTree + strings.ReplaceAll(storm, "fork_storm", "memory_leak"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range mustLoad(t, "x.rego", tt.text).Lint() {
				got = append(got, p.String())
			}
			if d := cmp.Diff(tt.want, strings.Join(got, "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTheShippedRulesGiveNoWarning(t *testing.T) {
	s, err := LoadFS(Shipped())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Lint() {
		// Different examples for the same trouble are meant to be chosen from.
		if !strings.Contains(p.Message, "the milder wins") {
			t.Error(p)
		}
	}
}
