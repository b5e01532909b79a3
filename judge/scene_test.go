package judge

import (
	"testing"
	"time"

	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
)

const tick = 250 * time.Millisecond

// Cgroups of the scene.
const (
	job    model.CgroupID = 60
	system model.CgroupID = 70
)

// scene feeds a judge the samples of a machine on which one process forks.
type scene struct {
	judge   *Judge
	boot    time.Duration
	nextPID int32
	found   bool
	events  []Event // of the last tick, or outcome
}

var (
	pid1 = model.ProcID{PID: 1, StartTime: 1}
	bomb = model.ProcID{PID: 100, StartTime: 100}
	peer = model.ProcID{PID: 101, StartTime: 100}
)

func newScene(policies *policy.Set) *scene {
	name := func(path string) model.Workload { return model.Workload{Unit: "unit-of" + path} }
	return &scene{judge: New(detect.DefaultConfig(), policies, name), boot: time.Hour, nextPID: 1000}
}

// sample is a tick in which a process makes so many others.
func (s *scene) sample(parent model.ProcID, cgroup model.CgroupID, forks int) *model.Sample {
	s.boot += tick
	sample := &model.Sample{
		Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(s.boot), BootNS: int64(s.boot), LengthNS: int64(tick),
		Host: model.Host{BootID: "5f0c", CPUs: 2, PressureAbsent: true},
	}
	if !s.found {
		s.found = true
		sample.Keyframe = true
		sample.Procs.Forked = []model.Proc{
			{ProcID: pid1, Cgroup: 1, Comm: "init", Found: true},
			{ProcID: bomb, Parent: pid1, Cgroup: job, Comm: "bomb", UID: 1000, Found: true},
			{ProcID: peer, Parent: pid1, Cgroup: job, Comm: "peer", Found: true},
		}
	}
	for range forks {
		s.nextPID++
		sample.Procs.Forked = append(sample.Procs.Forked, model.Proc{ProcID: model.ProcID{PID: s.nextPID, StartTime: 200}, Parent: parent, Cgroup: cgroup, Comm: "child"})
	}
	if forks > 0 {
		sample.Cgroups = []model.CgroupSample{{ID: cgroup, Path: "/job", Forks: uint64(forks)}}
	}
	return sample
}

// storm lets the bomb fork for so many ticks, and gives the events of them all.
func (s *scene) storm(t testing.TB, ticks int) []Event {
	t.Helper()
	var all []Event
	for range ticks {
		s.events = s.judge.Sample(t.Context(), s.sample(bomb, job, 20))
		all = append(all, s.events...)
	}
	return all
}

// opened lets the storm go on until its incident opens.
func (s *scene) opened(t testing.TB) []Event {
	t.Helper()
	for range 20 {
		if events := s.storm(t, 1); len(events) > 0 {
			return events
		}
	}
	t.Fatal("no incident opened")
	return nil
}

// calm lets nothing happen for so many ticks.
func (s *scene) calm(t testing.TB, ticks int) []Event {
	t.Helper()
	var all []Event
	for range ticks {
		all = append(all, s.judge.Sample(t.Context(), s.sample(bomb, job, 0))...)
	}
	return all
}

func (s *scene) incident(t testing.TB) model.Incident {
	t.Helper()
	open := s.judge.Open()
	if len(open) != 1 {
		t.Fatalf("%d incidents are open, want 1", len(open))
	}
	return open[0]
}

func policies(t testing.TB, text string) *policy.Set {
	t.Helper()
	set, err := policy.LoadSources(map[string]string{"test.rego": text})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const freezeTree = `package breaker.test

import rego.v1

action contains {"kind": "freeze", "scope": "tree", "for": "10s", "reason": "a storm"} if {
	input.incident.kind == "fork_storm"
}
`

func wanted(events []Event) []*model.Decision {
	var all []*model.Decision
	for _, e := range events {
		if e.Type == Wanted {
			all = append(all, e.Decision)
		}
	}
	return all
}

func types(events []Event) []EventType {
	var all []EventType
	for _, e := range events {
		all = append(all, e.Type)
	}
	return all
}
