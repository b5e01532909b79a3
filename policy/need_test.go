package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
)

// paths lists what is needed; a star stands for all that is below.
func (n *need) paths(prefix string) (all []string) {
	if n.whole {
		return []string{prefix + "*"}
	}
	for name, below := range n.parts {
		all = append(all, below.paths(prefix+name+".")...)
	}
	if n.parts == nil {
		all = append(all, strings.TrimSuffix(prefix, "."))
	}
	slices.Sort(all)
	return all
}

func TestOnlyWhatIsLookedAtIsPutIntoTheInput(t *testing.T) {
	const deny = policyHead + "deny contains \"no\" if "
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"a field", deny + "input.incident.severity > 0.5", []string{"incident.severity.*"}},
		{"nothing", policyHead + "deny contains \"no\"", []string{""}},
		{"all", deny + "count(input) > 5", []string{"*"}},
		{"a part", deny + "count(input.incident.culprit) > 5", []string{"incident.culprit.*"}},
		{"a part by a name that is worked out", deny + "input.incident.evidence[concat(\"_\", [\"lost\", \"events\"])] > 5", []string{"incident.evidence.*"}},
		{"a field of each victim", deny + "{\n\tsome v in input.incident.victims\n\tv.stall_ms > 5\n\tv.unit != \"\"\n}", []string{"incident.victims.stall_ms.*", "incident.victims.unit.*"}},
		{"victims as a whole", deny + "{\n\tsome v in input.incident.victims\n\tcount(v) > 5\n}", []string{"incident.victims.*"}},
		{"that there is a victim", deny + "some v in input.incident.victims", []string{"incident.victims"}},
		{"through another rule", deny + "bad\n\nbad if not input.host.cpus > 5", []string{"host.cpus.*"}},
		{"through a function", deny + "bad(input.host)\n\nbad(h) if h.cpus > 5", []string{"host.*"}},
		{"by comparison with itself", deny + "{\n\tsome v in input.incident.victims\n\tv.workload == input.incident.culprit.workload\n}", []string{"incident.culprit.workload.*", "incident.victims.workload.*"}},
		{"in a comprehension", deny + "count([1 | some v in input.incident.victims; v.resource == \"io\"]) > 5", []string{"incident.victims.resource.*"}},
		{"in the reason", policyHead + "deny contains sprintf(\"%v\", [input.time])", []string{"time.*"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := mustLoad(t, "x.rego", tt.text+"\n")
			got := s.all.need.paths("")
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whatever is left out of the input, the answer is that of the whole input.
func TestTheAnswerDoesNotDependOnWhatIsLeftOut(t *testing.T) {
	s, err := LoadFS(Shipped())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range slices.Concat(allKinds(), []string{"unknown"}) {
		in := stormInput()
		in.Incident.Kind = modelKind(k)
		got := s.Decide(t.Context(), in)
		whole := *s
		whole.byKind = nil
		all := *s.all
		all.need = everything
		whole.all = &all
		if d := cmp.Diff(whole.Decide(t.Context(), in), got, noTime); d != "" {
			t.Errorf("%s: %s", k, d)
		}
	}
}

func allKinds() (kinds []string) {
	return strings.Split(strings.TrimSuffix(strings.Join(inputDescription.at("incident", "kind").Enum, ","), ","), ",")
}

func TestPoliciesThatCannotSpeakAboutAKindAreNotAsked(t *testing.T) {
	s := mustLoad(t,
		"a.rego", "package breaker.a\n\naction contains "+freezeTree+" if input.incident.kind == \"fork_storm\"\n",
		"b.rego", "package breaker.b\n\naction contains "+freezeTree+" if {\n\tk := input.incident.kind\n\tk in {\"io_pressure\", \"memory_leak\"}\n}\n",
		"c.rego", "package breaker.c\n\naction contains "+freezeTree+" if {\n\tinput.incident.kind == \"fork_storm\"\n\tinput.incident.kind == \"io_pressure\"\n}\n",
		"d.rego", "package breaker.d\n\naction contains "+freezeTree+" if not input.incident.kind == \"fork_storm\"\n",
	)
	for kind, want := range map[string][]string{
		"fork_storm":      {"breaker.a", "breaker.d"},
		"io_pressure":     {"breaker.b", "breaker.d"},
		"memory_pressure": {"breaker.d"},
		"unheard_of":      {"breaker.a", "breaker.b", "breaker.c", "breaker.d"},
	} {
		var got []string
		for _, d := range s.ask(modelKind(kind)).docs {
			got = append(got, d.policy)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", kind, d)
		}
	}
}

func TestAnAliasThatGoesInACircleEnds(t *testing.T) {
	a := aliases{"x": ast.MustParseRef("y.a"), "y": ast.MustParseRef("x.b")}
	if ref := a.resolve(ast.MustParseRef("x.c")); len(ref) < 3 {
		t.Errorf("got %v", ref)
	}
}
