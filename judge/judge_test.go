package judge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
)

func TestWithoutPoliciesNothingIsEverWanted(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
	}{
		{"none at all", ""},
		{"a module without an action", "package breaker.test\n\nimport rego.v1\n\nx := 1\n"},
		{"one that is silent about it", strings.ReplaceAll(freezeTree, "fork_storm", "memory_leak")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(nil)
			if tt.text != "" {
				s = newScene(policies(t, tt.text))
			}
			events := append(s.opened(t), s.storm(t, 20)...)
			if diff := cmp.Diff([]EventType{Opened}, types(events)); diff != "" {
				t.Error(diff)
			}
			if in := s.incident(t); len(in.Decisions) != 0 {
				t.Errorf("decisions %+v, want none", in.Decisions)
			}
		})
	}
}

func TestAnErrorIsThatOfItsPolicy(t *testing.T) {
	s := newScene(policies(t, strings.ReplaceAll(freezeTree, `"for": "10s"`, `"for": sprintf("%ds", [1 / (input.host.cpus - input.host.cpus)])`)))
	s.opened(t)
	if d := s.incident(t).Decisions; len(d) != 1 || d[0].Policy != "breaker.test" || !strings.HasSuffix(d[0].Error, "divide by zero") {
		t.Errorf("decisions %+v, want the error with whose it is", d)
	}
}

func TestADecisionNamesWhatItWouldActOn(t *testing.T) {
	tests := []struct {
		name  string
		scope string // that the policy asks for
		storm func(*testing.T, *scene) []Event
		want  model.Target
	}{
		{
			name: "the tree", scope: "tree",
			storm: func(t *testing.T, s *scene) []Event { return s.opened(t) },
			want:  model.Target{Cgroup: "/job", CgroupID: job, Root: bomb, Scope: model.ScopeTree, Outside: 1},
		},
		{
			name: "the cgroup of the tree, which hits the peer too", scope: "cgroup",
			storm: func(t *testing.T, s *scene) []Event { return s.opened(t) },
			want:  model.Target{Cgroup: "/job", CgroupID: job, Root: bomb, Scope: model.ScopeCgroup, Outside: 1},
		},
		{
			name: "the whole cgroup where no tree answers alone", scope: "cgroup",
			storm: twoTrees,
			want:  model.Target{Cgroup: "/job", CgroupID: job, Root: bomb, Scope: model.ScopeCgroup, Outside: 0},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := detect.DefaultConfig()
			cfg.ForkStorm.ForksPerSecond = 6
			s := newScene(policies(t, strings.ReplaceAll(freezeTree, `"scope": "tree"`, fmt.Sprintf(`"scope": %q`, tt.scope))))
			s.judge = New(cfg, s.judge.policies, func(string) model.Workload { return model.Workload{} })
			d := wanted(tt.storm(t, s))
			if len(d) != 1 {
				t.Fatalf("%d decisions, want 1", len(d))
			}
			if diff := cmp.Diff(tt.want, d[0].Target); diff != "" {
				t.Error(diff)
			}
			if d[0].Policy != "breaker.test" || d[0].PolicyHash != s.judge.policies.Hash() || d[0].IncidentID != s.incident(t).ID {
				t.Errorf("decision %+v does not say where it comes from", d[0])
			}
		})
	}
}

// twoTrees make half of a storm each, and neither exceeds the threshold alone.
func twoTrees(t *testing.T, s *scene) (all []Event) {
	for range 20 {
		sample := s.sample(bomb, job, 2)
		sample.Procs.Forked[len(sample.Procs.Forked)-1].Parent = peer
		all = append(all, s.judge.Sample(t.Context(), sample)...)
	}
	return all
}

// Where no tree answers for the cause, nobody knows who of the cgroup has no part in it.
func TestAPolicyThatAsksForATreeDoesNotGetAWholeCgroup(t *testing.T) {
	cfg := detect.DefaultConfig()
	cfg.ForkStorm.ForksPerSecond = 6
	s := newScene(policies(t, freezeTree))
	s.judge = New(cfg, s.judge.policies, func(string) model.Workload { return model.Workload{} })
	if d := wanted(twoTrees(t, s)); len(d) != 0 {
		t.Fatalf("wanted %+v", d[0].Target)
	}
	if d := s.incident(t).Decisions; len(d) != 1 || d[0].RefusedBy != "bystanders" {
		t.Errorf("decisions %+v, want one that says why not", d)
	}
}

