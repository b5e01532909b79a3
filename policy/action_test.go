package policy

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/breakerd/breakerd/model"
)

// base is a freeze, with a change: a key and its value in JSON, "" for its absence.
func base(t *testing.T, kind string, changes ...string) *ast.Term {
	t.Helper()
	m := map[string]any{"kind": kind, "scope": "tree", "for": "60s", "reason": "storm"}
	for i := 0; i < len(changes); i += 2 {
		delete(m, changes[i])
		if changes[i+1] != "" {
			m[changes[i]] = json.RawMessage(changes[i+1])
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ast.ValueFromReader(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return ast.NewTerm(v)
}

func TestAnActionIsUnderstoodToTheLetterOrRefused(t *testing.T) {
	const fz, th = "freeze", "throttle"
	for _, tt := range []struct {
		name    string
		kind    string
		changes []string
		want    string
	}{
		{"no kind", fz, []string{"kind", ""}, "kind is missing"},
		{"no scope", fz, []string{"scope", ""}, "scope is missing"},
		{"no time", fz, []string{"for", ""}, "for is missing"},
		{"no reason", fz, []string{"reason", ""}, "reason is missing"},
		{"an empty reason", fz, []string{"reason", `" \n"`}, "reason is empty"},
		{"a reason that is a list", fz, []string{"reason", `["a"]`}, "reason is an array, not a string"},
		{"a kind that kills", "kill", nil, `kind is "kill", not freeze or throttle`},
		{"the kind of nothing", "none", nil, `kind is "none", not freeze or throttle`},
		{"a kind in capitals", "Freeze", nil, `kind is "Freeze", not freeze or throttle`},
		{"a kind that is a number", fz, []string{"kind", "1"}, "kind is a number, not a string"},
		{"a scope of everything", fz, []string{"scope", `"host"`}, `scope is "host", not tree or cgroup`},
		{"a time without a unit", fz, []string{"for", `"60"`}, `for is "60", not a duration such as "60s" or "5m"`},
		{"a time as a number", fz, []string{"for", "60"}, `for is a number, not a duration such as "60s"`},
		{"no time at all", fz, []string{"for", `"0s"`}, `for is "0s", not between 100ms and 10m0s`},
		{"a time that ran backwards", fz, []string{"for", `"-5s"`}, `for is "-5s", not between 100ms and 10m0s`},
		{"more than ten minutes", fz, []string{"for", `"10m0.001s"`}, `for is "10m0.001s", not between 100ms and 10m0s`},
		{"a slip in a key", fz, []string{"resaon", `"x"`}, `unknown key "resaon": did you mean reason?`},
		{"a key of another world", fz, []string{"signal", "9"}, `unknown key "signal": an action has kind, scope, for, reason, priority, cpu_percent, memory_high, io_percent, pids_max, ease, approval, then`},
		{"a freeze with a limit", fz, []string{"cpu_percent", "50"}, "a freeze has no limits: cpu_percent, memory_high, io_percent and pids_max belong to a throttle"},
		{"a throttle without a limit", th, nil, "a throttle needs at least one of cpu_percent, memory_high, io_percent, pids_max"},
		{"no CPU at all", th, []string{"cpu_percent", "0"}, "cpu_percent is 0, not between 1 and 1000000"},
		{"CPU as a text", th, []string{"cpu_percent", `"50%"`}, "cpu_percent is a string, not a number"},
		{"memory of nothing", th, []string{"memory_high", "0"}, "memory_high is 0, not between 1048576 and 9007199254740992"},
		{"half a byte", th, []string{"memory_high", "2000000.5"}, "memory_high is 2000000.5, not a whole number"},
		{"more than all of the disk", th, []string{"io_percent", "101"}, "io_percent is 101, not between 1 and 100"},
		{"half a process", th, []string{"pids_max", "1.5"}, "pids_max is 1.5, not a whole number"},
		{"a priority above all", fz, []string{"priority", "1e9"}, "priority is 1e9, not between -1000 and 1000"},
		{"half a priority", fz, []string{"priority", "0.5"}, "priority is 0.5, not a whole number"},
		{"a person who has no time to read", fz, []string{"approval", `"1s"`}, `approval is "1s", not between 10s and 24h0m0s`},
		{"a person asked with a bare yes", fz, []string{"approval", "true"}, `approval is a boolean, not a duration such as "60s"`},
		{"what follows is no list", th, []string{"cpu_percent", "50", "then", `{"kind": "freeze"}`}, "then is an object, not an array of actions"},
		{"nothing follows", th, []string{"cpu_percent", "50", "then", "[]"}, "then has 0 actions, not 1 to 3"},
		{"a ladder too high", th, []string{"cpu_percent", "50", "then", "[1, 2, 3, 4]"}, "then has 4 actions, not 1 to 3"},
		{"a rung that is a word", th, []string{"cpu_percent", "50", "then", `["freeze"]`}, "then number 1: is a string, not an object with kind, scope, for and reason"},
		{"a rung without a time", th, []string{"cpu_percent", "50", "then", `[{"kind": "freeze"}]`}, "then number 1: for is missing"},
		{"a rung with a slip", th, []string{"cpu_percent", "50", "then", `[{"kind": "freeze", "for": "5s", "scop": "tree"}]`}, `then number 1: unknown key "scop": did you mean scope?`},
		{"a ladder on a ladder", th, []string{"cpu_percent", "50", "then", `[{"kind": "freeze", "for": "5s", "then": []}]`}, "then number 1: then belongs to the first action"},
		{"a rung with a priority", th, []string{"cpu_percent", "50", "then", `[{"kind": "freeze", "for": "5s", "priority": 1}]`}, "then number 1: priority belongs to the first action"},
		{"a milder one after the freeze", fz, []string{"then", `[{"kind": "throttle", "for": "5s", "cpu_percent": 10}]`}, "then number 1: it is no more than the one before: the milder one comes first"},
		{"the same once more", th, []string{"cpu_percent", "50", "then", `[{"kind": "throttle", "for": "5s", "cpu_percent": 20}, {"kind": "throttle", "for": "9s", "cpu_percent": 20}]`}, "then number 2: it is no more than the one before: the milder one comes first"},
		{"a rung with a limit on a freeze", th, []string{"cpu_percent", "50", "then", `[{"kind": "freeze", "for": "5s", "pids_max": 9}]`}, "then number 1: a freeze has no limits: cpu_percent, memory_high, io_percent and pids_max belong to a throttle"},
		{"eased before anything is seen of it", th, []string{"cpu_percent", "50", "ease", `"1s"`}, `ease is "1s", not between 2s and 5m0s`},
		{"eased with a number", th, []string{"cpu_percent", "50", "ease", "0"}, `ease is a number, not a duration such as "60s"`},
		{"eased for longer than held", th, []string{"cpu_percent", "50", "for", `"10s"`, "ease", `"6s"`}, "ease is 6s, more than half of for (10s)"},
		{"a freeze that is eased", fz, []string{"ease", `"2s"`}, "ease needs cpu_percent, memory_high or io_percent: nothing else is loosened half way"},
		{"what makes room for forks at once", th, []string{"pids_max", "50", "ease", `"2s"`}, "ease needs cpu_percent, memory_high or io_percent: nothing else is loosened half way"},
		{"a priority of null", fz, []string{"priority", "null"}, "priority is null, not a number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := readAction(base(t, tt.kind, tt.changes...))
			if err == nil || err.Error() != tt.want || !reflect.ValueOf(a).IsZero() {
				t.Errorf("got  %+v, %v\nwant %s", a, err, tt.want)
			}
		})
	}
}

func TestAnActionCarriesAllThatWasSaid(t *testing.T) {
	got, err := readAction(base(t, "throttle", "scope", `"cgroup"`, "for", `"1m30s"`, "priority", "-7",
		"cpu_percent", "12.5", "memory_high", "1e9", "io_percent", "100", "pids_max", "64"))
	if err != nil {
		t.Fatal(err)
	}
	want := model.Action{
		Kind: model.Throttle, Scope: model.ScopeCgroup, ForMS: 90_000, Reason: "storm", Priority: -7,
		CPUPercent: 12.5, MemoryHigh: 1e9, IOPercent: 100, PIDsMax: 64, EaseMS: 10_000,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAThrottleIsEasedInItsLastTenSecondsUnlessItSaysElse(t *testing.T) {
	for _, tt := range []struct {
		name    string
		kind    string
		changes []string
		want    time.Duration
	}{
		{"half a minute", "throttle", []string{"for", `"30s"`, "cpu_percent", "50"}, 10 * time.Second},
		{"of memory", "throttle", []string{"for", `"10m"`, "memory_high", "1e9"}, 10 * time.Second},
		{"of io", "throttle", []string{"for", `"1m"`, "io_percent", "10"}, 10 * time.Second},
		{"less than half a minute", "throttle", []string{"for", `"29s"`, "cpu_percent", "50"}, 0},
		{"less, which says so", "throttle", []string{"for", `"4s"`, "cpu_percent", "50", "ease", `"2s"`}, 2 * time.Second},
		{"switched off", "throttle", []string{"for", `"1m"`, "cpu_percent", "50", "ease", `"0s"`}, 0},
		{"of forks", "throttle", []string{"for", `"1m"`, "pids_max", "50"}, 0},
		{"a freeze", "freeze", []string{"for", `"1m"`}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if a, err := readAction(base(t, tt.kind, tt.changes...)); err != nil || a.Ease() != tt.want {
				t.Errorf("eased for %v, %v, want %v", a.Ease(), err, tt.want)
			}
		})
	}
}

func TestALadderHasTheScopeAndTheReasonOfItsFirstActionUnlessItSaysOthers(t *testing.T) {
	got, err := readAction(base(t, "throttle", "scope", `"tree"`, "for", `"30s"`, "cpu_percent", "50", "approval", `"5m"`,
		"then", `[{"kind": "throttle", "for": "20s", "cpu_percent": 20}, {"kind": "freeze", "scope": "cgroup", "for": "10s", "reason": "all else failed", "approval": "1m"}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := model.Action{
		Kind: model.Throttle, Scope: model.ScopeTree, ForMS: 30_000, Reason: "storm", CPUPercent: 50, EaseMS: 10_000, ApprovalMS: 300_000,
		Then: []model.Action{
			{Kind: model.Throttle, Scope: model.ScopeTree, ForMS: 20_000, Reason: "storm", CPUPercent: 20},
			{Kind: model.Freeze, Scope: model.ScopeCgroup, ForMS: 10_000, Reason: "all else failed", ApprovalMS: 60_000},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestALongReasonIsCutWithinItsBoundAndItsCharacters(t *testing.T) {
	a, err := readAction(base(t, "freeze", "reason", `"`+strings.Repeat("ö", 1000)+`"`))
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Reason) > maxReason || !strings.HasSuffix(a.Reason, "ö…") {
		t.Errorf("%d bytes: %s", len(a.Reason), a.Reason)
	}
}

// FuzzAction: whatever a policy asks for is refused, or is an action within its
// bounds that reads the same again.
func FuzzAction(f *testing.F) {
	for _, s := range []string{
		freezeTree,
		`{"kind": "throttle", "scope": "cgroup", "for": "10m", "reason": "x", "cpu_percent": 50.5, "priority": 3}`,
		`{"kind": "throttle", "scope": "tree", "for": "1s", "reason": "x", "memory_high": 1e12, "io_percent": 1, "pids_max": 1}`,
		`{"kind": "throttle", "scope": "tree", "for": "1s", "reason": "x", "cpu_percent": 9, "then": [{"kind": "freeze", "for": "2s", "approval": "1h"}]}`,
		`{"kind": "freeze", "scope": "tree", "for": "9999999h", "reason": "\u202e\u0000"}`,
		`{"cpu_percent": 1e308, "priority": -1e308}`, `[]`, `"freeze"`, `null`, `{"": {}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ast.ValueFromReader(strings.NewReader(s))
		if err != nil {
			return
		}
		a, err := readAction(ast.NewTerm(v))
		if err != nil {
			if !reflect.ValueOf(a).IsZero() {
				t.Errorf("an action beside the error %v: %+v", err, a)
			}
			return
		}
		limits := a.CPUPercent + a.IOPercent + float64(a.MemoryHigh) + float64(a.PIDsMax)
		switch {
		case a.For() < MinFor || a.For() > MaxFor,
			a.Reason == "" || len(a.Reason) > maxReason,
			a.Priority < -maxPriority || a.Priority > maxPriority,
			math.IsNaN(limits) || math.IsInf(limits, 0),
			a.Scope != model.ScopeTree && a.Scope != model.ScopeCgroup,
			a.Kind == model.Freeze && limits != 0,
			a.Kind == model.Throttle && limits <= 0,
			a.Kind != model.Freeze && a.Kind != model.Throttle:
			t.Errorf("accepted %s as %+v", s, a)
		}
		// Two requests that differ are never equal in the order.
		b := a
		b.Reason += "."
		rs := []Request{{Policy: "breaker.y", Action: b}, {Policy: "breaker.y", Action: a}, {Policy: "breaker.x", Action: b}}
		sortRequests(rs)
		if rs[0].Policy != "breaker.x" || !reflect.DeepEqual(rs[1].Action, a) {
			t.Errorf("the order is %+v", rs)
		}
	})
}
