package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/report"
	"github.com/breakerd/breakerd/systemd"
)

func TestWhatIsDecidedIsKeptWithWhatBecameOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, freezeTree)
		s.doer.answer = func(_ context.Context, d model.Decision) model.Outcome {
			return model.Outcome{DecisionID: d.ID, RefusedBy: "rate", Reason: "too many", DryRun: true}
		}
		s.run(t)
		s.storm(30)
		if s.past.samples != 30 || len(s.past.incidents) != 1 {
			t.Fatalf("%d samples and %d incidents are kept, want 30 and one", s.past.samples, len(s.past.incidents))
		}
		// The incident tells a refusal once; what is kept counts each.
		asked := s.doer.asked()
		if len(asked) < 3 || len(s.past.verdicts) != len(asked) || len(s.board.all()[0].Decisions) != 1 {
			t.Fatalf("%d decisions, %d verdicts", len(asked), len(s.past.verdicts))
		}
		for i, v := range s.past.verdicts {
			d := asked[i]
			if v.ID != d.ID || v.IncidentID != d.IncidentID || v.RefusedBy != "rate" || v.Reason != "too many" || v.Policy != "breaker.test" ||
				v.PolicyHash != d.PolicyHash || *v.Target != d.Target || v.Action != model.Freeze || v.ForMS != 10_000 || !v.At.Equal(d.At) {
				t.Errorf("verdict %d is %+v, want what was decided and who refused", i, v)
			}
		}
		if len(s.pipeline.wanted) != 0 {
			t.Errorf("%d decisions are waited for", len(s.pipeline.wanted))
		}
	})
}

func TestADenyIsKeptThoughNothingWasProposed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, freezeTree+"\ndeny contains \"not now\" if true\n")
		s.run(t)
		s.storm(20)
		if len(s.past.verdicts) != 1 || s.past.verdicts[0].RefusedBy != "policy" || s.past.verdicts[0].Reason != "not now" || s.past.verdicts[0].IncidentID == "" {
			t.Errorf("verdicts %+v, want the deny", s.past.verdicts)
		}
	})
}

func TestWhatThePoliciesSawIsKeptAlsoWhereThereAreNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		s.run(t)
		s.storm(20)
		in := s.board.all()[0]
		asked := s.past.asked[in.ID]
		var last policy.Input
		if len(asked) < 3 || json.Unmarshal([]byte(asked[len(asked)-1]), &last) != nil {
			t.Fatalf("asked %q", asked)
		}
		if last.Incident.ID != in.ID || last.Incident.Culprit.Cgroup != in.Culprit.Cgroup || last.Incident.AgeMS != int64(1000*(len(asked)-1)) {
			t.Errorf("they saw %+v of %+v", last, in)
		}
	})
}

func TestWhatIsRememberedIsYoungerThanWhatIsKept(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := newStage(t, "")
	v := (*view)(s.Daemon)
	ended := at.Add(time.Minute)
	s.board.incident(model.Incident{ID: "live", Kind: model.ForkStorm, OpenedAt: at.Add(time.Hour), Severity: 0.9, Culprit: model.Culprit{Cgroup: "/a/b"}})
	s.board.incident(model.Incident{ID: "old", Kind: model.ForkStorm, OpenedAt: at, ClosedAt: &ended})
	s.past.kept = []model.Incident{{ID: "live", OpenedAt: at.Add(time.Hour), Severity: 0.1}, {ID: "before", OpenedAt: at.Add(30 * time.Minute)}}
	all, err := v.Past(t.Context(), model.IncidentFilter{Since: at.Add(2 * time.Minute)})
	if err != nil || len(all) != 2 || all[0].ID != "live" || all[0].Severity != 0.9 || all[1].ID != "before" {
		t.Errorf("%+v, error %v: want what is live as it is now, and the one of before", all, err)
	}
	s.past.kept = nil
	for _, tt := range []struct {
		f    model.IncidentFilter
		want int
	}{
		{model.IncidentFilter{}, 2}, {model.IncidentFilter{Kind: model.MemoryLeak}, 0}, {model.IncidentFilter{Cgroup: "/a"}, 1}, {model.IncidentFilter{Cgroup: "/a/b"}, 1},
		{model.IncidentFilter{Cgroup: "/a/"}, 1}, {model.IncidentFilter{Cgroup: "/a/b/c"}, 0}, {model.IncidentFilter{Unit: "x"}, 0}, {model.IncidentFilter{Until: at.Add(time.Second)}, 1}, {model.IncidentFilter{Most: 1}, 1},
	} {
		if all, err := v.Past(t.Context(), tt.f); err != nil || len(all) != tt.want {
			t.Errorf("%+v: %d, error %v, want %d", tt.f, len(all), err, tt.want)
		}
	}
	s.past.story = &model.Story{Incident: model.Incident{ID: "live", Triage: &model.Triage{Cause: "kept"}}, Verdicts: []model.Verdict{{Times: 3}}}
	story, err := v.Story(t.Context(), "live")
	if err != nil || story.Severity != 0.9 || story.Triage.Cause != "kept" || story.Verdicts[0].Times != 3 {
		t.Errorf("story %+v, error %v: want the incident of now with the rest as it is kept", story, err)
	}
	s.past.story = nil
	if _, err := v.Story(t.Context(), "none"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("an incident that there is not: %v", err)
	}
	s.Daemon.past = noHistory{}
	if all, err := v.Past(t.Context(), model.IncidentFilter{}); err != nil || len(all) != 2 {
		t.Errorf("without a history: %d, error %v, want what is remembered", len(all), err)
	}
	if story, err := v.Story(t.Context(), "live"); err != nil || story.Severity != 0.9 {
		t.Errorf("without a history: %+v, error %v", story, err)
	}
	if _, err := v.Report(t.Context(), at, ended); !errors.Is(err, model.ErrNoHistory) || !strings.Contains(err.Error(), "history.enabled is false") {
		t.Errorf("a report without a history: %v", err)
	}
}

