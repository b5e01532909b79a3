package judge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
)

const nothing = "package breaker.test\n\ndeny contains \"no\" if input.host.cpus > 100\n"

// trying is a scene in which a set is tried for ten seconds beside another.
func trying(t *testing.T, inForce, tried string, known ...string) *scene {
	s := newScene(policies(t, inForce))
	began := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
	s.judge.Try(NewTrial(policies(t, tried), began, began.Add(10*time.Second), known))
	return s
}

// through lets a storm go on until the trial's time is up, and answers who is protected.
func (s *scene) through(t *testing.T, protection string) (last []Event) {
	for range 48 {
		for _, e := range s.storm(t, 1) {
			switch e.Type {
			case Tried:
				s.judge.TrialKnows(e.Decision, protection)
			case Passed, Withheld:
				last = append(last, e)
			case Wanted:
				s.judge.Outcome(model.Outcome{DecisionID: e.Decision.ID, RefusedBy: "mode", Reason: "a test"})
			}
		}
	}
	return last
}

func TestATriedSetPassesUnlessItWouldNewlyHoldSomebodyProtectedOrUnseen(t *testing.T) {
	broken := "package breaker.test\n\naction contains {\"kind\": \"freeze\", \"scope\": \"tree\", \"for\": \"10s\", \"reason\": sprintf(\"%d\", [1 / (input.host.cpus - 2)])} if input.incident.kind == \"fork_storm\"\n"
	wider := strings.ReplaceAll(freezeTree, `"scope": "tree"`, `"scope": "cgroup"`)
	gentle := "package breaker.test\n\naction contains {\"kind\": \"throttle\", \"cpu_percent\": 50, \"scope\": \"tree\", \"for\": \"10s\", \"reason\": \"x\"} if input.incident.kind == \"fork_storm\"\n"
	ladder := strings.ReplaceAll(gentle, `"reason"`, `"then": [{"kind": "freeze", "scope": "cgroup", "for": "10s"}], "reason"`)
	unseen := "there was no incident of it before the trial, by which anybody could have seen what the new set does to it"
	for _, tt := range []struct {
		name           string
		inForce, tried string
		known          []string
		protection     string
		withheld       string // "" where it passes
		more           int
	}{
		{name: "the same", inForce: freezeTree, tried: freezeTree + "\n# another\n"},
		{name: "less", inForce: freezeTree, tried: nothing},
		{name: "more, of somebody known", inForce: nothing, tried: freezeTree, known: []string{"/job"}, more: 1},
		{name: "more, of somebody unseen", inForce: nothing, tried: freezeTree, withheld: "it would freeze /job: " + unseen, more: 1},
		{name: "more, beside nothing, of somebody unseen", inForce: "package breaker.test\n", tried: freezeTree, withheld: "it would freeze /job: " + unseen, more: 1},
		{name: "more, of somebody protected", inForce: nothing, tried: freezeTree, known: []string{"/job"}, protection: "/job is sshd's", withheld: "it would freeze /job: it is protected: /job is sshd's", more: 1},
		{name: "a whole cgroup instead of a tree", inForce: freezeTree, tried: wider, withheld: "it would freeze /job: " + unseen, more: 1},
		{name: "a whole cgroup after a tree", inForce: gentle, tried: ladder, known: []string{"/job"}, protection: "/job is sshd's", withheld: "it would freeze /job: it is protected: /job is sshd's", more: 1},
		{name: "the same ladder", inForce: ladder, tried: ladder + "\n# another\n"},
		{name: "a tree alone instead of a ladder", inForce: ladder, tried: gentle},
		{name: "a tree instead of a whole cgroup", inForce: wider, tried: freezeTree},
		{name: "a dry run holds nobody", inForce: nothing, tried: "# METADATA\n# custom:\n#   mode: dry-run\n" + freezeTree},
		{name: "one that cannot be evaluated", inForce: freezeTree, tried: broken, withheld: "it could not be evaluated: breaker.test: test.rego:3:92: div: divide by zero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := trying(t, tt.inForce, tt.tried, tt.known...)
			hash := s.judge.Trial().Hash
			events := s.through(t, tt.protection)
			if len(events) == 0 {
				t.Fatal("the trial has no end")
			}
			is := s.judge.Trial()
			if is.Withheld != tt.withheld || len(is.More) != tt.more || is.Hash != hash || is.Asked == 0 {
				t.Errorf("the trial: %+v, want withheld %q", is, tt.withheld)
			}
			want := Passed
			if tt.withheld != "" {
				want = Withheld
				if len(events) != 1 {
					t.Errorf("told %d times that it waits", len(events))
				}
			}
			if events[0].Type != want || events[0].Trial.Withheld != tt.withheld {
				t.Errorf("told %+v", events[0])
			}
		})
	}
}

