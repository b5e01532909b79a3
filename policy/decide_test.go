package policy

import (
	"context"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/breakerd/breakerd/model"
)

var noTime = cmpopts.IgnoreFields(Verdict{}, "Elapsed")

const freezeTree = `{"kind": "freeze", "scope": "tree", "for": "60s", "reason": "storm"}`

func frozen(reason string, forMS int64) model.Action {
	return model.Action{Kind: model.Freeze, Scope: model.ScopeTree, ForMS: forMS, Reason: reason}
}

func TestTheRuleOfTheDesignFreezesAForkStorm(t *testing.T) {
	s := mustLoad(t, "forkstorms.rego", `package breaker.forkstorms

import rego.v1

# Freeze a fork storm for a minute, but never for members of the on-call group.
action contains {"kind": "freeze", "scope": "tree", "for": "60s", "reason": "fork storm"} if {
	input.incident.kind == "fork_storm"
	input.incident.severity > 0.5
}

deny contains "on-call shell" if input.incident.culprit.uid in {1001, 1002}
`)
	in := stormInput()
	got := s.Decide(t.Context(), in)
	want := Verdict{
		Action: frozen("fork storm", 60_000), Policy: "breaker.forkstorms",
		Asked: []Request{{Policy: "breaker.forkstorms", Action: frozen("fork storm", 60_000)}},
	}
	if d := cmp.Diff(want, got, noTime); d != "" {
		t.Error(d)
	}
	in.Incident.Culprit.UID = 1002
	got = s.Decide(t.Context(), in)
	want.Action = model.Action{Kind: model.NoAction}
	want.Denied = []Denial{{"breaker.forkstorms", "on-call shell"}}
	if d := cmp.Diff(want, got, noTime); d != "" {
		t.Error(d)
	}
	if r := got.Reasons(); !cmp.Equal(r, []string{"breaker.forkstorms: on-call shell"}) {
		t.Errorf("reasons %q", r)
	}
	in.Incident.Culprit.UID, in.Incident.Severity = 1000, 0.5
	if v := s.Decide(t.Context(), in); v.Action.Kind != model.NoAction || v.Policy != "" || v.Error != "" {
		t.Errorf("nothing was asked for, but got %+v", v)
	}
}

