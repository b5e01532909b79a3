package policy

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// doubling is a policy body that makes a value twice as large n times over.
func doubling(n int, first, step string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tx0 := %s\n", first)
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "\tx%d := %s\n", i, strings.ReplaceAll(step, "x", fmt.Sprintf("x%d", i-1)))
	}
	return b.String()
}

// pathological policies, as bodies of a deny. Each ends, and says why.
var pathological = []struct{ name, body, want string }{
	{"a comprehension in a comprehension", `	r := numbers.range(1, 1000)
	count([1 | some _ in r; some _ in r; some _ in r]) > 0
`, "took more than 100000 steps"},
	{"every of every", `	r := numbers.range(1, 1000)
	every a in r { every b in r { a + b > 0 } }
`, "took more than 100000 steps"},
	{"a range without end", "\tcount(numbers.range(0, 1000000000)) > 0\n", "numbers.range: range has more than 10000 numbers"},
	{"a range written with an exponent", "\tcount(numbers.range(0, 1e9)) > 0\n", "numbers.range: range has more than 10000 numbers"},
	{"a range with a step", "\tcount(numbers.range_step(0, 1e18, 2)) > 0\n", "numbers.range_step: range has more than 10000 numbers"},
	{"ranges collected", `	some i in numbers.range(1, 10000)
	count(numbers.range(i, i + 9000)) < 0
`, "evaluation took more than 100000 steps"},
	{"a text doubled with sprintf", doubling(40, `"0123456789"`, `sprintf("%s%s", [x, x])`) + "\tx40 != \"\"\n", "sprintf: result is a text of more than 65536 bytes"},
	{"a text doubled with concat", doubling(40, `"0123456789"`, `concat("", [x, x])`) + "\tx40 != \"\"\n", "concat: result is a text of more than 65536 bytes"},
	{"a text doubled with a template", doubling(40, `"0123456789"`, `$"{x}{x}"`) + "\tx40 != \"\"\n", "is a text of more than 65536 bytes"},
	{"a text that replaces itself", doubling(20, `"aaaaaaaaaa"`, `replace(x, "a", x)`) + "\tx20 != \"\"\n", "replace: result could be larger than 1048576 bytes"},
	{"a text that replaces itself by expression", strings.ReplaceAll(doubling(20, `"aaaaaaaaaa"`, `RE.replace(x, "a", x)`), "RE", "regex") + "\tx20 != \"\"\n", "regex.replace: result could be larger than 1048576 bytes"},
	{"a wide sprintf", "\tsprintf(\"%999999d\", [1]) != \"\"\n", "sprintf: width of more than 999"},
	{"a width by argument", "\tsprintf(\"%*d\", [999999, 1]) != \"\"\n", "sprintf: width given by an argument"},
	{"an argument used over and over", "\tx := concat(\"\", [s | some _ in numbers.range(1, 6000); s := \"0123456789\"])\n\tsprintf(\"" + strings.Repeat("%[1]s", 100) + "\", [x]) != \"\"\n", "sprintf: result could be larger than 1048576 bytes"},
	{"an array doubled", doubling(40, `[1, 2, 3, 4]`, `array.concat(x, x)`) + "\tcount(x40) > 0\n", "array.concat: result is larger than 1048576 bytes"},
	{"an array split from a text", "\tx := concat(\"\", [s | some _ in numbers.range(1, 6000); s := \"0123456789\"])\n\tcount(split(x, \"\")) > 0\n", "split: result is larger than 1048576 bytes"},
	{"a number multiplied by itself", doubling(40, `123456789123`, `x * x`) + "\tx40 > 0\n", "is a number of more than 400 digits"},
	{"a number in a text", "\tto_number(\"1e999999999\") % 7 == 1\n", "to_number: is a number of more than 400 digits"},
	{"a number in JSON", "\tjson.unmarshal(\"1e999999999\") % 7 == 1\n", "json.unmarshal: invalid number: number too big"},
	{"a size in a text", "\tunits.parse_bytes(\"1e999999999K\") > 1\n", "units.parse_bytes: is a number of more than 400 digits"},
	{"a far shift", "\tbits.lsh(1, 1000000000000) > 1\n", "bits.lsh: shift by more than 1024 bits"},
	{"texts without number", "\tx := [s | some i in numbers.range(1, 10000); s := sprintf(\"%900d\", [i])]\n\tcount(x) > 0\n", "evaluation took more than 100000 steps"},
	{"a collection of a collection, marshalled", `	a := numbers.range(1, 60)
	b := [a | some _ in a]
	c := [b | some _ in a]
	json.marshal(c) != ""
`, "json.marshal: operand 1 is larger than 1048576 bytes"},
	{"texts that replace themselves", strings.ReplaceAll(doubling(20, `"aaaaaaaaaa"`, `STR.replace_n({"a": x}, x)`), "STR", "strings") + "\tx20 != \"\"\n", "strings.replace_n: result could be larger than 1048576 bytes"},
	{"groups in groups", "\tx := concat(\"\", [s | some _ in numbers.range(1, 6000); s := \"0123456789\"])\n\tcount(regex.find_all_string_submatch_n(`((((.))))`, x, -1)) > 0\n", "regex.find_all_string_submatch_n: result could be larger than 1048576 bytes"},
	{"every text tried on every other", "\tx := [sprintf(\"%d\", [i]) | some i in numbers.range(1, 1100)]\n\tstrings.any_prefix_match(x, x)\n", "strings.any_prefix_match: result could be larger than 1048576 bytes"},
	{"a glob of stars", "\tglob.match(\"" + strings.Repeat("*a", 20) + "\", [], \"" + strings.Repeat("a", 500) + "b\")\n", "glob.match: pattern has more than 8 stars"},
	{"an expression over a long text", "\tx := concat(\"\", [s | some _ in numbers.range(1, 6000); s := \"aaaaaaaaaa\"])\n\tsome _ in numbers.range(1, 10000)\n\tregex.match(`^(a+)+(a+)+(a+)+$b`, x)\n", "evaluation took"},
	{"the zone of this machine", "\ttime.clock([input.time_ns, \"Local\"])[0] > 30\n", `time.clock: zone "Local" differs between machines: name the zone`},
}

