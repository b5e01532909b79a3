// Package judge joins what decides: samples go into detectors, incidents into
// policies, and decisions come out. It is pure, like its parts: the same samples,
// outcomes, thresholds and policies give the same incidents and decisions, whether a
// daemon feeds them or a recording.
package judge

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
)

const (
	// An incident that goes on is put to the policies again after this long: its
	// severity may have grown, or a guard may agree now.
	askAgain = time.Second
	// After a failure to act.
	askAfterError = 5 * time.Second
	// Decisions that an incident keeps, the first and the last of them.
	keptRecords = 16
)

// Event is something that a person may want to know, or that has to be carried out.
type Event struct {
	Type     EventType
	Incident model.Incident // as it is now; none of what is about a breaker or a trial
	// Decision is what the policies want done, of Wanted events.
	Decision *model.Decision
	// Record is what became of a decision, of Decided events.
	Record *model.DecisionRecord
	// Breaker is as it is now, of Switched and Measured events.
	Breaker *model.Breaker
	// Release is the lease to be ended, of Undone events.
	Release *breaker.Release
	// Answer is what the policies said, of Answered events.
	Answer *Answer
	// Trial is as it is now, of Passed and Withheld events.
	Trial *model.PolicyTrial
}

// EventType says what an event tells.
type EventType string

// The events.
const (
	Opened  EventType = "opened"  // an incident opened
	Closed  EventType = "closed"  // it closed
	Wanted  EventType = "wanted"  // the policies want Decision carried out: an Outcome is expected
	Decided EventType = "decided" // Record was added to the incident

	Switched EventType = "switched" // a breaker has another state
	Measured EventType = "measured" // it was seen whether holding a culprit helps
	Undone   EventType = "undone"   // a lease is to be ended early: its end is expected

	Answered EventType = "answered" // the policies answered something else about the incident than before; only where that is logged

	Tried    EventType = "tried"    // the tried policies alone would carry Decision out: TrialKnows is expected
	Passed   EventType = "passed"   // nothing stands against the tried policies: they are to be put in force
	Withheld EventType = "withheld" // something does, or something else than before
)

// Judge follows the samples.
type Judge struct {
	watch    *detect.Watch
	policies *policy.Set
	logs     bool   // answers are told
	trial    *Trial // nil where none is under way
	breakers *breaker.Set
	open     map[string]*docket
	host     model.Host
	asked    []policy.Input // with the last sample
}

// docket is an incident and where its decisions stand. It is open, or an outcome is
// still to come.
type docket struct {
	incident *model.Incident
	asked    int             // decisions so far
	next     time.Time       // when the policies are asked again
	wanted   *model.Decision // its outcome has not come yet
	// tried is until when a rule that is held to a dry run would hold the culprit. It keeps
	// the others from nothing.
	tried time.Time
	// said is what the policies answered last, and answers how often that was something else.
	said    string
	answers int
}

// New starts with nothing seen. No policies (nil) decide nothing.
func New(cfg detect.Config, policies *policy.Set, name detect.Namer) *Judge {
	return &Judge{watch: detect.NewWatch(cfg, name), policies: policies, breakers: breaker.New(breaker.DefaultConfig()), open: make(map[string]*docket)}
}

// SetPolicies changes the policies from the next sample on.
func (j *Judge) SetPolicies(policies *policy.Set) { j.policies = policies }

// SetThresholds changes the thresholds from the next sample on.
func (j *Judge) SetThresholds(cfg detect.Config) { j.watch.SetConfig(cfg) }

// Keyframe is the process table as it is now, for a recording to begin with.
func (j *Judge) Keyframe() model.Sample { return j.watch.Keyframe() }

// Asked are the inputs with which the policies were asked about incidents when the last
// sample came, or would have been if there were any.
func (j *Judge) Asked() []policy.Input { return j.asked }

// Open lists the open incidents, the oldest first.
func (j *Judge) Open() []model.Incident {
	var all []model.Incident
	for _, d := range j.open {
		if d.incident.State == model.Open {
			all = append(all, d.incident.Clone())
		}
	}
	slices.SortFunc(all, func(x, y model.Incident) int {
		return cmp.Or(x.OpenedAt.Compare(y.OpenedAt), strings.Compare(x.ID, y.ID))
	})
	return all
}