func TestAmongWhatIsAskedForTheMildestWins(t *testing.T) {
	// Each pair of actions: the first wins, in whatever order they stand.
	for _, tt := range []struct{ name, wins, loses string }{
		{"a throttle over a freeze",
			`{"kind": "throttle", "scope": "cgroup", "for": "10m", "reason": "r", "cpu_percent": 1}`,
			`{"kind": "freeze", "scope": "tree", "for": "1s", "reason": "r"}`},
		{"a tree over a cgroup",
			`{"kind": "freeze", "scope": "tree", "for": "10m", "reason": "r"}`,
			`{"kind": "freeze", "scope": "cgroup", "for": "1s", "reason": "r"}`},
		{"a shorter time",
			`{"kind": "freeze", "scope": "tree", "for": "59s", "reason": "r"}`,
			`{"kind": "freeze", "scope": "tree", "for": "1m", "reason": "r"}`},
		{"fewer limits",
			`{"kind": "throttle", "scope": "tree", "for": "1m", "reason": "r", "cpu_percent": 10}`,
			`{"kind": "throttle", "scope": "tree", "for": "1m", "reason": "r", "cpu_percent": 90, "pids_max": 10}`},
		{"more CPU left",
			`{"kind": "throttle", "scope": "tree", "for": "1m", "reason": "r", "cpu_percent": 50}`,
			`{"kind": "throttle", "scope": "tree", "for": "1m", "reason": "r", "cpu_percent": 20}`},
		{"the CPU not limited at all",
			`{"kind": "throttle", "scope": "tree", "for": "1m", "reason": "r", "io_percent": 1}`,
			`{"kind": "throttle", "scope": "tree", "for": "1m", "reason": "r", "cpu_percent": 400}`},
		{"more memory left",
			`{"kind": "throttle", "scope": "tree", "for": "1m", "reason": "r", "memory_high": 2000000000}`,
			`{"kind": "throttle", "scope": "tree", "for": "1m", "reason": "r", "memory_high": 1000000000}`},
		{"a higher priority, though it is harsher",
			`{"kind": "freeze", "scope": "cgroup", "for": "10m", "reason": "r", "priority": 1}`,
			`{"kind": "throttle", "scope": "tree", "for": "1s", "reason": "r", "cpu_percent": 100}`},
		{"no priority over one below",
			`{"kind": "freeze", "scope": "cgroup", "for": "10m", "reason": "r"}`,
			`{"kind": "freeze", "scope": "tree", "for": "1s", "reason": "r", "priority": -1}`},
		{"the alphabet among equals",
			`{"kind": "freeze", "scope": "tree", "for": "1s", "reason": "a"}`,
			`{"kind": "freeze", "scope": "tree", "for": "1s", "reason": "b"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const head = "package breaker.x\n\naction contains "
			want := mustLoad(t, "x.rego", head+tt.wins+"\n").Decide(t.Context(), stormInput())
			for _, text := range []string{
				head + tt.wins + "\n\naction contains " + tt.loses + "\n",
				head + tt.loses + "\n\naction contains " + tt.wins + "\n",
			} {
				got := mustLoad(t, "x.rego", text).Decide(t.Context(), stormInput())
				if d := cmp.Diff(want.Action, got.Action); d != "" || got.Error != "" || len(got.Asked) != 2 {
					t.Errorf("got %+v\n%s", got, d)
				}
			}
		})
	}
}

func TestADenyOfAnyPackageWinsOverAllThatIsAskedFor(t *testing.T) {
	s := mustLoad(t,
		"a.rego", "package breaker.a\n\naction contains "+strings.Replace(freezeTree, "}", `, "priority": 1000}`, 1)+"\n",
		"z.rego", "package breaker.z\n\ndeny contains \"not today\"\n\ndeny contains \"never\"\n",
	)
	v := s.Decide(t.Context(), stormInput())
	if v.Action.Kind != model.NoAction || v.Policy != "breaker.z" || len(v.Asked) != 1 || v.Error != "" {
		t.Errorf("got %+v", v)
	}
	if d := cmp.Diff([]string{"breaker.z: never", "breaker.z: not today"}, v.Reasons()); d != "" {
		t.Error(d)
	}
}

func TestAnErrorInAnyPackageMeansNoAction(t *testing.T) {
	const good = "package breaker.good\n\naction contains " + freezeTree + "\n"
	for _, tt := range []struct{ name, bad, want string }{
		{
			"an action that is no object",
			"action contains json.unmarshal(\"\\\"x\\\"\")",
			"breaker.bad: action: is a string, not an object with kind, scope, for and reason",
		},
		{
			"a key with a slip",
			`action contains object.union(` + freezeTree + `, {"prioritty": 1})`,
			`breaker.bad: action: unknown key "prioritty": did you mean priority?`,
		},
		{
			"a deny that is no text",
			"deny contains json.unmarshal(\"5\")",
			"breaker.bad: deny: is a number, not a string",
		},
		{
			"a builtin that fails",
			"deny contains \"x\" if to_number(input.incident.id) > 1",
			`breaker.bad: bad.rego:5:22: to_number: strconv.ParseFloat: parsing "fork_storm-1a2b3c-1": invalid syntax`,
		},
		{
			"a division by zero",
			"deny contains \"x\" if 1 / (input.host.cpus - input.host.cpus) > 1",
			`breaker.bad: bad.rego:5:22: div: divide by zero`,
		},
		{
			"two values of one rule",
			"p := input.incident.id\n\np := input.incident.kind\n\ndeny contains p",
			`breaker.bad: bad.rego:7:1: rule data.breaker.bad.p produced conflicting values: "fork_storm-1a2b3c-1" at bad.rego:5 "fork_storm" at bad.rego:7`,
		},
		{
			"more actions than anybody can mean",
			"action contains object.union(" + freezeTree + `, {"priority": p}) if some p in numbers.range(1, 65)`,
			"breaker.bad: action: is one too many: a set may ask for 64",
		},
		{
			"more denials than anybody can read",
			"deny contains sprintf(\"%d\", [p]) if some p in numbers.range(1, 65)",
			"breaker.bad: deny: is one too many: a set may give 64 reasons",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := mustLoad(t, "good.rego", good, "bad.rego", "package breaker.bad\n\nimport rego.v1\n\n"+tt.bad+"\n")
			got := s.Decide(t.Context(), stormInput())
			want := Verdict{Action: model.Action{Kind: model.NoAction}, Policy: "breaker.bad", Error: tt.want}
			if d := cmp.Diff(want, got, noTime); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAFigureThatIsNoNumberMeansNoAction(t *testing.T) {
	s := mustLoad(t, "x.rego", "package breaker.x\n\naction contains "+freezeTree+"\n")
	in := stormInput()
	in.Incident.Evidence = map[string]float64{"steal_percent": math.NaN()}
	if v := s.Decide(t.Context(), in); v.Action.Kind != model.NoAction || v.Error != "steal_percent of the incident is not a number" {
		t.Errorf("got %+v", v)
	}
}

func TestACancelledContextMeansNoAction(t *testing.T) {
	s := mustLoad(t, "x.rego", "package breaker.x\n\naction contains "+freezeTree+" if count([i | some i in numbers.range(1, 1000)]) > 1\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v := s.Decide(ctx, stormInput()); v.Action.Kind != model.NoAction || !strings.HasSuffix(v.Error, "evaluation was called off") {
		t.Errorf("got %+v", v)
	}
}

func TestAPolicySeesTheTimeOfTheSample(t *testing.T) {
	s := mustLoad(t, "x.rego", `package breaker.x

deny contains sprintf("%v %v %v", [input.time, time.clock([input.time_ns, "UTC"]), time.weekday(input.time_ns)])

deny contains "opened" if time.parse_rfc3339_ns(input.incident.opened_at) == input.time_ns - (input.incident.age_ms * 1000000)
`)
	v := s.Decide(t.Context(), stormInput())
	want := []string{"breaker.x: 2026-03-01T12:00:01Z [12, 0, 1] Sunday", "breaker.x: opened"}
	if d := cmp.Diff(want, v.Reasons()); d != "" {
		t.Errorf("%s\n%s", d, v.Error)
	}
}

func TestWhatAProcessCallsItselfCannotPreventAnAction(t *testing.T) {
	s := mustLoad(t, "x.rego", `package breaker.x

action contains {"kind": "freeze", "scope": "tree", "for": "60s", "reason": reason} if {
	c := input.incident.culprit.root.cmdline
	reason := sprintf("storm by %s %s %s", [c, upper(c), replace(c, "a", "b")])
}
`)
	for name, cmdline := range map[string]string{
		"a megabyte":          strings.Repeat("a", 1<<20),
		"escapes":             "\x1b[2J\x1b]0;owned\x07\n\r\t\x00",
		"bytes that are none": "\xff\xfe\x80",
		"directions":          "\u202eevil\u2066",
		"nothing":             "",
	} {
		inc := stormIncident()
		inc.Culprit.Root.Cmdline = cmdline
		v := s.Decide(t.Context(), InputOf(inc, model.Breaker{}, stormHost(), inc.OpenedAt))
		if v.Action.Kind != model.Freeze || v.Error != "" {
			t.Errorf("%s: got %+v", name, v)
		}
		if r := v.Action.Reason; len(r) > maxReason || strings.ContainsAny(r, "\x1b\n\r\x07\u202e") {
			t.Errorf("%s: the reason is %q", name, r)
		}
	}
}

func TestTheSameInputGetsTheSameAnswerFromManyAtOnce(t *testing.T) {
	s, err := LoadFS(Shipped())
	if err != nil {
		t.Fatal(err)
	}
	want := s.Decide(t.Context(), stormInput())
	// Who has not opted in is denied, whatever the others ask for.
	if len(want.Asked) != 1 || want.Policy != "breaker.optin" || want.Error != "" {
		t.Fatalf("got %+v", want)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if d := cmp.Diff(want, s.Decide(t.Context(), stormInput()), noTime); d != "" {
					t.Error(d)
					return
				}
			}
		})
	}
	wg.Wait()
}
