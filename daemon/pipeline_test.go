package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/recording"
	"github.com/breakerd/breakerd/systemd"
)

func TestADecisionIsProposedAndWhatBecameOfItIsShown(t *testing.T) {
	tests := []struct {
		name    string
		outcome model.Outcome
		want    model.DecisionRecord
		told    systemd.MessageID
	}{
		{"carried out", model.Outcome{LeaseID: "lease"}, model.DecisionRecord{LeaseID: "lease", Reason: "a storm"}, systemd.MsgDecisionMade},
		{"in a dry run", model.Outcome{LeaseID: "lease", DryRun: true}, model.DecisionRecord{LeaseID: "lease", Reason: "a storm", DryRun: true}, systemd.MsgDecisionMade},
		{"refused", model.Outcome{RefusedBy: "protected", Reason: "it is sshd"}, model.DecisionRecord{RefusedBy: "protected", Reason: "it is sshd"}, systemd.MsgDecisionRefused},
		{"failed", model.Outcome{Error: "not confirmed"}, model.DecisionRecord{Error: "not confirmed", Reason: "a storm"}, systemd.MsgDecisionFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, freezeTree)
				s.doer.answer = func(_ context.Context, d model.Decision) model.Outcome {
					o := tt.outcome
					o.DecisionID = d.ID
					return o
				}
				s.run(t)
				s.storm(9)
				asked := s.doer.asked()
				if len(asked) != 1 || asked[0].Target.Root != bomb {
					t.Fatalf("proposed %+v, want a freeze of the bomb", asked)
				}
				all := s.board.all()
				if len(all) != 1 || len(all[0].Decisions) != 1 {
					t.Fatalf("incidents %+v, want one with its decision", all)
				}
				want := tt.want
				want.ID, want.At, want.Action, want.Scope, want.ForMS, want.Policy = asked[0].ID, asked[0].At, model.Freeze, model.ScopeTree, 10_000, "breaker.test"
				if diff := cmp.Diff(want, all[0].Decisions[0]); diff != "" {
					t.Error(diff)
				}
				told := []systemd.MessageID{systemd.MsgIncidentOpened, tt.told}
				if tt.outcome.LeaseID != "" {
					told = append(told, systemd.MsgBreakerSwitched)
				}
				if diff := cmp.Diff(told, s.diary.ids()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestAnEnforcerThatTakesItsTimeHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, freezeTree)
		answer := make(chan string)
		s.doer.answer = func(_ context.Context, d model.Decision) model.Outcome {
			return model.Outcome{DecisionID: d.ID, LeaseID: <-answer}
		}
		s.run(t)
		s.storm(40)
		if got := s.pipeline.samples.Load(); got != 40 {
			t.Errorf("%d samples were taken, want 40", got)
		}
		if n := len(s.doer.asked()); n != 1 {
			t.Errorf("it was asked %d times before it answered", n)
		}
		answer <- "lease"
		synctest.Wait()
		if d := s.board.all()[0].Decisions; len(d) != 1 || d[0].LeaseID != "lease" {
			t.Errorf("decisions %+v, want the lease", d)
		}
	})
}

func TestTheSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, freezeTree)
		s.doer.answer = func(ctx context.Context, d model.Decision) model.Outcome {
			<-ctx.Done() // whoever is asked must be told to stop
			return model.Outcome{DecisionID: d.ID, Error: ctx.Err().Error()}
		}
		s.run(t)
		s.storm(9)
		close(s.script.samples)
		if err := <-s.ended; !errors.Is(err, errScript) {
			t.Errorf("the pipeline ended with %v, want the source's error", err)
		}
	})
}

func TestToBeStoppedIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		s.run(t)
		s.storm(3)
		s.stop()
		if err := <-s.ended; err != nil {
			t.Errorf("the pipeline ended with %v", err)
		}
	})
}

func TestARecordingOfThePipelineReplaysToTheSameIncidents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, freezeTree)
		s.doer.answer = func(_ context.Context, d model.Decision) model.Outcome {
			return model.Outcome{DecisionID: d.ID, RefusedBy: "rate", Reason: "too many"}
		}
		s.run(t)
		for range 5 { // it does not begin with breakerd
			s.feed(s.sample(0))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var tape bytes.Buffer
		recorded := make(chan error)
		go func() { recorded <- s.record(ctx, &tape) }()
		synctest.Wait()
		s.storm(30)
		for range 40 {
			s.feed(s.sample(0))
		}
		cancel()
		if err := <-recorded; err != nil {
			t.Fatal(err)
		}

		d, err := recording.NewDecoder(&tape, "tape")
		if err != nil {
			t.Fatal(err)
		}
		set, err := policy.LoadSources(d.Header().Policies)
		if err != nil {
			t.Fatal(err)
		}
		var thresholds detect.Config
		if err := json.Unmarshal(d.Header().Detect, &thresholds); err != nil {
			t.Fatal(err)
		}
		j := judge.New(thresholds, set, func(string) model.Workload { return model.Workload{} })
		replayed := newBoard(func(string) model.Workload { return model.Workload{} })
		take := func(events []judge.Event) {
			for _, e := range events {
				replayed.incident(e.Incident)
			}
		}
		for {
			r, err := d.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Sample != nil {
				take(j.Sample(t.Context(), r.Sample))
			} else {
				take(j.Outcome(*r.Outcome))
			}
		}
		live, _ := json.Marshal(s.board.all())
		again, _ := json.Marshal(replayed.all())
		if !bytes.Equal(live, again) || len(s.board.all()) != 1 || len(s.board.all()[0].Decisions) != 1 {
			t.Errorf("live   %s\nreplay %s", live, again)
		}
	})
}