func TestADenyIsRecordedOnce(t *testing.T) {
	s := newScene(policies(t, freezeTree+"\ndeny contains \"on call\" if input.incident.culprit.uid == 1000\n"))
	events := append(s.opened(t), s.storm(t, 20)...)
	if diff := cmp.Diff([]EventType{Opened, Decided}, types(events)); diff != "" {
		t.Error(diff)
	}
	in := s.incident(t)
	if len(in.Decisions) != 1 {
		t.Fatalf("%d decisions, want 1", len(in.Decisions))
	}
	want := model.DecisionRecord{At: in.OpenedAt, Action: model.NoAction, RefusedBy: "policy", Reason: "on call", Policy: "breaker.test"}
	if diff := cmp.Diff(want, in.Decisions[0]); diff != "" {
		t.Error(diff)
	}
}

func TestAPolicyThatFailsIsRecordedOnceAndNothingIsWanted(t *testing.T) {
	s := newScene(policies(t, freezeTree+`
action contains {"kind": "freeze", "scope": "tree", "for": input.incident.culprit.cgroup, "reason": "x"}
`))
	events := append(s.opened(t), s.storm(t, 20)...)
	if diff := cmp.Diff([]EventType{Opened, Decided}, types(events)); diff != "" {
		t.Error(diff)
	}
	if d := s.incident(t).Decisions; len(d) != 1 || d[0].Error == "" || d[0].Action != model.NoAction {
		t.Errorf("decisions %+v, want one that says what is wrong with the policy", d)
	}
}

func TestNobodyIsHeldForWhatIsOverThoughTheIncidentIsStillOpen(t *testing.T) {
	s := newScene(policies(t, freezeTree))
	d := wanted(s.opened(t))
	if len(d) != 1 {
		t.Fatalf("%d decisions as it opened, want 1", len(d))
	}
	s.judge.Outcome(model.Outcome{DecisionID: d[0].ID, RefusedBy: "rate", Reason: "too many"})
	quiet := 0
	for range 40 {
		events := s.judge.Sample(t.Context(), s.sample(bomb, job, 0))
		if len(s.judge.Open()) == 0 {
			break
		}
		// For the first second the storm is still within what is looked at.
		if quiet++; quiet > 4 && len(wanted(events)) > 0 {
			t.Fatalf("asked for %d ticks after the storm was over", quiet)
		}
	}
	if quiet < 16 {
		t.Errorf("the incident closed after %d quiet ticks, want it open for some seconds more", quiet)
	}
}

func TestWhenAnIncidentIsPutToThePoliciesAgain(t *testing.T) {
	tests := []struct {
		name    string
		outcome model.Outcome
		again   time.Duration
	}{
		{"a refusal: after a second", model.Outcome{RefusedBy: "rate", Reason: "too many"}, time.Second},
		{"an error: after 5 s", model.Outcome{Error: "the enforcer does not answer"}, 5 * time.Second},
		{"a lease in a dry run: once its time is up and it has begun again", model.Outcome{LeaseID: "x", DryRun: true}, 12*time.Second + tick},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(policies(t, freezeTree))
			d := wanted(s.opened(t))
			if len(d) != 1 {
				t.Fatalf("%d decisions as it opened, want 1", len(d))
			}
			if more := wanted(s.storm(t, 8)); len(more) != 0 {
				t.Fatalf("asked for again before the outcome: %+v", more[0])
			}
			// The outcome comes 2 s late; the time counts from the decision.
			tt.outcome.DecisionID = d[0].ID
			told := []EventType{Decided}
			if tt.outcome.LeaseID != "" {
				told = append(told, Switched)
			}
			if diff := cmp.Diff(told, types(s.judge.Outcome(tt.outcome))); diff != "" {
				t.Fatal(diff)
			}
			for range 60 {
				next := wanted(s.storm(t, 1))
				if len(next) == 0 {
					continue
				}
				want := d[0].At.Add(max(tt.again, 8*tick+tick)) // not before the next sample
				if got := next[0].At; !got.Equal(want) {
					t.Errorf("asked again %v after the decision, want %v", got.Sub(d[0].At), want.Sub(d[0].At))
				}
				if next[0].ID == d[0].ID {
					t.Errorf("both decisions have the ID %s", d[0].ID)
				}
				return
			}
			t.Error("never asked again")
		})
	}
}

