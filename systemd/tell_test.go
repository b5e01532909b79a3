package systemd

import (
	"errors"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

var opened = time.Date(2026, 11, 23, 17, 44, 0, 0, time.UTC)

func incident() model.Incident {
	closed := opened.Add(12*time.Second + 340*time.Millisecond)
	return model.Incident{
		ID: "i-1", Kind: model.ForkStorm, State: model.Open, OpenedAt: opened, ClosedAt: &closed,
		Severity: 0.8234, Level: model.Critical,
		Summary: "A tree of 300 processes below bash forks 900 times a second.",
		Culprit: model.Culprit{
			Cgroup: "/user.slice/user-1000.slice/session-3.scope", CgroupID: 77, Unit: "session-3.scope", Processes: 300,
			Root: model.CulpritRoot{ProcID: model.ProcID{PID: 4242, StartTime: 91795}, Comm: "bash"},
		},
	}
}

func lease() model.Lease {
	return model.Lease{
		ID: "i-1/1", State: model.LeaseHeld, ExpiresAt: opened.Add(time.Minute),
		Decision: model.Decision{
			ID: "i-1/1", IncidentID: "i-1", Kind: model.ForkStorm, Policy: "breaker.forkstorms", PolicyHash: "sha256:ab",
			Action: model.Action{Kind: model.Freeze, Scope: model.ScopeCgroup, Reason: "fork storm"},
			Target: model.Target{Cgroup: "/user.slice/user-1000.slice/session-3.scope", Scope: model.ScopeCgroup},
		},
	}
}

func ended(reason model.EndReason, note string, dryRun bool) model.Lease {
	l := lease()
	l.EndReason, l.Note, l.DryRun = reason, note, dryRun
	return l
}

func made() model.DecisionRecord {
	return model.DecisionRecord{
		ID: "i-1/1", Action: model.Freeze, Scope: model.ScopeTree, ForMS: 60_000,
		Policy: "breaker.forkstorms", Reason: "fork storm", LeaseID: "i-1/1",
	}
}

func decision(change func(*model.DecisionRecord)) Entry {
	d := made()
	change(&d)
	return Decided(incident(), d)
}

// everyEntry has each kind of entry, also with as little in it as there can be.
func everyEntry() map[string]Entry {
	failure := errors.New("write cgroup.freeze of /a: permission denied")
	return map[string]Entry{
		"started":              Started("breakerd", "0.1.0", model.DryRun),
		"stopped":              Stopped("breakerd", "terminated"),
		"opened":               IncidentOpened(incident()),
		"opened, nobody known": IncidentOpened(model.Incident{ID: "i-2", Kind: model.PSISaturation, Level: model.Info, Summary: "x"}),
		"closed":               IncidentClosed(incident()),
		"closed, nobody known": IncidentClosed(model.Incident{ID: "i-2", Kind: model.PSISaturation, OpenedAt: opened, ClosedAt: incident().ClosedAt}),
		"decided":              decision(func(*model.DecisionRecord) {}),
		"asked":                ApprovalAsked(model.Approval{ID: "i-1/1"}),
		"approved":             ApprovalGiven(model.Approval{ID: "i-1/1", By: "uid 0 (pid 7)"}),
		"nobody said yes":      ApprovalExpired(model.Approval{ID: "i-1/1"}),
		"breaker open":         BreakerSwitched(model.Breaker{Cgroup: "/a", State: model.BreakerOpen, Opened: 22}),
		"breaker half-open":    BreakerSwitched(model.Breaker{Cgroup: "/a", State: model.BreakerHalfOpen, LastEnd: model.EndNoRelief}),
		"breaker eased":        BreakerSwitched(model.Breaker{Cgroup: "/a", State: model.BreakerHalfOpen, Eased: true}),
		"breaker closed":       BreakerSwitched(model.Breaker{State: model.BreakerClosed}),
		"no effect":            BreakerMeasured(model.Breaker{Cgroup: "/a", State: model.BreakerOpen, LastEffect: model.EffectNone, Before: model.Toll{OthersMS: 900}, After: model.Toll{OthersMS: 890}}),
		"an effect":            BreakerMeasured(model.Breaker{State: model.BreakerOpen, LastEffect: model.EffectRelieved}),
		"dry run":              decision(func(d *model.DecisionRecord) { d.DryRun = true }),
		"refused":              decision(func(d *model.DecisionRecord) { d.RefusedBy, d.Reason = "protected", "sshd.service is protected" }),
		"nothing asked":        Decided(incident(), model.DecisionRecord{ID: "i-1/1", Action: model.NoAction}),
		"failed":               decision(func(d *model.DecisionRecord) { d.Error = failure.Error() }),
		"held":                 LeaseHeld(lease()),
		"eased":                LeaseEased(lease()),
		"ended":                LeaseEnded(ended(model.EndExpired, "", false)),
		"heartbeat lost":       LeaseEnded(ended(model.EndHeartbeat, "the cgroup had gone", false)),
		"ended, dry run":       LeaseEnded(ended(model.EndHeartbeat, "", true)),
		"recovered":            LeaseRecovered(ended(model.EndRecovered, "", false)),
		"stuck":                LeaseStuck(lease(), failure),
		"policies loaded":      PoliciesLoaded("sha256:ab", 2),
		"policies promoted":    PoliciesPromoted("sha256:ab", 2, "uid 0 (pid 7)"),
		"policies answered":    PoliciesAnswered("i-1-answer-1", "i-1", "sha256:cd", "sha256:ab", "freeze", []byte(`{"decision_id":"i-1-answer-1"}`)),
		"policies tried":       PoliciesTried("sha256:ab", opened),
		"policies withheld":    PoliciesWithheld(model.PolicyTrial{Hash: "sha256:ab", Withheld: "it would freeze /a: it is protected"}),
		"policies refused":     PoliciesRefused(failure, "sha256:ab"),
		"policies, none left":  PoliciesRefused(failure, ""),
		"observation":          ObservationDegraded("pressure stall information is off"),
		"enforcer lost":        EnforcerLost(failure),
		"enforcer back":        EnforcerBack(),
		"observation whole":    ObservationWhole(time.Minute),
		"history stopped":      HistoryStopped("the disk is full"),
		"history back":         HistoryBack(3),
		"history set aside":    HistorySetAside("/var/lib/breakerd/history/history.db.damaged"),
		"a poor machine":       MachineLacks("BTF", "nobody is blamed"),
		"reloaded":             ConfigLoaded("breakerd", []string{"tick", "detect.fork_storm.hold"}, nil),
		"reloaded in part":     ConfigLoaded("breakerd", []string{"tick"}, []string{"mode"}),
		"reloaded for nothing": ConfigLoaded("breaker-enforcer", nil, nil),
		"reload refused":       ConfigRefused("breakerd", failure),
		"too many":             leftOut(MsgIncidentOpened, 7),
	}
}

func TestEntriesSayItInOneLine(t *testing.T) {
	tests := map[string]struct {
		priority Priority
		message  string
	}{
		"opened":               {Err, "A tree of 300 processes below bash forks 900 times a second."},
		"opened, nobody known": {Info, "x"},
		"closed":               {Info, "fork_storm in /user.slice/user-1000.slice/session-3.scope is over after 12.3s"},
		"closed, nobody known": {Info, "psi_saturation, of which nobody stands out as the cause, is over after 12.3s"},
		"decided":              {Notice, "freeze /user.slice/user-1000.slice/session-3.scope for 1m0s: fork storm"},
		"dry run":              {Notice, "would freeze /user.slice/user-1000.slice/session-3.scope for 1m0s: fork storm"},
		"refused":              {Info, "freeze of /user.slice/user-1000.slice/session-3.scope refused by protected: sshd.service is protected"},
		"failed":               {Err, "freeze of /user.slice/user-1000.slice/session-3.scope failed, nothing is held: write cgroup.freeze of /a: permission denied"},
		"held":                 {Warning, "freeze of /user.slice/user-1000.slice/session-3.scope is held until 2026-11-23T17:45:00Z"},
		"eased":                {Notice, "freeze of /user.slice/user-1000.slice/session-3.scope is loosened half way until 2026-11-23T17:45:00Z"},
		"breaker eased":        {Info, "the breaker of /a is half-open: it was loosened, and its victims are watched"},
		"breaker half-open":    {Info, "the breaker of /a is half-open: it was let go (no_relief), and its victims are watched"},
		"ended":                {Notice, "freeze of /user.slice/user-1000.slice/session-3.scope has ended: expired"},
		"heartbeat lost":       {Warning, "freeze of /user.slice/user-1000.slice/session-3.scope has ended: heartbeat; the cgroup had gone"},
		"ended, dry run":       {Info, "freeze of /user.slice/user-1000.slice/session-3.scope has ended (dry run, nothing is written): heartbeat"},
		"reloaded":             {Info, "breakerd read its configuration again: tick detect.fork_storm.hold"},
		"reloaded in part":     {Warning, "breakerd read its configuration again: tick; after a restart only: mode"},
		"reloaded for nothing": {Info, "breaker-enforcer read its configuration again: nothing has changed"},
		"policies, none left":  {Err, "policies refused, there is none, so nothing will be acted on: write cgroup.freeze of /a: permission denied"},
	}
	all := everyEntry()
	for name, want := range tests {
		if got := all[name]; got.Priority != want.priority || got.Message != want.message {
			t.Errorf("%s:\n got  %d %s\n want %d %s", name, got.Priority, got.Message, want.priority, want.message)
		}
	}
}
