package main

import (
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
)

func TestAMomentIsReadAsPeopleWriteIt(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"30m": now.Add(-30 * time.Minute), "24h": now.Add(-24 * time.Hour), "7d": now.AddDate(0, 0, -7), "0s": now,
		"2026-03-01": time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), "2026-03-01 15:04": time.Date(2026, 3, 1, 15, 4, 0, 0, time.UTC),
		"2026-03-01T15:04:05+01:00": time.Date(2026, 3, 1, 14, 4, 5, 0, time.UTC),
	} {
		if got, err := when("since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, error %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "-1h", "-1d", "1.5d", "5", "99999d", "2026-13-01", "24h "} {
		if got, err := when("since", text, now); err == nil || !strings.HasPrefix(err.Error(), "--since ") {
			t.Errorf("%q is %v, error %v", text, got, err)
		}
	}
}

func TestWhySaysHowOftenAndWhatTheVictimsWaitedMeanwhile(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	ended := at.Add(time.Minute)
	victim := model.Victim{Cgroup: "/web\x1b[31m", CgroupID: 7, Resource: model.CPU}
	before, during := victim, victim
	before.StallMS, during.StallMS = 900, 1200
	var b strings.Builder
	writeStory(&b, model.Story{
		Incident: model.Incident{ID: "a1", Kind: model.ForkStorm, OpenedAt: at, ClosedAt: &ended, Unfinished: true, Decisions: []model.DecisionRecord{{Reason: "told twice"}}},
		Verdicts: []model.Verdict{
			{DecisionRecord: model.DecisionRecord{At: at, Action: model.Freeze, Policy: "breaker.x", RefusedBy: "grace", Reason: "too young"}, Times: 14, LastAt: at.Add(14 * time.Second)},
			{DecisionRecord: model.DecisionRecord{At: at, Action: model.Freeze, Policy: "breaker.x", LeaseID: "a1-2", DryRun: true, ForMS: 60_000}, Times: 1, LastAt: at},
		},
		Holds: []model.Hold{{Lease: model.Lease{HeldAt: &at, EndedAt: &ended, EndReason: model.EndExpired}, Before: []model.Victim{before}, During: []model.Victim{during}}},
	})
	for _, want := range []string{"at least 1m", "refused by grace: too young (14", "dry run, would be held for 1m", "While it was held", "900 ms", "1200 ms", "expired"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "told twice") || strings.Contains(b.String(), "\x1b") {
		t.Errorf("it says what it must not:\n%q", b.String())
	}
}

func TestStatusSaysHowTheHistoryIs(t *testing.T) {
	for want, h := range map[string]api.History{
		"none: history.enabled is false":  {},
		"not written: see below":          {Enabled: true, Problem: "x"},
		"/d, 3M":                          {Enabled: true, Dir: "/d", Bytes: 3 << 20},
		"/d, 0K, 5 records found no room": {Enabled: true, Dir: "/d", Dropped: 5},
	} {
		if got := historyState(h); got != want {
			t.Errorf("%+v is %q, want %q", h, got, want)
		}
	}
}