func TestPathologicalPoliciesEndInTimeWithNoActionAndAReason(t *testing.T) {
	for _, tt := range pathological {
		t.Run(tt.name, func(t *testing.T) {
			s := mustLoad(t,
				"good.rego", "package breaker.good\n\naction contains "+freezeTree+"\n",
				"bad.rego", "package breaker.bad\n\ndeny contains \"x\" if {\n"+tt.body+"}\n")
			before := allocated()
			v := s.Decide(t.Context(), stormInput())
			grown := allocated() - before
			if v.Action.Kind != model.NoAction || !strings.Contains(v.Error, tt.want) || !strings.HasPrefix(v.Error, "breaker.bad: bad.rego:") {
				t.Errorf("got %+v, want the error %q", v, tt.want)
			}
			if limit := 2 * s.limits.Time; v.Elapsed > limit+limit/2 {
				t.Errorf("it took %v", v.Elapsed)
			}
			// All that was ever allocated, not what is held at once.
			if grown > 128<<20 {
				t.Errorf("it allocated %d MB", grown>>20)
			}
			t.Logf("%v, %d KB: %s", v.Elapsed.Round(time.Microsecond), grown>>10, v.Error)
		})
	}
}

func TestAValueThatIsPutIntoItselfOverAndOverIsRefused(t *testing.T) {
	const want = "puts a value into itself too often: it would hold it more than 10000 times"
	var rules strings.Builder
	rules.WriteString("p0 := [input.incident.id]\n")
	for i := 1; i <= 40; i++ {
		fmt.Fprintf(&rules, "\np%d := [p%d, p%d]\n", i, i-1, i-1)
	}
	calls := "f(x) := {\"a\": x, \"b\": x}\n\ndeny contains json.marshal(" + strings.Repeat("f(", 40) + "1" + strings.Repeat(")", 40) + ")"
	for name, text := range map[string]string{
		"in a body":          "deny contains \"x\" if {\n" + doubling(40, `[input.incident.id]`, `[x, x]`) + "\tjson.marshal(x40) != \"\"\n}",
		"in a comprehension": "deny contains \"x\" if {\n\tcount([1 |\n" + doubling(40, `[input.incident.id]`, `[x, x]`) + "\tjson.marshal(x40) != \"\"]) > 1\n}",
		"in an object":       "deny contains \"x\" if {\n" + doubling(40, `[input.incident.id]`, `{"a": x, "b": x}`) + "\tjson.marshal(x40) != \"\"\n}",
		"by rules":           rules.String() + "\ndeny contains json.marshal(p40)",
		"by calls":           calls,
	} {
		_, err := LoadFS(files("x.rego", "package breaker.x\n\nimport rego.v1\n\n"+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func TestALoopThatOPACannotStopIsLeftBehindAndTheSetWaitsForIt(t *testing.T) {
	// The comparison fails within one expression, three million times over.
	s := mustLoad(t, "x.rego", `package breaker.x

deny contains "x" if {
	a := numbers.range(1, 150)
	b := [a | some _ in a]
	c := [b | some _ in a]
	c[_][_][_] == 0
}

action contains `+freezeTree+"\n").WithLimits(Limits{Time: 50 * time.Millisecond})
	start := time.Now()
	v := s.Decide(t.Context(), stormInput())
	if v.Error != "evaluation took longer than 50ms and could not be stopped" || v.Action.Kind != model.NoAction {
		t.Fatalf("got %+v", v)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("it took %v", d)
	}
	goroutines := runtime.NumGoroutine()
	v = s.Decide(t.Context(), stormInput())
	if !strings.HasPrefix(v.Error, "an evaluation given up ") || v.Action.Kind != model.NoAction {
		t.Errorf("got %+v", v)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines were %d", n, goroutines)
	}
	for s.stuckSince.Load() != 0 {
		if time.Since(start) > time.Minute {
			t.Fatal("the evaluation never ended")
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("the evaluation ended after %v", time.Since(start))
}

func TestStepsAreTheSameOnEveryRun(t *testing.T) {
	s, err := LoadFS(Shipped())
	if err != nil {
		t.Fatal(err)
	}
	in := stormInput()
	steps := map[int]bool{}
	for range 20 {
		m := &meter{limits: s.limits, deadline: time.Now().Add(time.Minute)}
		v, err := in.value(everything)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.run(t.Context(), s.all, termOf(v), &in, m); err != nil {
			t.Fatal(err)
		}
		steps[m.steps] = true
	}
	if len(steps) != 1 {
		t.Errorf("steps were %v", steps)
	}
	t.Logf("steps of the shipped rules: %v", steps)
}

func TestEveryBuiltinThatIsListedExists(t *testing.T) {
	have := map[string]bool{}
	for _, b := range capabilities.Builtins {
		have[b.Name] = true
		if b.IsDeprecated() || b.Nondeterministic {
			t.Errorf("%s is deprecated or not deterministic", b.Name)
		}
	}
	for name := range boundedBuiltins {
		if !have[name] || evalBuiltins[boundedName(name)] == nil {
			t.Errorf("OPA has no builtin %s", name)
		}
	}
	for _, name := range plainBuiltins {
		if !have[name] {
			t.Errorf("OPA has no builtin %s", name)
		}
	}
}