func TestAClockThatIsSetKeepsNoIncidentFromBeingAskedAbout(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		s := newScene(policies(t, freezeTree))
		first := wanted(s.opened(t))[0]
		opened := s.boot
		s.judge.Outcome(model.Outcome{DecisionID: first.ID, RefusedBy: "rate", Reason: "too many"})
		var next []*model.Decision
		for i := 0; len(next) == 0; i++ {
			if i == 12 {
				t.Fatalf("nobody was asked for 3 s after the clock was set by %v", jump)
			}
			sample := s.sample(bomb, job, 20)
			sample.Time = sample.Time.Add(jump)
			if i == 0 {
				sample.Lost.ClockJumpNS = int64(jump)
			}
			next = wanted(s.judge.Sample(t.Context(), sample))
		}
		if age := next[0].At.Sub(next[0].OpenedAt); age != s.boot-opened || next[0].IncidentID != first.IncidentID {
			t.Errorf("after a jump of %v incident %s is %v old, want %s and %v", jump, next[0].IncidentID, age, first.IncidentID, s.boot-opened)
		}
	}
}

func TestARefusalThatIsRepeatedIsOneRefusalAndAskedForEachSecond(t *testing.T) {
	s := newScene(policies(t, freezeTree))
	pending := wanted(s.opened(t))
	var told, asked int
	for range 40 { // 10 s
		for _, d := range pending {
			asked++
			told += len(s.judge.Outcome(model.Outcome{DecisionID: d.ID, RefusedBy: "grace", Reason: fmt.Sprintf("held for %d s", asked)}))
		}
		pending = wanted(s.storm(t, 1))
	}
	if told != 1 || asked < 10 || asked > 11 {
		t.Errorf("asked %d times and told %d times in 10 s, want 10 and 1", asked, told)
	}
	if d := s.incident(t).Decisions; len(d) != 1 || d[0].RefusedBy != "grace" {
		t.Errorf("decisions %+v, want the one refusal", d)
	}
}