// stuck takes what is written after its first line only when told to.
type stuck struct{ gate chan struct{} }

func (s *stuck) Write(p []byte) (int, error) {
	if !strings.HasPrefix(string(p), `{"header"`) {
		<-s.gate
	}
	return len(p), nil
}

func TestARecordingThatIsReadTooSlowlyEndsWithAnErrorAndHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		s.run(t)
		s.storm(1)
		slow, gate := make(chan error, 1), make(chan struct{})
		go func() { slow <- s.record(t.Context(), &stuck{gate}) }()
		ctx, cancel := context.WithCancel(t.Context())
		var fast bytes.Buffer
		other := make(chan error, 1)
		go func() { other <- s.record(ctx, &fast) }()
		synctest.Wait()
		for range 300 {
			s.feed(s.sample(0))
		}
		if n := len(s.pipeline.playing); n != 1 {
			t.Errorf("%d recordings go on, want the one that is read", n)
		}
		close(gate)
		if err := <-slow; err == nil || !strings.Contains(err.Error(), "too slowly") {
			t.Errorf("the slow recording ended with %v", err)
		}
		cancel()
		if err := <-other; err != nil {
			t.Errorf("the other recording ended with %v", err)
		}
		if n := bytes.Count(fast.Bytes(), []byte("\n")); n != 1+1+300+1 {
			t.Errorf("the other recording has %d lines, want header, keyframe, 300 samples and end", n)
		}
		s.feed(s.sample(0))
		if n := len(s.pipeline.playing); n != 0 {
			t.Errorf("%d recordings go on after both ended", n)
		}
	})
}

func TestARecordingThatBeginsAsBreakerdStopsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.record(ctx, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a pipeline it ended with %v", err)
		}
	})
}

func TestLossesAreAddedUpAndToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		s.run(t)
		for i := range 20 {
			sample := s.sample(0)
			if i%2 == 0 {
				sample.Lost = model.Lost{Events: 3, Cells: 2, Cgroups: 1, LateNS: 5}
			}
			s.feed(sample)
		}
		want := model.Lost{Events: 30, Cells: 20, Cgroups: 10, LateNS: 50}
		if diff := cmp.Diff(want, s.pipeline.lost.get()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]systemd.MessageID{systemd.MsgObservationDegraded}, s.diary.ids()); diff != "" {
			t.Error(diff)
		}
		s.boot += 2 * time.Minute
		sample := s.sample(0)
		sample.Lost.SuspendedNS = int64(time.Hour)
		s.feed(sample)
		if n := len(s.diary.ids()); n != 2 {
			t.Errorf("told %d times, want again after two minutes in which all was seen", n)
		}
		for range 2 * int(time.Minute/tickLength) {
			s.feed(s.sample(0))
		}
		if ids := s.diary.ids(); len(ids) != 3 || ids[2] != systemd.MsgObservationWhole {
			t.Errorf("told %q, want once that all is seen again", ids)
		}
	})
}

func TestWhatBreakerdLimitsIsMarkedWithAllBelowIt(t *testing.T) {
	p := &pipeline{enforcer: &doer{limits: []model.Decision{
		{Target: model.Target{Cgroup: "/a.service"}, Action: model.Action{CPUPercent: 20}},
		{Target: model.Target{Cgroup: "/b"}, Action: model.Action{MemoryHigh: 1 << 30}},
	}}}
	s := &model.Sample{Cgroups: []model.CgroupSample{{Path: "/a.service"}, {Path: "/a.service/job"}, {Path: "/a.service2"}, {Path: "/b"}, {Path: ""}}}
	p.markLimited(s)
	want := []model.CgroupSample{{Path: "/a.service", Limited: true}, {Path: "/a.service/job", Limited: true}, {Path: "/a.service2"}, {Path: "/b", MemoryLimited: true}, {Path: ""}}
	if diff := cmp.Diff(want, s.Cgroups); diff != "" {
		t.Error(diff)
	}
}
