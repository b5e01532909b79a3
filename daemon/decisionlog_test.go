package daemon

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/breakerd/breakerd/decisionlog"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

func TestAnAnswerIsLoggedOnceWithoutWhatIsMaskedAndItsInputsHashIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, freezeTree)
		s.doer.answer = func(_ context.Context, d model.Decision) model.Outcome {
			return model.Outcome{DecisionID: d.ID, RefusedBy: "grace", Reason: "not yet"}
		}
		s.answers.begin(t.Context(), settings.DecisionLog{Enabled: true, Mask: []string{"/input/incident/culprit/root/cmdline"}})
		s.pipeline.judge.Log(s.answers.on())
		s.run(t)
		s.storm(40) // several times asked, and always answered the same
		var told []systemd.Entry
		for _, e := range s.diary.entries {
			if e.MessageID == systemd.MsgPoliciesAnswered {
				told = append(told, e)
			}
		}
		if len(told) != 1 || len(s.doer.asked()) < 3 {
			t.Fatalf("%d entries, %d decisions", len(told), len(s.doer.asked()))
		}
		var e decisionlog.Entry
		if err := json.Unmarshal([]byte(told[0].Fields[systemd.FieldLog]), &e); err != nil {
			t.Fatal(err)
		}
		if len(e.Erased) != 1 || strings.Contains(told[0].Fields[systemd.FieldLog], "cmdline\":") || e.Result.Action.Action.Kind != model.Freeze ||
			e.Custom["policy_hash"] != s.shelf.set.Hash() || e.Labels["id"] != "host" {
			t.Errorf("%+v", e)
		}
		if told[0].Message != "policies answered about incident "+e.Custom["incident_id"]+": freeze, by breaker.test" {
			t.Errorf("told %q", told[0].Message)
		}
		for _, v := range s.past.verdicts {
			if v.InputHash != e.Custom["input_hash"] {
				t.Errorf("kept: %+v", v)
			}
		}
		if len(s.past.verdicts) == 0 {
			t.Error("no verdict is kept")
		}
	})
}

func TestNothingIsLoggedUnlessItIsAskedForNorWithAMaskThatHidesNothing(t *testing.T) {
	for name, of := range map[string]settings.DecisionLog{
		"off":        settings.Default().Policies.DecisionLog,
		"a bad mask": {Enabled: true, Mask: []string{"/input/incident/culprit/root/cmdlin"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, freezeTree)
			s.answers.begin(t.Context(), of)
			if s.answers.on() {
				t.Error("it is logged")
			}
			state := (*view)(s.Daemon).policies().DecisionLog
			switch {
			case !of.Enabled && state != nil:
				t.Errorf("%+v", state)
			case of.Enabled && !strings.Contains(state.Error, "cmdlin\" leads to nothing of the input"):
				t.Errorf("%+v", state)
			}
		})
	}
}

func TestAnAnswerThatWasOnItsWayWhenTheMaskBecameWrongIsNotLogged(t *testing.T) {
	s := newStage(t, freezeTree)
	s.answers.begin(t.Context(), settings.DecisionLog{Enabled: true, Mask: []string{"/input/incident/culprit/root/cmdlin"}})
	a := &judge.Answer{ID: "i-answer-1", Input: policy.Input{Incident: policy.Incident{Culprit: policy.Culprit{Root: policy.Root{Cmdline: "--password=secret"}}}}}
	if hash := s.answers.log("i", a); hash != "" || len(s.diary.entries) != 0 {
		t.Errorf("logged: %+v", s.diary.entries)
	}
}

func TestAnInputThatCannotBeWrittenDownEndsNoLog(t *testing.T) {
	s := newStage(t, freezeTree)
	of := settings.DecisionLog{Enabled: true}
	s.answers.begin(t.Context(), of)
	bad := &judge.Answer{ID: "i-answer-1", Input: policy.Input{Incident: policy.Incident{Severity: math.NaN()}}}
	s.answers.log("i", bad)
	if is := s.answers.state(); !strings.Contains(is.Error, "write the input of decision i-answer-1") {
		t.Errorf("%+v", is)
	}
	s.answers.begin(t.Context(), of) // as with every reload
	if !s.answers.on() {
		t.Error("nothing is logged any more")
	}
	s.answers.log("i", &judge.Answer{ID: "i-answer-2"})
	if is := s.answers.state(); is.Error != "" {
		t.Errorf("after another answer: %+v", is)
	}
}
