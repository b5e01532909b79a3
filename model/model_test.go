package model

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Other people's programs read these names. They change only with a reason that is
// written down.
func TestTheJSONOfAnIncidentIsWhatWasPromised(t *testing.T) {
	opened := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	in := Incident{
		ID: "e25cbbedd905", Kind: ForkStorm, State: Open, OpenedAt: opened, Severity: 0.7, Level: Critical, Summary: "…", Estimated: true, Confidence: 0.6, Margin: 0.4,
		Culprit: Culprit{
			Cgroup: "/a", CgroupID: 7, Unit: "a.service", Workload: Workload{Kind: Service, Unit: "a.service"}, Scope: ScopeTree, Processes: 3, UID: 1000, Outside: 1, Share: 0.9,
			Root: CulpritRoot{ProcID: ProcID{PID: 12, StartTime: 34}, Comm: "sh", Cmdline: "sh -c x"},
		},
		Victims:      []Victim{{Cgroup: "/b", CgroupID: 8, Unit: "b.service", Workload: Workload{Kind: Container, Unit: "b.service", Container: "0123", Runtime: "podman"}, Resource: CPU, StallMS: 1.5}},
		Evidence:     map[string]float64{"forks_per_second": 90},
		Contributors: []Contributor{{Cgroup: "/a", CgroupID: 7, Share: 1}},
		Decisions: []DecisionRecord{{
			ID: "e25cbbedd905-1", At: opened, Action: Freeze, Scope: ScopeTree, ForMS: 2000, DryRun: true,
			RefusedBy: "rate", Reason: "too many", Policy: "breaker.x", LeaseID: "e25cbbedd905-1",
		}},
	}
	got, err := json.MarshalIndent(in, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
  "id": "e25cbbedd905",
  "kind": "fork_storm",
  "state": "open",
  "opened_at": "2026-01-02T03:04:05Z",
  "closed_at": null,
  "severity": 0.7,
  "level": "critical",
  "summary": "…",
  "estimated": true,
  "confidence": 0.6,
  "margin": 0.4,
  "culprit": {
    "cgroup": "/a",
    "cgroup_id": 7,
    "unit": "a.service",
    "workload": {
      "kind": "service",
      "unit": "a.service"
    },
    "scope": "tree",
    "root": {
      "pid": 12,
      "start_time": 34,
      "comm": "sh",
      "cmdline": "sh -c x"
    },
    "processes": 3,
    "uid": 1000,
    "outside": 1,
    "share": 0.9
  },
  "victims": [
    {
      "cgroup": "/b",
      "cgroup_id": 8,
      "unit": "b.service",
      "workload": {
        "kind": "container",
        "unit": "b.service",
        "container": "0123",
        "runtime": "podman"
      },
      "resource": "cpu",
      "stall_ms": 1.5
    }
  ],
  "evidence": {
    "forks_per_second": 90
  },
  "contributors": [
    {
      "cgroup": "/a",
      "cgroup_id": 7,
      "share": 1
    }
  ],
  "decisions": [
    {
      "id": "e25cbbedd905-1",
      "at": "2026-01-02T03:04:05Z",
      "action": "freeze",
      "scope": "tree",
      "for_ms": 2000,
      "dry_run": true,
      "refused_by": "rate",
      "reason": "too many",
      "policy": "breaker.x",
      "lease_id": "e25cbbedd905-1"
    }
  ]
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestACloneSharesNothing(t *testing.T) {
	closed := time.Unix(1, 0)
	in := Incident{
		ClosedAt: &closed, Victims: []Victim{{Cgroup: "/b"}}, Evidence: map[string]float64{"x": 1},
		Contributors: []Contributor{{Cgroup: "/a"}}, Decisions: []DecisionRecord{{ID: "1"}},
	}
	c := in.Clone()
	*in.ClosedAt, in.Victims[0].Cgroup, in.Evidence["x"], in.Contributors[0].Cgroup, in.Decisions[0].ID = time.Unix(2, 0), "", 2, "", ""
	if !c.ClosedAt.Equal(time.Unix(1, 0)) || c.Victims[0].Cgroup != "/b" || c.Evidence["x"] != 1 || c.Contributors[0].Cgroup != "/a" || c.Decisions[0].ID != "1" {
		t.Errorf("the clone changed with the incident: %+v", c)
	}
}

func TestAModeIsAModeToTheLetter(t *testing.T) {
	for _, m := range []Mode{Monitor, DryRun, Enforce} {
		if got, err := ParseMode(string(m)); err != nil || got != m {
			t.Errorf("%s: got %q, %v", m, got, err)
		}
	}
	for _, s := range []string{"", "Enforce", "enforce ", "enforced", "dryrun", "on"} {
		if m, err := ParseMode(s); err == nil {
			t.Errorf("%q is taken for %s", s, m)
		}
	}
}

func TestLevels(t *testing.T) {
	for severity, want := range map[float64]Level{0: Info, 0.29: Info, 0.3: Warning, 0.69: Warning, 0.7: Critical, 1: Critical} {
		if got := LevelOf(severity); got != want {
			t.Errorf("severity %v is %s, want %s", severity, got, want)
		}
	}
}
