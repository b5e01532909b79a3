package judge

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/model"
)

// other is a cgroup that makes others wait, too.
const other model.CgroupID = 80

const freezeCgroup = `package breaker.test

import rego.v1

action contains {"kind": "throttle", "scope": "cgroup", "for": "20s", "cpu_percent": 50, "reason": "too loud",
	"then": [{"kind": "freeze", "for": "10s"}]} if {
	input.incident.kind == "noisy_neighbour"
	not input.breaker.refuted
}
`

// crowd is a tick in which cgroups make the service wait for so many ms/s.
func (s *scene) crowd(by map[model.CgroupID]int) *model.Sample {
	sample := s.sample(bomb, job, 0)
	perTick := func(ms int) uint64 { return uint64(ms) * uint64(tick) / 1000 }
	sample.Cgroups = []model.CgroupSample{
		{ID: system, Path: "/system", RunNS: perTick(200)},
		{ID: job, Path: "/job"}, {ID: other, Path: "/other"},
	}
	for i := range sample.Cgroups {
		c := &sample.Cgroups[i]
		if ms := by[c.ID]; ms > 0 {
			c.RunNS = perTick(800)
			sample.Waits = append(sample.Waits,
				model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: c.ID, Victim: system, NS: perTick(ms)},
				model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: system, Victim: c.ID, NS: perTick(ms)})
		}
	}
	return sample
}

// crowded goes on for so many ticks, or until something is wanted.
func (s *scene) crowded(t *testing.T, ticks int, by map[model.CgroupID]int) (all []Event) {
	t.Helper()
	for range ticks {
		events := s.judge.Sample(t.Context(), s.crowd(by))
		all = append(all, events...)
		if len(wanted(events)) > 0 {
			return all
		}
	}
	return all
}

func (s *scene) answer(t *testing.T, d *model.Decision) {
	t.Helper()
	s.judge.Outcome(model.Outcome{DecisionID: d.ID, LeaseID: d.ID})
	if b := s.breaker(t); b.State != model.BreakerOpen {
		t.Fatalf("the breaker is %s", b.State)
	}
}

func (s *scene) breaker(t *testing.T) model.Breaker {
	t.Helper()
	all := s.judge.Breakers()
	if len(all) != 1 || all[0].Cgroup != "/job" {
		t.Fatalf("breakers %+v, want that of /job", all)
	}
	return all[0]
}

func only(events []Event, types ...EventType) (found []Event) {
	for _, e := range events {
		for _, is := range types {
			if e.Type == is {
				found = append(found, e)
			}
		}
	}
	return found
}

func TestTheVictimsSayWhetherItHelps(t *testing.T) {
	loud := map[model.CgroupID]int{job: 800}
	for _, tt := range []struct {
		name   string
		held   map[model.CgroupID]int // who makes the victim wait while the culprit is held
		effect model.Effect
	}{
		{"nobody makes it wait any more", nil, model.EffectRelieved},
		{"somebody else does, as much: it was not the culprit", map[model.CgroupID]int{other: 800}, model.EffectNone},
		{"somebody else does, a little", map[model.CgroupID]int{other: 300}, model.EffectRelieved},
		{"the culprit does, a bit less", map[model.CgroupID]int{job: 500}, model.EffectPartial},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(policies(t, freezeCgroup))
			d := wanted(s.crowded(t, 40, loud))
			if len(d) != 1 || d[0].Action.Kind != model.Throttle || len(d[0].Action.Then) != 1 {
				t.Fatalf("decisions %+v, want the first rung", d)
			}
			s.answer(t, d[0])
			events := s.crowded(t, 14, tt.held)
			b := s.breaker(t)
			if b.LastEffect != tt.effect || b.Before.CulpritMS < 700 || b.Before.CulpritMS > 900 {
				t.Errorf("effect %s of %+v to %+v, want %s", b.LastEffect, b.Before, b.After, tt.effect)
			}
			if n := len(only(events, Measured)); n != 1 {
				t.Errorf("measured %d times", n)
			}
		})
	}
}