func TestWhileItIsNotKnownWhetherSomebodyIsProtectedASetWaits(t *testing.T) {
	s := trying(t, nothing, freezeTree, "/job")
	target := model.Target{Cgroup: "/job", Scope: model.ScopeTree}
	s.storm(t, 48)
	if got := s.judge.Trial().Withheld; got != "it would freeze /job, and it is not known whether that is protected" {
		t.Errorf("withheld %q", got)
	}
	s.judge.TrialKnows(&model.Decision{PolicyHash: "sha256:another", Target: target}, "")
	s.storm(t, 1)
	if s.judge.Trial().Withheld == "" {
		t.Error("what was asked about another set was taken for an answer")
	}
	s.judge.TrialKnows(&model.Decision{PolicyHash: s.judge.Trial().Hash, Target: target}, "")
	if diff := cmp.Diff([]EventType{Passed}, types(s.storm(t, 1))); diff != "" {
		t.Error(diff)
	}
}

func TestATrialChangesNothingThatIsDecided(t *testing.T) {
	run := func(tried bool) (all []model.Decision) {
		s := newScene(policies(t, freezeTree))
		if tried {
			s = trying(t, freezeTree, nothing)
		}
		for _, d := range wanted(s.storm(t, 40)) {
			d.EvalUS = 0
			all = append(all, *d)
		}
		return all
	}
	if diff := cmp.Diff(run(false), run(true)); diff != "" {
		t.Error(diff)
	}
}

// put has a set tried that an incident of a cgroup is put to, and the one in force.
func (s *scene) put(t *testing.T, kind model.Kind, cgroup string) []Event {
	t.Helper()
	now := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
	in := &model.Incident{ID: "i", Kind: kind, Culprit: model.Culprit{Cgroup: cgroup}}
	input := policy.InputOf(in, s.judge.breakers.Of(cgroup), model.Host{CPUs: 2}, now)
	v := s.judge.policies.Decide(t.Context(), input)
	return s.judge.try(t.Context(), in, input, &v, now)
}

func TestASetThatWouldHoldMoreThanCanBeToldApartWaits(t *testing.T) {
	var known []string
	for i := range maxTouches {
		known = append(known, fmt.Sprintf("/known-%d", i))
	}
	s := trying(t, nothing, freezeTree, known...)
	for _, cgroup := range known {
		s.judge.TrialKnows(s.put(t, model.ForkStorm, cgroup)[0].Decision, "")
	}
	if got := s.judge.trial.against(); got != "" {
		t.Fatalf("against it: %s", got)
	}
	s.put(t, model.ForkStorm, "/unseen")
	if got := s.judge.trial.against(); got != "it would hold more than 64 cgroups that the set in force does not, and nobody has looked at all of them" {
		t.Errorf("against it: %q", got)
	}
}

func TestAWholeCgroupIsLookedAtAnewWhereATreeOfItWas(t *testing.T) {
	const whole = "action contains {\"kind\": \"freeze\", \"scope\": \"cgroup\", \"for\": \"5s\", \"reason\": \"x\"} if input.incident.kind == \"memory_leak\"\n"
	s := trying(t, nothing, freezeTree+whole, "/job")
	tree := s.put(t, model.ForkStorm, "/job")[0].Decision
	s.judge.TrialKnows(tree, "")
	asked := s.put(t, model.MemoryLeak, "/job")
	if len(asked) != 1 || asked[0].Decision.Target.Scope != model.ScopeCgroup {
		t.Fatalf("asked %+v", asked)
	}
	s.judge.TrialKnows(tree, "") // which says nothing of the others
	if got := s.judge.trial.against(); got != "it would freeze /job, and it is not known whether that is protected" {
		t.Errorf("before it is known: %q", got)
	}
	s.judge.TrialKnows(asked[0].Decision, "it holds sshd")
	if got := s.judge.trial.against(); got != "it would freeze /job: it is protected: it holds sshd" {
		t.Errorf("once it is: %q", got)
	}
	if more := s.judge.Trial().More; len(more) != 1 || more[0].Times != 2 || more[0].Kind != model.MemoryLeak {
		t.Errorf("told %+v", more)
	}
}

func TestAClockThatIsSetEndsNoTrial(t *testing.T) {
	s := trying(t, freezeTree, nothing)
	until := s.judge.Trial().Until
	sample := s.sample(bomb, job, 1)
	sample.Lost.ClockJumpNS = int64(time.Hour)
	sample.Time = sample.Time.Add(time.Hour)
	if events := s.judge.Sample(t.Context(), sample); len(events) != 0 {
		t.Errorf("told %+v", events)
	}
	if got := s.judge.Trial().Until; !got.Equal(until.Add(time.Hour)) {
		t.Errorf("until %v", got)
	}
}

func TestAWholeCgroupIsSomebodyElseThanATreeThatWasHeldBeforeTheTrial(t *testing.T) {
	s := newScene(policies(t, freezeTree))
	for _, d := range wanted(s.storm(t, 20)) {
		s.judge.Outcome(model.Outcome{DecisionID: d.ID, LeaseID: d.ID})
	}
	if b := s.judge.breakers.Of("/job"); b.Opened != 1 {
		t.Fatalf("the breaker is %+v", b)
	}
	wider := strings.ReplaceAll(freezeTree, `"scope": "tree"`, `"scope": "cgroup"`)
	began := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
	s.judge.Try(NewTrial(policies(t, wider), began, began.Add(time.Hour), []string{"/job"}))
	s.put(t, model.ForkStorm, "/job")
	if got := s.judge.trial.against(); got != "it would freeze /job, and it is not known whether that is protected" {
		t.Errorf("against it: %q", got)
	}
}
