package judge

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
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
				s.judge.TrialKnows(e.Decision.PolicyHash, e.Decision.Target.Cgroup, protection)
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
		{name: "more, of somebody protected", inForce: nothing, tried: freezeTree, known: []string{"/job"}, protection: "/job is sshd's", withheld: "it would freeze /job: it is protected: /job is sshd's", more: 1},
		{name: "a whole cgroup instead of a tree", inForce: freezeTree, tried: wider, withheld: "it would freeze /job: " + unseen, more: 1},
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
	s.storm(t, 48)
	if got := s.judge.Trial().Withheld; got != "it would freeze /job, and it is not known whether that is protected" {
		t.Errorf("withheld %q", got)
	}
	s.judge.TrialKnows("sha256:another", "/job", "")
	s.storm(t, 1)
	if s.judge.Trial().Withheld == "" {
		t.Error("what was asked about another set was taken for an answer")
	}
	s.judge.TrialKnows(s.judge.Trial().Hash, "/job", "")
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
