package policy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/breakerd/breakerd/model"
)

// policyHead stands above each policy of the table: lines are counted from it.
const policyHead = "package breaker.x\n\nimport rego.v1\n\n"

func TestWhatIsWrongWithAPolicyIsSaidWithItsPlace(t *testing.T) {
	for _, tt := range []struct{ name, policy, want string }{
		{
			"a field that the input does not have",
			policyHead + "deny contains \"no\" if input.incident.sevrity > 0.5\n",
			`x.rego:5:38: input.incident has no "sevrity": did you mean severity?`,
		},
		{
			"a field of a victim that it does not have",
			policyHead + "deny contains \"no\" if {\n\tsome v in input.incident.victims\n\tv.stall > 0.5\n}\n",
			`x.rego:7:4: v has no "stall": it has cgroup, cgroup_id, resource, stall_ms, unit, workload`,
		},
		{
			"an unknown field that is got",
			policyHead + "deny contains \"no\" if object.get(input.incident, \"sevrity\", 0) > 0.5\n",
			`x.rego:5:50: input.incident has no "sevrity": did you mean severity?`,
		},
		{
			"an unknown field on a path that is got of a variable",
			policyHead + "deny contains \"no\" if {\n\ti := input.incident\n\tuid := object.get(i, [\"culprit\", \"uidd\"], 0)\n\tuid == 1000\n}\n",
			`x.rego:7:23: input.incident.culprit has no "uidd": did you mean uid?`,
		},
		{
			"a part of a number",
			policyHead + "deny contains \"no\" if input.incident.severity.high > 0.5\n",
			`x.rego:5:23: undefined ref: input.incident.severity.high`,
		},
		{
			"a number compared with a text",
			policyHead + "deny contains \"no\" if input.incident.severity > \"0.5\"\n",
			`x.rego:5:49: input.incident.severity is a number, and is compared with a text, "0.5": did you mean 0.5?`,
		},
		{
			"a word of another field",
			policyHead + "deny contains \"no\" if input.incident.severity == \"critical\"\n",
			`x.rego:5:50: input.incident.severity is a number, and is compared with a text, "critical": did you mean input.incident.level?`,
		},
		{
			"a text looked for among numbers",
			policyHead + "deny contains \"no\" if input.incident.culprit.unit in {1, 2}\n",
			`x.rego:5:54: input.incident.culprit.unit is a text, and is looked for among what is a number, {1, 2}`,
		},
		{
			"a field of a victim compared with a text",
			policyHead + "deny contains \"no\" if {\n\tsome v in input.incident.victims\n\tv.stall_ms > \"500\"\n}\n",
			`x.rego:7:15: input.incident.victims[_].stall_ms is a number, and is compared with a text, "500": did you mean 500?`,
		},
		{
			"a figure that there is not",
			policyHead + "deny contains \"no\" if input.incident.evidence.forks_per_secnd > 5\n",
			`x.rego:5:47: input.incident.evidence has no "forks_per_secnd": did you mean forks_per_second?`,
		},
		{
			"a figure of another kind",
			policyHead + "deny contains \"no\" if {\n\tinput.incident.kind == \"fork_storm\"\n\tinput.incident.evidence.steal_percent > 5\n}\n",
			`x.rego:7:26: evidence of fork_storm has no steal_percent: that is of cpu_contention`,
		},
		{
			"a reason that is a number",
			policyHead + "deny contains 5\n",
			`x.rego:5:15: deny: is a number, not a string`,
		},
		{
			"a reason that is a number of the input",
			policyHead + "deny contains input.incident.severity\n",
			`x.rego:5:15: deny: is a number, not a text`,
		},
		{
			"an action that is a text",
			policyHead + "action contains \"freeze\"\n",
			`x.rego:5:17: action: is a text, not an object with kind, scope, for and reason`,
		},
		{
			"a part of an action that is of the wrong type",
			policyHead + "action contains {\"kind\": \"freeze\", \"scope\": input.incident.culprit.scope, \"for\": 60, \"reason\": input.incident.severity}\n",
			"x.rego:5:82: action: for is a number, not a duration such as \"60s\"\n" +
				"x.rego:5:96: action: reason is a number, not a text",
		},
		{
			"a mode that there is not",
			"# METADATA\n# custom:\n#   mode: enforce\n" + policyHead + "deny contains \"no\"\n",
			`x.rego:3:11: custom.mode is "enforce": it can only be "dry-run", and what is not held to that acts as breakerd's own mode says`,
		},
		{
			"a deny that is held to a dry run",
			policyHead + "# METADATA\n# custom:\n#   mode: dry-run\ndeny contains \"no\"\n",
			`x.rego:8:1: a deny cannot be held to a dry run: it would deny nothing`,
		},
		{
			"an operand of the wrong type",
			policyHead + "deny contains \"no\" if startswith(input.incident.severity, \"a\")\n",
			`x.rego:5:23: startswith: invalid argument(s) (have: (number, string), want: (search: string, base: string, result: boolean))`,
		},
		{
			"a kind that there is not",
			policyHead + "deny contains \"no\" if input.incident.kind == \"fork_strom\"\n",
			`x.rego:5:46: input.incident.kind is never "fork_strom": did you mean fork_storm?`,
		},
		{
			"a resource that there is not, in a set",
			policyHead + "deny contains \"no\" if input.incident.victims[_].resource in {\"cpu\", \"disk\"}\n",
			`x.rego:5:69: input.incident.victims[_].resource is never "disk": it is one of cpu, memory, io`,
		},
		{
			"a syntax error",
			policyHead + "deny contains \"no\" if {\n\tinput.incident.severity >\n}\n",
			`x.rego:7:1: unexpected } token`,
		},
		{
			"no module at all",
			"",
			`x.rego: empty module`,
		},
		{
			"a package elsewhere",
			"package x\n\nimport rego.v1\n\ndeny contains \"no\"\n",
			`x.rego:1:1: package x is not below breaker: name it breaker.something`,
		},
		{
			"the package that all are below",
			"package breaker\n\nimport rego.v1\n\ndeny contains \"no\"\n",
			`x.rego:1:1: package breaker is not below breaker: name it breaker.something`,
		},
		{
			"an action that is no set",
			policyHead + "action := {\"kind\": \"freeze\"}\n",
			`x.rego:5:1: action must be a set: write "action contains … if { … }"`,
		},
		{
			"a deny that is a map",
			policyHead + "deny[\"a\"] := \"no\"\n",
			`x.rego:5:1: deny must be a set: write "deny contains … if { … }"`,
		},
		{
			"a deny that is a flag",
			policyHead + "default deny := true\n",
			`x.rego:5:1: deny must be a set: write "deny contains … if { … }"`,
		},
		{
			"an action that can be seen to be wrong",
			policyHead + "action contains {\"kind\": \"freeze\", \"scope\": \"tree\", \"for\": \"15m\", \"reason\": \"x\"}\n",
			`x.rego:5:17: action: for is "15m", not between 100ms and 10m0s`,
		},
		{
			"a key that no action has",
			policyHead + "action contains {\"knid\": input.incident.id}\n",
			`x.rego:5:18: action: unknown key "knid": did you mean kind?`,
		},
		{
			"a slip in the name of a rule",
			policyHead + "denny contains \"no\"\n\nactions contains \"x\"\n",
			"x.rego:5:1: rule denny is used by nothing: did you mean deny?\n" +
				"x.rego:7:1: rule actions is used by nothing: did you mean action?",
		},
		{
			"data that is not there",
			policyHead + "deny contains \"no\" if input.incident.culprit.uid in data.breaker.lists.oncall\n",
			`x.rego:5:53: data.breaker.lists.oncall is not in this set of policies`,
		},
		{
			"the network",
			policyHead + "deny contains \"no\" if http.send({\"url\": \"http://localhost\"}).ok\n",
			`x.rego:5:23: http.send is not available: a policy reaches no network`,
		},
		{
			"the environment",
			policyHead + "deny contains \"no\" if opa.runtime().env.HOME\n",
			`x.rego:5:23: opa.runtime is not available: a policy sees no environment`,
		},
		{
			"the clock of the host",
			policyHead + "deny contains \"no\" if time.now_ns() > 1\n",
			`x.rego:5:23: time.now_ns is not available: use input.time_ns, which is the same when a recording is replayed`,
		},
		{
			"chance",
			policyHead + "deny contains \"no\" if rand.intn(\"x\", 2) == 1\n",
			`x.rego:5:23: rand.intn is not available: the same incident must give the same answer`,
		},
		{
			"a function that there is not",
			policyHead + "deny contains \"no\" if starts_with(\"a\", \"b\")\n",
			`x.rego:5:23: undefined function starts_with`,
		},
		{
			"a replaced builtin outside a test",
			policyHead + "f(_) := 1\n\ndeny contains \"no\" if count([1]) == 1 with count as f\n",
			`x.rego:7:39: with may replace count in a test only`,
		},
		{
			"a variable that is never used",
			policyHead + "deny contains \"no\" if {\n\tx := input.incident.id\n}\n",
			`x.rego:6:2: assigned var x unused`,
		},
		{
			"bytes that are no text",
			policyHead + "# caf\xe9\n",
			`x.rego:5:6: is not UTF-8 text`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := LoadFS(files("x.rego", tt.policy))
			if err == nil {
				t.Fatalf("it was loaded, with the packages %v", s.Packages())
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestEveryProblemOfEveryFileIsListed(t *testing.T) {
	_, err := LoadFS(files(
		"b.rego", policyHead+"deny contains \"no\" if input.host.cpu > 1\n\ndeny contains \"b\" if input.tim\n",
		"a.rego", policyHead+"deny contains \"no\" if input.incident.sevrity > 0.5\n",
		"good.rego", policyHead+"deny contains \"no\"\n",
	))
	le, ok := errors.AsType[*LoadError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	want := `a.rego:5:38: input.incident has no "sevrity": did you mean severity?
b.rego:5:34: input.host has no "cpu": did you mean cpus?
b.rego:7:28: input has no "tim": did you mean time?`
	if d := cmp.Diff(want, le.Error()); d != "" {
		t.Error(d)
	}
}

func TestWhatThereIsCanBeGot(t *testing.T) {
	mustLoad(t, "x.rego", policyHead+`deny contains "no" if {
	object.get(input.incident.evidence, "forks_per_second", 0) > data.most[input.incident.kind]
	object.get(input.incident, ["victims", 0, "stall_ms"], 0) > 1
	some name in ["severity", "confidence"]
	object.get(input.incident, name, 0) > 0.5
	object.get({"a": 1}, "b", 0) == 0
}
`, "data.json", `{"most": {"fork_storm": 5}}`)
}

func TestAHelperMayBeCalledAlmostLikeARule(t *testing.T) {
	s := mustLoad(t, "x.rego", policyHead+"denies contains \"no\"\n\ndeny contains x if some x in denies\n")
	if got := s.Packages(); !cmp.Equal(got, []string{"breaker.x"}) {
		t.Errorf("packages %v", got)
	}
}

func TestAFolderGivesItsPoliciesAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	policy := func(name string) string { return "package breaker." + name + "\n\ndeny contains \"no\"\n" }
	write("a.rego", policy("a"))
	write("deep/down/b.rego", policy("b"))
	write("lib.rego", "package breaker.lib\n\nuids := {1}\n")
	write("a_test.rego", "this is not even Rego")
	write("README.md", "neither is this")
	write(".a.rego.swp.rego", "nor this")
	write("..2026/c.rego", policy("hidden"))
	// As Kubernetes mounts a ConfigMap.
	if err := os.Symlink("..2026/c.rego", filepath.Join(dir, "c.rego")); err != nil {
		t.Fatal(err)
	}
	s, err := Load(dir, dir, filepath.Join(dir, "a.rego"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"breaker.a", "breaker.b", "breaker.hidden"}
	if d := cmp.Diff(want, s.Packages()); d != "" {
		t.Error(d)
	}
}

func TestFilesThatCannotBePoliciesAreRefused(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(in("elsewhere"), 0o755))
	must(os.Mkdir(in("set"), 0o755))
	must(os.Symlink(in("elsewhere"), in("set/more")))
	must(os.Symlink("nowhere", in("set/gone.rego")))
	must(syscall.Mkfifo(in("set/pipe.rego"), 0o600))
	must(os.WriteFile(in("set/large.rego"), make([]byte, maxFileBytes+1), 0o644))
	must(os.WriteFile(in("set/a_test.rego"), nil, 0o644))
	want := []string{
		"missing: no such file or directory",
		"set/a_test.rego: is no policy: a policy is a .rego file that does not end in _test.rego, and data stands in data.json or data.yaml",
		"set/gone.rego: no such file or directory",
		"set/large.rego: is larger than 1048576 bytes",
		"set/more: is a symbolic link to a folder: name that folder itself",
		"set/pipe.rego: is not a regular file",
	}
	if os.Getuid() != 0 { // root may read everything
		must(os.WriteFile(in("set/secret.rego"), nil, 0))
		want = append(want, "set/secret.rego: permission denied")
	}
	_, err := Load(in("missing"), in("set"), in("set/a_test.rego"))
	if err == nil {
		t.Fatal("they were loaded")
	}
	got := strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestASetThatIsTooLargeIsRefused(t *testing.T) {
	large := "package breaker.x\n#" + strings.Repeat("x", maxFileBytes-100) + "\n"
	fsys := files()
	for _, c := range "abcdefghi" {
		fsys[string(c)+".rego"] = files("f", large)["f"]
	}
	_, err := LoadFS(fsys)
	if err == nil || err.Error() != "i.rego: makes the set larger than 8388608 bytes" {
		t.Errorf("got %v", err)
	}
}

func TestNoPolicyIsAnEmptySetThatDecidesNothing(t *testing.T) {
	nowhere, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	empty, err := Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	library := mustLoad(t, "lib.rego", "package breaker.lib\n\nuids := {1}\n")
	for name, s := range map[string]*Set{"no folder": nowhere, "an empty folder": empty, "a library alone": library} {
		if !s.Empty() || len(s.Packages()) != 0 {
			t.Errorf("%s: the set is not empty", name)
		}
		v := s.Decide(t.Context(), stormInput())
		if v.Action.Kind != "none" || v.Error != "" || v.Policy != "" {
			t.Errorf("%s: got %+v", name, v)
		}
	}
	if nowhere.Hash() != empty.Hash() {
		t.Errorf("two empty sets have the hashes %s and %s", nowhere.Hash(), empty.Hash())
	}
}

func TestTheHashNamesTheSources(t *testing.T) {
	one, two := "package breaker.a\n\ndeny contains \"a\"\n", "package breaker.b\n\ndeny contains \"b\"\n"
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for i, text := range []string{one, two} {
		if err := os.WriteFile(filepath.Join(dirs[i], string(rune('a'+i))+".rego"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	load := func(paths ...string) string {
		t.Helper()
		s, err := Load(paths...)
		if err != nil {
			t.Fatal(err)
		}
		return s.Hash()
	}
	want := mustLoad(t, "a.rego", one, "b.rego", two).Hash()
	if got := load(dirs[0], dirs[1]); got != want {
		t.Errorf("the same files in two folders hash to %s, not %s", got, want)
	}
	if got := load(dirs[1], dirs[0]); got != want {
		t.Errorf("another order hashes to %s, not %s", got, want)
	}
	for name, s := range map[string]*Set{
		"another name":    mustLoad(t, "a.rego", one, "c.rego", two),
		"another content": mustLoad(t, "a.rego", one, "b.rego", two+"\n"),
		"names exchanged": mustLoad(t, "b.rego", one, "a.rego", two),
		"one file less":   mustLoad(t, "a.rego", one),
	} {
		if s.Hash() == want {
			t.Errorf("%s gives the same hash", name)
		}
	}
}

func TestASetCanBeMadeAgainFromItsSources(t *testing.T) {
	// Two folders with a file of the same name.
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for i, name := range []string{"a", "b"} {
		text := "package breaker." + name + "\n\ndeny contains \"no\"\n"
		if err := os.WriteFile(filepath.Join(dirs[i], "x.rego"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	first, err := Load(dirs[0], dirs[1])
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadSources(first.Sources())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first.Packages(), again.Packages()); d != "" {
		t.Error(d)
	}
	if first.Hash() != again.Hash() {
		t.Errorf("the hash %s became %s", first.Hash(), again.Hash())
	}
}

func TestFilesThatChangeWhileTheyAreReadAreNoSet(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("changed.rego", "package breaker.a\n\ndeny contains \"a\"\n")
	write("same.rego", "package breaker.b\n\ndeny contains \"b\"\n")
	write("gone.rego", "package breaker.c\n\ndeny contains \"c\"\n")
	var r reader
	r.readPaths([]string{dir})
	write("changed.rego", "package breaker.a\n")
	write("new.rego", "package breaker.d\n")
	if err := os.Remove(filepath.Join(dir, "gone.rego")); err != nil {
		t.Fatal(err)
	}
	r.sameAgain([]string{dir})
	_, err := r.compile()
	var load *LoadError
	if !errors.As(err, &load) {
		t.Fatalf("error %v", err)
	}
	want := []Problem{
		{File: filepath.Join(dir, "changed.rego"), Message: "has changed while it was read: load it again once it is whole"},
		{File: filepath.Join(dir, "gone.rego"), Message: "has changed while it was read: load it again once it is whole"},
		{File: filepath.Join(dir, "new.rego"), Message: "was made while the others were read: load them again once they are whole"},
	}
	if d := cmp.Diff(want, load.Problems); d != "" {
		t.Error(d)
	}
}

func TestWhatIsGatheredHasTheHashOfItsSet(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.rego")
	if err := os.WriteFile(file, []byte("package breaker.a\n\ndeny contains \"a\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	g := Gather(dir)
	s, err := g.Compile()
	if err != nil || g.Hash() != s.Hash() {
		t.Errorf("gathered %s, compiled %s, %v", g.Hash(), s.Hash(), err)
	}
	if got := Gather(filepath.Join(dir, "none")).Hash(); got != "" {
		t.Errorf("what cannot be read has the hash %s", got)
	}
}

func TestABundleIsOneSetWithTheFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.rego"), []byte("package breaker.a\n\ndeny contains \"a\" if input.incident.culprit.uid in data.oncall.uids\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	g := Gather(dir)
	g.Add("b.tar.gz", map[string]string{"oncall/data.json": `{"uids": [7]}`, "x.rego": "package breaker.b\n\ndeny contains \"b\"\n"})
	s, err := g.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"breaker.a", "breaker.b"}, s.Packages()); d != "" {
		t.Error(d)
	}
	g = Gather(dir)
	g.Add("b.tar.gz", map[string]string{"oncall/data.json": `[7]`, "y.rego": "package breaker.b\n\ndeny contains 5\n"})
	_, err = g.Compile()
	want := "b.tar.gz: oncall/data.json: holds an array: data must be an object, with a name for each part\nb.tar.gz: y.rego:3:15: deny: is a number, not a string"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestIncidentsAreDecidedWhileAThousandRulesAreLoaded(t *testing.T) {
	s, err := LoadFS(Shipped())
	if err != nil {
		t.Fatal(err)
	}
	inc := stormIncident()
	decided := func() Verdict {
		return s.Decide(t.Context(), InputOf(inc, model.Breaker{}, stormHost(), inc.OpenedAt.Add(time.Second)))
	}
	want := decided()
	loaded := make(chan error)
	go func() {
		_, err := LoadFS(thousandRules())
		loaded <- err
	}()
	n := 0
	for {
		select {
		case err := <-loaded:
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				t.Error("nothing was decided meanwhile")
			}
			return
		default:
			got := decided()
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Verdict{}, "Elapsed")); diff != "" {
				t.Fatal(diff)
			}
			n++
		}
	}
}