func TestAnIncidentKeepsItsFirstAndItsLastDecisions(t *testing.T) {
	s := newScene(policies(t, freezeTree))
	pending := wanted(s.opened(t))
	var ids []string
	for len(ids) < 50 {
		for _, d := range pending {
			ids = append(ids, d.ID)
			s.judge.Outcome(model.Outcome{DecisionID: d.ID, RefusedBy: fmt.Sprintf("guard %d", len(ids))})
		}
		pending = wanted(s.storm(t, 1))
	}
	var got []string
	for _, r := range s.incident(t).Decisions {
		got = append(got, r.ID)
	}
	want := append(append([]string{}, ids[:keptRecords/2]...), ids[len(ids)-keptRecords/2:]...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnOutcomeThatNobodyWaitsForIsIgnored(t *testing.T) {
	s := newScene(policies(t, freezeTree))
	d := wanted(s.opened(t))[0]
	before, _ := json.Marshal(s.judge.Open())
	for _, id := range []string{"", "unknown", d.IncidentID, d.ID + "0"} {
		if events := s.judge.Outcome(model.Outcome{DecisionID: id}); events != nil {
			t.Errorf("an outcome of %q gave %+v", id, events)
		}
	}
	if after, _ := json.Marshal(s.judge.Open()); string(before) != string(after) {
		t.Errorf("the incident changed from %s to %s", before, after)
	}
	if events := s.judge.Outcome(model.Outcome{DecisionID: d.ID}); len(events) != 2 {
		t.Errorf("its own outcome gave %+v", events)
	}
	if events := s.judge.Outcome(model.Outcome{DecisionID: d.ID}); events != nil {
		t.Errorf("the same outcome again gave %+v", events)
	}
}

func TestAnOutcomeThatComesAfterTheIncidentClosedIsStillTold(t *testing.T) {
	s := newScene(policies(t, freezeTree))
	d := wanted(s.opened(t))[0]
	if diff := cmp.Diff([]EventType{Closed}, types(s.calm(t, 40))); diff != "" {
		t.Fatal(diff)
	}
	if open := s.judge.Open(); len(open) != 0 {
		t.Errorf("%d incidents are open after the storm", len(open))
	}
	events := s.judge.Outcome(model.Outcome{DecisionID: d.ID, LeaseID: d.ID})
	if len(events) != 2 || events[0].Incident.State != model.Closed || len(events[0].Incident.Decisions) != 1 {
		t.Errorf("events %+v, want the closed incident with its lease", events)
	}
	if len(s.judge.open) != 0 {
		t.Error("the closed incident is kept")
	}
}

func TestNewPoliciesApplyFromTheNextSampleOn(t *testing.T) {
	s := newScene(nil)
	s.opened(t)
	s.judge.SetPolicies(policies(t, freezeTree))
	if d := wanted(s.storm(t, 5)); len(d) != 1 {
		t.Errorf("%d decisions of the new policies, want 1", len(d))
	}
	s.judge.SetPolicies(nil)
	s.judge.Outcome(model.Outcome{DecisionID: s.incident(t).ID + "-1", RefusedBy: "mode"})
	if d := wanted(s.storm(t, 20)); len(d) != 0 {
		t.Errorf("%d decisions without policies, want none", len(d))
	}
}

func TestWhereNobodyStandsOutNoPolicyIsAsked(t *testing.T) {
	s := newScene(policies(t, strings.ReplaceAll(freezeTree, `"fork_storm"`, `"io_pressure"`)))
	var events []Event
	for i := range uint64(60) {
		sample := s.sample(bomb, job, 0)
		sample.Host.PressureAbsent = false
		sample.Host.Pressure.IO.FullUS = i * 200_000 // of 250,000, and nobody's requests were seen
		events = append(events, s.judge.Sample(t.Context(), sample)...)
	}
	if diff := cmp.Diff([]EventType{Opened}, types(events)); diff != "" {
		t.Error(diff)
	}
	if in := s.incident(t); in.Kind != model.IOPressure || in.Culprit.Known() {
		t.Errorf("incident %+v, want io_pressure without a culprit", in)
	}
}

func TestARuleThatIsHeldToADryRunKeepsTheOthersFromNothing(t *testing.T) {
	text := strings.Replace(freezeTree, "action contains", "# METADATA\n# custom:\n#   mode: dry-run\naction contains", 1)
	s := newScene(policies(t, text))
	d := wanted(s.opened(t))
	if len(d) != 1 || !d[0].DryRun {
		t.Fatalf("decisions %+v, want one for a dry run", d)
	}
	s.judge.Outcome(model.Outcome{DecisionID: d[0].ID, LeaseID: d[0].ID, DryRun: true})
	if more := wanted(s.storm(t, 8)); len(more) != 0 {
		t.Errorf("asked for again while it would be held: %+v", more[0])
	}
	s.judge.SetPolicies(policies(t, freezeTree))
	if d = wanted(s.storm(t, 8)); len(d) != 1 || d[0].DryRun {
		t.Errorf("decisions %+v, want one that is carried out", d)
	}
}

// Also where no policy is loaded: what one would have done is asked later.
func TestWhatThePoliciesSeeIsTold(t *testing.T) {
	s := newScene(nil)
	s.opened(t)
	in := s.incident(t)
	want := []policy.Input{policy.InputOf(&in, breaker.Unknown("/job"), model.Host{BootID: "5f0c", CPUs: 2, PressureAbsent: true}, in.OpenedAt)}
	if diff := cmp.Diff(want, s.judge.Asked()); diff != "" {
		t.Errorf("when it opened (-want +got):\n%s", diff)
	}
	if s.storm(t, 1); len(s.judge.Asked()) != 0 {
		t.Errorf("%d were asked a tick later, and they are asked once a second", len(s.judge.Asked()))
	}
	if s.storm(t, 3); len(s.judge.Asked()) != 1 || s.judge.Asked()[0].Incident.AgeMS != 1000 {
		t.Errorf("a second later %+v", s.judge.Asked())
	}
}
