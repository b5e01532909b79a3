package history

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// start is the time of the first incident of a scene.
var start = time.Now().Add(-2 * time.Hour).UTC().Truncate(time.Millisecond)

// running is a store at work.
type running struct {
	*Store
	t      testing.TB
	dir    string
	cancel context.CancelFunc

	mu   sync.Mutex
	told []model.HistoryState
}

// run opens a history in a folder, until the test ends or it is stopped.
func run(t testing.TB, dir string, change ...func(*Options)) *running {
	t.Helper()
	r := &running{t: t, dir: dir}
	o := Options{Dir: dir, MaxAge: 30 * 24 * time.Hour, MaxBytes: 1 << 30, Tell: func(s model.HistoryState) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told = append(r.told, s)
	}}
	for _, c := range change {
		c(&o)
	}
	r.Store = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go r.Run(ctx)
	t.Cleanup(r.stop)
	return r
}

// stop ends it in good order.
func (r *running) stop() {
	r.cancel()
	<-r.ended
}

// written waits until everything that was told is in the file.
func (r *running) written() {
	r.t.Helper()
	done := make(chan struct{})
	select {
	case r.asks <- done:
		<-done
	case <-r.ended:
		r.t.Fatal("the history has ended")
	}
}

func (r *running) file() string { return filepath.Join(r.dir, fileName) }

func (r *running) incidents(f model.IncidentFilter) []model.Incident {
	r.t.Helper()
	all, err := r.Incidents(context.Background(), f)
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *running) story(id string) model.Story {
	r.t.Helper()
	s, err := r.Story(context.Background(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// incident is the n-th of a scene: one a minute.
func incident(n int) model.Incident {
	at := start.Add(time.Duration(n) * time.Minute)
	cgroup := fmt.Sprintf("/user.slice/user-%d.slice/session-%d.scope", 1000+n%7, n)
	return model.Incident{
		ID: fmt.Sprintf("%012x", 0xabc000000000+n), Kind: model.Kinds[n%len(model.Kinds)], State: model.Open, OpenedAt: at,
		Severity: float64(n%10) / 10, Level: model.LevelOf(float64(n%10) / 10), Confidence: 0.9,
		Summary: fmt.Sprintf("The process tree of make[%d] in %s makes /system.slice/web.service wait for a CPU: %d ms in each second, measured.", 1000+n, cgroup, 100+n%900),
		Culprit: model.Culprit{
			Cgroup: cgroup, CgroupID: model.CgroupID(1000 + n), Unit: fmt.Sprintf("session-%d.scope", n), Scope: model.ScopeTree,
			Workload: model.Workload{Kind: model.Session, Unit: fmt.Sprintf("session-%d.scope", n)},
			Root:     model.CulpritRoot{ProcID: model.ProcID{PID: int32(1000 + n), StartTime: uint64(5000 + n)}, Comm: "make", Cmdline: "make -j16 all"},
			Share:    0.93, Processes: 17, UID: 1000,
		},
		Victims:      []model.Victim{{Cgroup: "/system.slice/web.service", CgroupID: 77, Unit: "web.service", Resource: model.CPU, StallMS: 120.5}},
		Evidence:     map[string]float64{"stall_ms_per_second": float64(100 + n%900)},
		Contributors: []model.Contributor{{Cgroup: cgroup, CgroupID: model.CgroupID(1000 + n), Share: 0.93}},
		Triage: &model.Triage{
			Cause: "make of session runs as much as it can.", Processes: []model.ProcessFigures{{ProcID: model.ProcID{PID: int32(1000 + n), StartTime: 5}, Comm: "make", Cgroup: cgroup, CgroupID: model.CgroupID(1000 + n)}},
			Cgroups: []model.CgroupFigures{}, Blame: []model.BlamePair{}, Forks: []model.ProcessEvent{}, Execs: []model.ProcessEvent{},
		},
	}
}

func closed(in model.Incident, after time.Duration) model.Incident {
	in = in.Clone()
	at := in.OpenedAt.Add(after)
	in.State, in.ClosedAt = model.Closed, &at
	return in
}

// verdict is the n-th about an incident. Neighbours differ, so that each is kept.
func verdict(in *model.Incident, n int) model.Verdict {
	at := in.OpenedAt.Add(time.Duration(n) * time.Second)
	v := model.Verdict{
		IncidentID: in.ID, PolicyHash: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", EvalUS: int64(60 + n*13%50), Confidence: 0.9,
		Target:         &model.Target{Cgroup: in.Culprit.Cgroup, CgroupID: in.Culprit.CgroupID, Root: in.Culprit.Root.ProcID, Scope: model.ScopeTree},
		DecisionRecord: model.DecisionRecord{ID: fmt.Sprintf("%s-%d", in.ID, n), At: at, Action: model.Freeze, Scope: model.ScopeTree, ForMS: 60_000, DryRun: true, Policy: "breaker.storms"},
	}
	switch n % 4 {
	case 0:
		v.RefusedBy, v.Reason = "grace", fmt.Sprintf("the incident has been open for %.2fs, and nothing is done before 15s (grace)", float64(n)*1.27)
	case 1:
		v.RefusedBy, v.Reason = "cooldown", fmt.Sprintf("%s was let go %.2fs ago, and is left in peace for 1m (cooldown)", in.Culprit.Cgroup, float64(n)*3.17)
	case 2:
		v.RefusedBy, v.Reason = "bystanders", fmt.Sprintf("%d of the %d processes in %s are not of the tree of %d: %d (bash)", n, 17+n, in.Culprit.Cgroup, in.Culprit.Root.PID, 900+7*n)
	case 3:
		v.LeaseID, v.Reason = v.ID, "a storm"
	}
	return v
}

// lease is that of a decision about an incident.
func lease(in *model.Incident, n int, state model.LeaseState) model.Lease {
	v := verdict(in, n)
	at := v.At
	l := model.Lease{
		Version: model.LeaseVersion, ID: v.ID, State: state, DryRun: true, CreatedAt: at, HeldAt: &at, ExpiresAt: at.Add(time.Minute),
		Decision: model.Decision{ID: v.ID, IncidentID: in.ID, Kind: in.Kind, At: at, Policy: v.Policy, Target: *v.Target, Action: model.Action{Kind: model.Freeze, Scope: model.ScopeTree, ForMS: 60_000, Reason: "a storm"}},
	}
	if state == model.LeaseEnded {
		ended := at.Add(time.Minute)
		l.EndedAt, l.EndReason = &ended, model.EndExpired
	}
	return l
}

// sample is a tick of 250 ms so long after the start, in which a cgroup ran.
func sample(after time.Duration, cgroup model.CgroupID) *model.Sample {
	return &model.Sample{
		Time: start.Add(after), BootNS: int64(time.Hour + after), LengthNS: int64(250 * time.Millisecond),
		Host:    model.Host{BootID: "5f0c", CPUs: 4, Pressure: model.Pressure{CPU: model.Stall{SomeUS: uint64((time.Hour + after).Microseconds()) / 2}}},
		Cgroups: []model.CgroupSample{{ID: 1, RunNS: 5}, {ID: cgroup, Path: "/job", RunNS: 200e6, Forks: 3}},
	}
}