func TestNoReliefGoesOnToTheNextRungThenLetsGoAndRefutes(t *testing.T) {
	loud := map[model.CgroupID]int{job: 800}
	s := newScene(policies(t, freezeCgroup))
	first := wanted(s.crowded(t, 40, loud))[0]
	s.answer(t, first)
	second := wanted(s.crowded(t, 20, loud))
	if len(second) != 1 || second[0].After != first.ID || second[0].Action.Kind != model.Freeze {
		t.Fatalf("decisions %+v, want the freeze after %s", second, first.ID)
	}
	s.judge.Ended(model.LeaseEnd{LeaseID: first.ID, Reason: model.EndReplaced})
	s.answer(t, second[0])
	events := s.crowded(t, 20, map[model.CgroupID]int{other: 900})
	undone := only(events, Undone)
	if len(undone) != 1 || *undone[0].Release != (breaker.Release{LeaseID: second[0].ID, Reason: model.EndNoRelief}) {
		t.Fatalf("events %v, want the lease undone", types(events))
	}
	s.judge.Ended(model.LeaseEnd{LeaseID: second[0].ID, Reason: model.EndNoRelief})
	events = s.crowded(t, 80, map[model.CgroupID]int{other: 900, job: 850})
	if d := wanted(events); len(d) != 0 {
		t.Errorf("wanted %+v of one that is refuted, or of the next candidate", d[0].Target)
	}
	chased := false
	for _, in := range s.judge.Open() {
		for _, r := range in.Decisions {
			chased = chased || in.Culprit.CgroupID == other && r.RefusedBy == "breaker" && strings.Contains(r.Reason, "the same victims")
		}
	}
	if !chased && len(s.judge.Open()) > 1 {
		t.Error("that the next candidate is left alone is not told")
	}
}

func TestAfterALeaseItsVictimsDecideWhetherItIsHeldAgain(t *testing.T) {
	loud := map[model.CgroupID]int{job: 800}
	s := newScene(policies(t, freezeCgroup))
	d := wanted(s.crowded(t, 40, loud))[0]
	s.answer(t, d)
	s.crowded(t, 60, nil)
	s.judge.Ended(model.LeaseEnd{LeaseID: d.ID, Reason: model.EndExpired})
	if got := wanted(s.crowded(t, 20, map[model.CgroupID]int{job: 200})); len(got) != 0 {
		t.Fatalf("held again for less than half of what it was: %+v", got[0])
	}
	again := wanted(s.crowded(t, 30, loud))
	if len(again) != 1 || again[0].Action.For() != 2*d.Action.For() {
		t.Errorf("decisions %+v, want one for twice the time", again)
	}
}

// A recording that began with what was known replays to the same, ends of leases and all.
func TestBreakersOfASnapshotGoOnAsTheOthersDo(t *testing.T) {
	loud := map[model.CgroupID]int{job: 800}
	s := newScene(policies(t, freezeCgroup))
	d := wanted(s.crowded(t, 40, loud))[0]
	s.answer(t, d)
	s.crowded(t, 2, nil)
	text, err := s.judge.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	set, err := breaker.Load(breaker.DefaultConfig(), text)
	if err != nil {
		t.Fatal(err)
	}
	second := New(detect.DefaultConfig(), s.judge.policies, func(string) model.Workload { return model.Workload{} })
	second.Remember(set)
	key := s.judge.Keyframe()
	second.Sample(t.Context(), &key)
	for i := range 120 {
		sample := s.crowd(map[model.CgroupID]int{other: 40})
		a, b := s.judge.Sample(t.Context(), sample), second.Sample(t.Context(), sample)
		if i == 60 {
			end := model.LeaseEnd{LeaseID: d.ID, Reason: model.EndExpired}
			a, b = append(a, s.judge.Ended(end)...), append(b, second.Ended(end)...)
		}
		if diff := cmp.Diff(only(a, Switched, Measured, Undone), only(b, Switched, Measured, Undone)); diff != "" {
			t.Fatalf("tick %d: %s", i, diff)
		}
	}
	first, _ := json.Marshal(s.judge.Breakers())
	other, _ := json.Marshal(second.Breakers())
	if string(first) != string(other) {
		t.Errorf("in the end\n%s\n%s", first, other)
	}
}

func TestAfterAFreshStartNothingIsAskedForForAWhile(t *testing.T) {
	s := newScene(policies(t, freezeTree))
	set := breaker.New(breaker.DefaultConfig())
	set.Restart(time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC))
	s.judge.Remember(set)
	d := wanted(s.storm(t, 30))
	if len(d) == 0 || d[0].At.Sub(time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)) < 5*time.Second {
		t.Fatalf("decisions %+v, want the first after 5 s", d)
	}
	if r := s.incident(t).Decisions; len(r) == 0 || r[0].RefusedBy != "breaker" || !strings.Contains(r[0].Reason, "just started") {
		t.Errorf("records %+v, want why nothing was done before", r)
	}
}