// Sample takes in the next sample.
func (j *Judge) Sample(ctx context.Context, s *model.Sample) []Event {
	j.host, j.asked = s.Host, nil
	changes := j.watch.Feed(s)
	j.shift(time.Duration(s.Lost.ClockJumpNS))
	events := j.feel(s)
	for _, c := range changes {
		d := j.open[c.Incident.ID]
		switch c.Type {
		case detect.Opened:
			d = &docket{incident: c.Incident}
			j.open[c.Incident.ID] = d
			events = append(events, Event{Type: Opened, Incident: c.Incident.Clone()})
		case detect.Closed:
			if d == nil || d.wanted == nil { // else its outcome is still to be told
				delete(j.open, c.Incident.ID)
			}
			events = append(events, Event{Type: Closed, Incident: c.Incident.Clone()})
			continue
		}
		// Nobody is held for what is over: an incident stays open for a while after the
		// trouble has gone, also where it has gone because the culprit was held.
		// Where nobody stands out there is nobody to be held, and no policy is asked.
		if c.Active && d != nil && c.Incident.Culprit.Known() && d.wanted == nil && !s.Time.Before(d.next) {
			events = append(events, j.ask(ctx, d, s.Time)...)
		}
	}
	return append(events, j.endTrial(s.Time, time.Duration(s.Lost.ClockJumpNS))...)
}

// shift moves along with the clock, by so much as it was set, when the incidents opened and
// are asked about again: else nobody would be asked until a clock that was set back has
// caught up, and no incident would be of any age.
func (j *Judge) shift(by time.Duration) {
	if by < time.Second && by > -time.Second {
		return
	}
	for _, d := range j.open {
		d.incident.OpenedAt = d.incident.OpenedAt.Add(by)
		d.next, d.tried = d.next.Add(by), d.tried.Add(by)
	}
}

// ask puts an incident to the policies, and to those that are tried.
func (j *Judge) ask(ctx context.Context, d *docket, now time.Time) []Event {
	d.next = now.Add(askAgain)
	in := d.incident
	input := policy.InputOf(in, j.breakers.Of(in.Culprit.Cgroup), j.host, now)
	j.asked = append(j.asked, input)
	if j.policies == nil || j.policies.Empty() { // also where it is not known what was in force, and a set is tried beside none
		return j.try(ctx, in, input, &policy.Verdict{Action: model.Action{Kind: model.NoAction}}, now)
	}
	v := j.policies.Decide(ctx, input)
	told := append(j.try(ctx, in, input, &v, now), j.log(d, input, v, now)...)
	return append(told, j.answer(d, v, now)...)
}

