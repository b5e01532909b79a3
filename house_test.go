package breakerd_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/breakerd/breakerd/"

// rooms says for each package which packages of ours it may import, and why that is all:
// what sees cannot touch, what touches cannot decide, what decides cannot open a file.
var rooms = map[string]struct {
	may []string
	why string
}{
	"model":    {nil, "the values between the stages belong to no stage"},
	"safetext": {nil, "text is text"},
	"config":   {nil, "reading YAML strictly has nothing to do with what is read"},

	"bpf":     {[]string{"model"}, "what sees fills samples and knows nobody else"},
	"host":    {[]string{"model"}, "what sees fills samples and knows nobody else"},
	"observe": {[]string{"model", "bpf", "host", "internal/cputime"}, "only what sees makes samples"},

	"blame":           {[]string{"model"}, "blame is a pure function of samples"},
	"detect":          {[]string{"model", "blame", "config"}, "incidents are a pure function of samples; config is for durations with their units"},
	"policy":          {[]string{"model"}, "policies see an incident and nothing else"},
	"workload":        {[]string{"model"}, "naming is a pure function of a path"},
	"breaker":         {[]string{"model", "config"}, "a breaker learns from samples and outcomes, so that a recording replays; config is for durations with their units"},
	"judge":           {[]string{"model", "detect", "policy", "breaker"}, "what decides only joins pure functions, so that a recording replays"},
	"policy/watch":    {nil, "that files have changed has nothing to do with what is in them"},
	"bundle":          {[]string{"internal/bearer"}, "a bundle is texts with a signature, whatever they say"},
	"decisionlog":     {[]string{"model", "policy", "internal/bearer"}, "what policies answered is written down, and no more"},
	"policy/workshop": {[]string{"policy"}, "what helps people write policies is not in the daemon"},

	"recording":      {[]string{"model"}, "a recording is samples and outcomes"},
	"history":        {[]string{"model"}, "keeping is not deciding: what is kept are values"},
	"report":         {[]string{"model", "safetext"}, "a report is a pure function of what history keeps"},
	"systemd":        {[]string{"model", "safetext"}, "telling is not doing"},
	"cgroupctl":      {[]string{"model"}, "the only writer of cgroups must be small enough to read"},
	"cgroupctl/unit": {[]string{"model", "cgroupctl"}, "what is asked of systemd is asked for a writer of cgroups"},
	"enforce":        {[]string{"model", "cgroupctl", "cgroupctl/unit", "systemd", "config", "internal/peercred"}, "the enforcer must be small enough to read, and cannot decide"},
	"api":            {[]string{"model", "report", "internal/peercred"}, "the API shows values and asks a small interface"},
	"daemon": {[]string{"model", "settings", "breaker", "bpf", "host", "observe", "blame", "detect", "policy", "policy/watch", "bundle", "decisionlog", "judge", "workload", "recording", "systemd", "cgroupctl", "cgroupctl/unit", "enforce", "api", "report"},
		"the daemon wires everything, and does nothing else"},
	"settings": {[]string{"model", "config", "detect", "breaker", "bundle"}, "settings are values and bounds"},
	"drill":    {[]string{"model", "api", "internal/disposable"}, "a drill looks at breakerd from outside"},

	"cmd/breakerd":         {[]string{"model", "settings", "daemon", "history"}, "main only starts the daemon, and gives it what keeps its history"},
	"cmd/breaker-enforcer": {[]string{"model", "enforce", "systemd"}, "the enforcer must be small enough to read"},
	"cmd/breakerctl": {[]string{"model", "api", "bundle", "detect", "policy", "policy/workshop", "judge", "breaker", "workload", "recording", "host", "settings", "config", "drill", "safetext", "enforce", "report"},
		"the command line asks breakerd, judges recordings itself, and can let go without breakerd"},

	"e2e/owner":           {nil, "the programs are tested from outside, with the client that breakerd has"},
	"e2e":                 {nil, "the programs are tested from outside"},
	"internal/bearer":     {nil, "a token is shown to whatever server"},
	"internal/cputime":    {nil, "what something costs is measured in one way"},
	"internal/peercred":   {nil, "who is at the other end of a socket is known before anything is said"},
	"internal/disposable": {nil, "what is made for a while belongs to nobody who sees, decides or touches"},
	"internal/kerneltest": {[]string{"model", "cgroupctl"}, "tests share scratch cgroups"},
	"internal/manual":     {nil, "pages are made of what commands and documents say"},
	"cgroupctl/suite":     {[]string{"model", "cgroupctl"}, "one suite for every writer of cgroups"},
}

// closed says what a package must not reach, also not through others.
var closed = map[string]struct {
	to  []string
	why string
}{
	"enforce":              {[]string{"github.com/open-policy-agent/", "net/http", "github.com/cilium/ebpf"}, "what touches cannot decide, serve or see"},
	"cgroupctl":            {[]string{"github.com/open-policy-agent/", "net/http", "github.com/cilium/ebpf"}, "what touches cannot decide, serve or see"},
	"cgroupctl/unit":       {[]string{"github.com/open-policy-agent/", "net/http", "github.com/cilium/ebpf"}, "what touches cannot decide, serve or see"},
	"cmd/breaker-enforcer": {[]string{"github.com/open-policy-agent/", "net/http", "github.com/cilium/ebpf"}, "what touches cannot decide, serve or see"},
	"bpf":                  {[]string{module + "cgroupctl", module + "enforce"}, "what sees cannot touch"},
	"host":                 {[]string{module + "cgroupctl", module + "enforce"}, "what sees cannot touch"},
	"observe":              {[]string{module + "cgroupctl", module + "enforce"}, "what sees cannot touch"},
	"breaker":              {[]string{module + "cgroupctl", module + "enforce", module + "bpf", module + "host"}, "what decides sees only samples and touches nothing"},
	"judge":                {[]string{module + "cgroupctl", module + "enforce", module + "bpf", module + "host"}, "what decides sees only samples and touches nothing"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImportsKeepToTheHouseRule(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == strings.TrimSuffix(module, "/") || strings.HasPrefix(name, "bench") {
			continue
		}
		room, known := rooms[name]
		if !known {
			t.Errorf("%s has no place in the house: say in rooms what it may import, and why", name)
			continue
		}
		for _, imported := range p.Imports {
			other, ours := strings.CutPrefix(imported, module)
			if ours && !slices.Contains(room.may, other) {
				t.Errorf("%s imports %s, and may only import %v: %s", name, other, room.may, room.why)
			}
		}
		for _, dep := range p.Deps {
			for _, door := range closed[name].to {
				if dep == door || strings.HasPrefix(dep, strings.TrimSuffix(door, "/")+"/") {
					t.Errorf("%s reaches %s: %s", name, dep, closed[name].why)
				}
			}
		}
	}
}

func packages(t *testing.T) []pkg {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	list.Stderr = t.Output()
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
