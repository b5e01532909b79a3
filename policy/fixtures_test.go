package policy

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/breakerd/breakerd/model"
)

// stormIncident is a fork storm as the detector reports it, with every field set.
func stormIncident() *model.Incident {
	return &model.Incident{
		ID:       "fork_storm-1a2b3c-1",
		Kind:     model.ForkStorm,
		State:    model.Open,
		OpenedAt: time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC),
		Severity: 0.82,
		Level:    model.Critical,
		Summary:  "bash (pid 4711) forks 612 processes a second and keeps 40 of them; nginx.service waits.",
		Culprit: model.Culprit{
			Cgroup: "/user.slice/user-1000.slice/session-4.scope", CgroupID: 18446744073709551557,
			Unit: "session-4.scope", Scope: model.ScopeTree,
			Root: model.CulpritRoot{
				ProcID: model.ProcID{PID: 4711, StartTime: 812345},
				Comm:   "bash", Cmdline: "bash -c :(){ :|:& };:",
			},
			Processes: 412, UID: 1000, Outside: 3, Share: 0.97,
			Workload: model.Workload{
				Kind: model.Session, Unit: "session-4.scope", Slice: "user-1000.slice", Manager: "user@1000.service",
				Container: "3f2a", Runtime: "podman", PodUID: "1d2f3a4b-0f5e-4a9e-9d0b-8f5c1c1e5c6d",
			},
		},
		Estimated: true, Confidence: 0.9, Margin: 0.4,
		Victims: []model.Victim{
			{Cgroup: "/system.slice/nginx.service", CgroupID: 4242, Unit: "nginx.service", Resource: model.CPU, StallMS: 913.25, Workload: model.Workload{
				Kind: model.Service, Unit: "nginx.service", Slice: "system.slice", Manager: "user@33.service",
				Container: "9a", Runtime: "docker", PodUID: "1b",
			}},
			{Cgroup: "/system.slice/postgresql.service", CgroupID: 4243, Unit: "postgresql.service", Resource: model.CPU, StallMS: 120},
			{Cgroup: "/system.slice/cron.service", CgroupID: 4244, Unit: "cron.service", Resource: model.CPU, StallMS: 4},
		},
		Evidence: map[string]float64{
			"forks_per_second": 612, "exits_per_second": 572, "net_growth_per_second": 40,
			"processes": 412, "host_cpu_some_percent": 63.5,
		},
	}
}

func stormHost() model.Host {
	return model.Host{CPUs: 2, Processes: 655, MemTotalBytes: 8 << 30, MemAvailBytes: 5 << 30}
}

// stormBreaker is that of one which was held twice, and to no use.
func stormBreaker(now time.Time) model.Breaker {
	return model.Breaker{
		Cgroup: "/user.slice/user-1000.slice/session-4.scope", State: model.BreakerHalfOpen, Generation: 5,
		Since: now.Add(-3 * time.Second), Opened: 2, Rung: 1, LastEffect: model.EffectNone, LastEnd: model.EndNoRelief,
		Resting: []model.Rest{{Kind: model.ForkStorm, Until: now.Add(time.Minute), Refuted: true}},
	}
}

func stormInput() Input {
	inc := stormIncident()
	return InputOf(inc, stormBreaker(inc.OpenedAt), stormHost(), inc.OpenedAt.Add(750*time.Millisecond))
}

// files is a folder of policies; a name without an ending becomes a .rego file.
func files(nameAndText ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(nameAndText); i += 2 {
		m[nameAndText[i]] = &fstest.MapFile{Data: []byte(nameAndText[i+1])}
	}
	return m
}

// mustLoad compiles one policy, or several in files.
func mustLoad(t testing.TB, nameAndText ...string) *Set {
	t.Helper()
	s, err := LoadFS(files(nameAndText...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func termOf(v ast.Value) *ast.Term { return ast.NewTerm(v) }