// answer goes on with what the policies in force say.
func (j *Judge) answer(d *docket, v policy.Verdict, now time.Time) []Event {
	in := d.incident
	switch {
	case v.Error != "":
		return j.record(d, model.DecisionRecord{At: now, Action: model.NoAction, Policy: v.Policy, Error: v.Error})
	case len(v.Denied) > 0:
		return j.record(d, model.DecisionRecord{At: now, Action: model.NoAction, RefusedBy: "policy", Policy: v.Policy, Reason: v.Denied[0].Reason})
	case v.Action.Kind == model.NoAction:
		return nil
	}
	resource, victims := sufferers(in)
	a := breaker.Answer{Action: v.Action}
	if !v.DryRun { // nobody is held by what is only tried out, and nothing can be learned from it
		a = j.breakers.Ask(breaker.Question{
			Cgroup: in.Culprit.Cgroup, Kind: in.Kind, Policy: v.Policy, IncidentID: in.ID, Action: v.Action, Resource: resource, Victims: victims,
		})
	}
	switch {
	case a.Refused != "" && a.Quiet:
		return nil
	case a.Refused != "":
		return j.record(d, model.DecisionRecord{
			At: now, Action: v.Action.Kind, Scope: v.Action.Scope, ForMS: v.Action.ForMS, RefusedBy: "breaker", Policy: v.Policy, Reason: a.Refused,
		})
	}
	scope := a.Action.Scope
	if scope == model.ScopeTree && in.Culprit.Scope == model.ScopeCgroup {
		// Nobody knows then who of the cgroup does not belong to the culprit.
		return j.record(d, model.DecisionRecord{
			At: now, Action: a.Action.Kind, Scope: scope, ForMS: a.Action.ForMS, RefusedBy: "bystanders", Policy: v.Policy,
			Reason: "the policy asks for a tree, and no single tree of the cgroup answers for the cause",
		})
	}
	if v.DryRun && now.Before(d.tried) {
		return nil
	}
	d.asked++
	target := model.Target{
		Cgroup: in.Culprit.Cgroup, CgroupID: in.Culprit.CgroupID, Root: in.Culprit.Root.ProcID,
		Scope: scope, Outside: in.Culprit.Outside,
	}
	d.wanted = &model.Decision{
		ID: fmt.Sprintf("%s-%d", in.ID, d.asked), IncidentID: in.ID, Kind: in.Kind, At: now,
		Action: a.Action, After: a.After, Target: target, Policy: v.Policy, PolicyHash: j.policies.Hash(), DryRun: v.DryRun,
		EvalUS: v.Elapsed.Microseconds(), OpenedAt: in.OpenedAt, Confidence: in.Confidence, Observed: j.watch.Observed(),
	}
	if !v.DryRun {
		j.breakers.Wanted(d.wanted, resource, victims, j.watch.Toll(in.Culprit.CgroupID, resource, victims, tollSpan))
	}
	return []Event{{Type: Wanted, Incident: in.Clone(), Decision: d.wanted}}
}

// Outcome takes in what became of a decision. One that nobody waits for is ignored: in
// a replay with other policies it was about something else.
func (j *Judge) Outcome(o model.Outcome) []Event {
	var learned []Event
	switched, release := j.breakers.Outcome(o)
	if switched != nil {
		learned = append(learned, Event{Type: Switched, Breaker: switched})
	}
	if release != nil {
		learned = append(learned, Event{Type: Undone, Release: release})
	}
	for _, d := range j.open {
		if d.wanted == nil || d.wanted.ID != o.DecisionID {
			continue
		}
		w := d.wanted
		d.wanted = nil
		if d.incident.State == model.Closed {
			delete(j.open, d.incident.ID)
		}
		switch {
		case o.Error != "":
			d.next = w.At.Add(askAfterError)
		case o.RefusedBy == "" && w.DryRun:
			d.tried = w.At.Add(w.Action.For() + askAgain)
		}
		return append(j.record(d, RecordOf(w, &o)), learned...)
	}
	return learned
}

// RecordOf is a decision and what became of it, as an incident tells it.
func RecordOf(d *model.Decision, o *model.Outcome) model.DecisionRecord {
	r := model.DecisionRecord{
		ID: d.ID, At: d.At, Action: d.Action.Kind, Scope: d.Target.Scope, ForMS: d.Action.ForMS,
		DryRun: o.DryRun, RefusedBy: o.RefusedBy, Reason: o.Reason, Policy: d.Policy,
		LeaseID: o.LeaseID, Error: o.Error,
	}
	if r.Reason == "" {
		r.Reason = d.Action.Reason
	}
	return r
}

// record adds to an incident what was decided, unless the same was decided before:
// a refusal that is repeated every second is one refusal.
func (j *Judge) record(d *docket, r model.DecisionRecord) []Event {
	in := d.incident
	if n := len(in.Decisions); n > 0 {
		last := in.Decisions[n-1]
		if r.LeaseID == "" && last.Action == r.Action && last.RefusedBy == r.RefusedBy && last.Policy == r.Policy && last.Error == r.Error {
			return nil
		}
	}
	if len(in.Decisions) >= keptRecords {
		in.Decisions = append(in.Decisions[:keptRecords/2], in.Decisions[keptRecords/2+1:]...)
	}
	in.Decisions = append(in.Decisions, r)
	return []Event{{Type: Decided, Incident: in.Clone(), Record: &r}}
}