func TestAReportLooksBackForWhichPolicyIsNew(t *testing.T) {
	until := time.Date(2026, 1, 9, 0, 0, 0, 0, time.UTC)
	s := newStage(t, "")
	s.past.began = until.AddDate(0, 0, -8)
	for _, ago := range []time.Duration{26 * time.Hour, 3 * time.Hour, 2 * time.Hour, time.Hour} {
		at := until.Add(-ago)
		ended := at.Add(time.Minute)
		web := []model.Victim{{Cgroup: "/web", Resource: model.CPU, StallMS: 5000}}
		s.past.stories = append(s.past.stories, model.Story{
			Incident: model.Incident{ID: ago.String(), Kind: model.ForkStorm, OpenedAt: at, ClosedAt: &ended, Level: model.Critical, Culprit: model.Culprit{Cgroup: "/a" + ago.String()}},
			Verdicts: []model.Verdict{{DecisionRecord: model.DecisionRecord{At: at, Action: model.Freeze, Policy: "breaker.x"}, Times: 1, LastAt: at}},
			Holds:    []model.Hold{{Lease: model.Lease{DryRun: true, HeldAt: &at, EndedAt: &ended, Decision: model.Decision{Policy: "breaker.x", Target: model.Target{Cgroup: "/a" + ago.String()}}}, During: web}},
		})
	}
	r, err := (*view)(s.Daemon).Report(t.Context(), until.Add(-24*time.Hour), until)
	if err != nil || r.Totals.Incidents != 3 || len(r.Policies) != 1 || r.Policies[0].Advice != report.ReadyToArm {
		t.Fatalf("%+v of %+v, error %v", r.Policies, r.Totals, err)
	}
	s.past.stories = s.past.stories[1:]
	if r, err = (*view)(s.Daemon).Report(t.Context(), until.Add(-24*time.Hour), until); err != nil || r.Policies[0].Advice != report.KeepWatching {
		t.Errorf("of a policy that is three hours old: %+v, error %v", r.Policies, err)
	}
}

func TestAHistoryThatStopsIsToldOnceAndSoIsThatItGoesOn(t *testing.T) {
	s := newStage(t, "")
	full := model.HistoryState{Problem: "the disk is full"}
	s.historyChanged(full)
	s.historyChanged(full)
	s.past.is = full
	status := (*view)(s.Daemon).Status(t.Context())
	if status.History.Problem != full.Problem || !strings.Contains(strings.Join(status.Problems, "\n"), "what happens is not kept: the disk is full") || !strings.Contains(s.statusLine(), "no history") {
		t.Errorf("status %+v, problems %v, line %q", status.History, status.Problems, s.statusLine())
	}
	s.historyChanged(model.HistoryState{Dropped: 3})
	s.historyChanged(model.HistoryState{Dropped: 3, SetAside: "/x.damaged"})
	got := s.diary.ids()
	want := []systemd.MessageID{systemd.MsgHistoryStopped, systemd.MsgHistoryBack, systemd.MsgHistorySetAside}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("told %v, want %v", got, want)
	}
}

func TestALeaseOfTheEnforcerIsKeptFromItsBeginningToItsEnd(t *testing.T) {
	var kept pages
	r := newRemote(t.TempDir(), func(error) {}, &kept)
	l := model.Lease{ID: "a-1", State: model.LeaseHeld, Decision: model.Decision{Action: model.Action{CPUPercent: 50}, Target: model.Target{Cgroup: "/a"}}}
	r.learn(l)
	r.learn(l) // heard of again
	if got := r.limited(); len(got) != 1 || got[0].Target.Cgroup != "/a" {
		t.Errorf("limited %v", got)
	}
	l.State, l.EndReason = model.LeaseEnded, model.EndReleased
	r.learn(l)
	if len(kept.leases) != 2 || kept.leases[1].EndReason != model.EndReleased || len(r.limited()) != 0 {
		t.Errorf("kept %+v, limited %v", kept.leases, r.limited())
	}
}
