// Package breaker keeps a circuit breaker for each culprit:
//
//	closed ──▶ open (the lease runs) ──▶ half-open (watched) ──▶ closed
//	             ▲                            │
//	             └──── for twice the time ────┘
//
// It is half-open from when the culprit is loosened half way, if it is a throttle that is, and
// anew from when it is let go.
//
// It is pure: decisions, outcomes, the ends of leases and what the victims suffer come in
// with the time of the samples, and the same in the same order gives the same out. It can
// only make less happen than the policies ask for, or for longer within the maximum; the
// guards of the enforcer come after it.
package breaker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

const (
	// longest is what doubling never exceeds. The enforcer holds nothing longer either.
	longest = 10 * time.Minute
	// most bounds the breakers: 1 KB each.
	most = 1024
	// endSlack is how much later than planned the end of a lease may be heard of before it
	// is taken for ended, and how much later it may be loosened: no lease outlives its time.
	endSlack = time.Second
	// climbBound is how long the next rung may take to be wanted and answered for. The
	// enforcer answers within 5 s.
	climbBound = 8 * time.Second
)

// Set holds the breakers.
type Set struct {
	cfg    Config
	now    time.Time
	quiet  time.Time // nothing is asked for before
	byPath map[string]*breaker
}

// breaker is one culprit's. It is also what is kept on disk.
type breaker struct {
	model.Breaker
	Culprit  model.CgroupID   `json:"culprit_id"`
	Resource model.Resource   `json:"resource"`
	Victims  []model.CgroupID `json:"victims"`
	Policy   string           `json:"policy"` // whose ladder, for its kind of trouble, Rung is of
	Left     int              `json:"rungs_left"`
	Measured bool             `json:"measured"` // since it opened

	pending    *model.Decision // its outcome has not come yet
	madeWay    bool            // what was held has ended for it
	climbs     bool            // it is the next rung
	climbing   time.Time       // not zero: the next rung is wanted until then
	again      bool            // half-open: the victims suffer again
	measuredAt time.Time       // zero before, and where that was before a restart
}

// New has every breaker closed.
func New(cfg Config) *Set { return &Set{cfg: cfg, byPath: make(map[string]*breaker)} }

// SetConfig changes how they learn from now on.
func (s *Set) SetConfig(cfg Config) { s.cfg = cfg }

// Of is the breaker of a culprit. One of whom nothing is known has a closed one.
func (s *Set) Of(cgroup string) model.Breaker {
	if b := s.byPath[cgroup]; b != nil {
		return b.copy()
	}
	return Unknown(cgroup)
}

// Unknown is the breaker of a culprit of whom nothing is known.
func Unknown(cgroup string) model.Breaker {
	return model.Breaker{Cgroup: cgroup, State: model.BreakerClosed, LastEffect: model.EffectUnknown}
}

// All are the breakers of those of whom something is known, by their paths.
func (s *Set) All() []model.Breaker {
	all := make([]model.Breaker, 0, len(s.byPath))
	for _, path := range slices.Sorted(maps.Keys(s.byPath)) {
		all = append(all, s.byPath[path].copy())
	}
	return all
}

func (b *breaker) copy() model.Breaker {
	c := b.Breaker
	c.Resting = slices.Clone(b.Resting)
	return c
}

// Question is what the policies want done about a culprit.
type Question struct {
	Cgroup     string
	Kind       model.Kind
	Policy     string
	IncidentID string
	Action     model.Action // with what follows it
	Resource   model.Resource
	Victims    []model.CgroupID
}

// Answer is what may be asked of the enforcer.
type Answer struct {
	Action model.Action // for as long as this time
	After  string       // the lease whose place it takes
	// Refused says why nothing may; "" if it may. Quiet says that this is how it should be,
	// and nothing to tell: the incident is the one for which the culprit is held.
	Refused string
	Quiet   bool
}

// Ask answers a question. What it allows has to be told to Wanted.
func (s *Set) Ask(q Question) Answer {
	b := s.byPath[q.Cgroup]
	ladder := q.Action.Ladder()
	switch {
	case s.now.Before(s.quiet):
		return Answer{Refused: fmt.Sprintf("breakerd has just started, and nothing is asked for before %s", stamp(s.quiet))}
	case s.chases(&q) != "":
		return Answer{Refused: s.chases(&q)}
	case b == nil && len(s.byPath) >= most && !s.forget():
		return Answer{Refused: fmt.Sprintf("%d culprits are held or watched already", most)}
	case b == nil:
		return s.allow(ladder, 0, 0, "")
	}
	own := b.IncidentID == q.IncidentID
	rung := 0
	if b.on(q.Kind, q.Policy) {
		rung = b.Rung
	}
	for _, r := range b.Resting {
		if r.Kind == q.Kind && s.now.Before(r.Until) {
			return Answer{Refused: restReason(r), Quiet: own && b.State == model.BreakerOpen}
		}
	}
	switch {
	case b.pending != nil:
		return Answer{Refused: "a decision about it is under way", Quiet: true}
	case b.State == model.BreakerOpen && !b.climbing.IsZero() && own && b.Policy == q.Policy && b.Rung+1 < len(ladder):
		return s.allow(ladder, b.Rung+1, b.Opened-1, b.LeaseID)
	case b.State == model.BreakerOpen:
		return Answer{Refused: fmt.Sprintf("it is held already, by lease %s", b.LeaseID), Quiet: own}
	case b.State == model.BreakerHalfOpen && b.Kind == q.Kind && !b.again:
		return Answer{Refused: "it was loosened or let go, and its victims do not suffer from it so far", Quiet: true}
	case b.Eased && b.Kind != q.Kind:
		return Answer{Refused: fmt.Sprintf("it is held still, if more loosely, by lease %s", b.LeaseID)}
	case b.Eased:
		return s.allow(ladder, rung, b.Opened, b.LeaseID)
	}
	return s.allow(ladder, rung, b.Opened, "")
}

// on says that a ladder is that on which the breaker stands: which action of one gave no
// relief says nothing of another.
func (b *breaker) on(kind model.Kind, policy string) bool {
	return b.Kind == kind && b.Policy == policy
}

// chases says why a culprit is not to be held because another one was, for the same trouble:
// somebody waits for the same, and it did not help to hold who seemed to be the cause. Going
// on to the next would hold one after the other.
func (s *Set) chases(q *Question) string {
	for _, path := range slices.Sorted(maps.Keys(s.byPath)) {
		b := s.byPath[path]
		if path == q.Cgroup || b.Resource != q.Resource || !shares(b.Victims, q.Victims) {
			continue
		}
		for _, r := range b.Resting {
			if r.Refuted && s.now.Before(r.Until) {
				return fmt.Sprintf("holding %s did not help the same victims, and nobody else is held for them until %s", path, stamp(r.Until))
			}
		}
	}
	return ""
}

func shares(a, b []model.CgroupID) bool {
	return slices.ContainsFunc(a, func(id model.CgroupID) bool { return slices.Contains(b, id) })
}

// allow gives the action of a rung, for twice the time for each time that it opened of late.
func (s *Set) allow(ladder []model.Action, rung, opened int, after string) Answer {
	rung = min(rung, len(ladder)-1)
	a := ladder[rung]
	a.Then = slices.Clone(ladder[rung+1:])
	for range opened {
		if a.For() >= longest {
			break
		}
		a.ForMS *= 2
	}
	a.ForMS = min(a.ForMS, max(longest.Milliseconds(), ladder[rung].ForMS))
	return Answer{Action: a, After: after}
}

func restReason(r model.Rest) string {
	if r.Refuted {
		return fmt.Sprintf("holding it for %s did not help its victims, and it is left alone until %s", r.Kind, stamp(r.Until))
	}
	return fmt.Sprintf("an operator let it go, and it is left alone until %s", stamp(r.Until))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Wanted tells that a decision was made that Ask allowed, and what the culprit costs its
// victims now.
func (s *Set) Wanted(d *model.Decision, r model.Resource, victims []model.CgroupID, before model.Toll) {
	b := s.byPath[d.Target.Cgroup]
	if b == nil {
		b = &breaker{Breaker: model.Breaker{
			Cgroup: d.Target.Cgroup, State: model.BreakerClosed, Since: s.now, LastEffect: model.EffectUnknown, Resting: []model.Rest{},
		}}
		s.byPath[d.Target.Cgroup] = b
	}
	b.pending, b.madeWay, b.climbs = d, false, d.After != "" && b.State == model.BreakerOpen
	if d.After == "" { // else what counts is how it was before anything was held
		b.Culprit, b.Resource, b.Victims, b.Before = d.Target.CgroupID, r, victims, before
	}
}

// Release asks for the early end of a lease.
type Release struct {
	LeaseID string
	Reason  model.EndReason
}

// Outcome takes in what became of a decision. One that nobody waits for changes nothing.
func (s *Set) Outcome(o model.Outcome) (changed *model.Breaker, release *Release) {
	for _, b := range s.byPath {
		if b.pending == nil || b.pending.ID != o.DecisionID {
			continue
		}
		d, climbed, madeWay := b.pending, b.climbs, b.madeWay
		b.pending, b.madeWay = nil, false
		switch {
		case o.Error == "" && o.RefusedBy == "":
			if climbed {
				b.Rung++
			} else {
				b.Opened++
				if !b.on(d.Kind, d.Policy) {
					b.Rung = 0
				}
			}
			until := d.At.Add(d.Action.For())
			b.Kind, b.Policy, b.IncidentID, b.LeaseID, b.Until, b.DryRun = d.Kind, d.Policy, d.IncidentID, cmp.Or(o.LeaseID, d.ID), &until, o.DryRun
			b.EasesAt, b.Eased = o.EasesAt, false
			b.Left, b.Measured, b.measuredAt, b.climbing = len(d.Action.Then), false, time.Time{}, time.Time{}
			b.turn(model.BreakerOpen, s.now)
		case madeWay: // for nothing
			s.halfOpen(b, model.EndReplaced)
		case climbed && b.State == model.BreakerOpen && o.RefusedBy == "approval":
			// A person is asked. The rung before goes on meanwhile, to its end at the latest.
			b.climbing = b.Since.Add(time.Duration(d.Action.ApprovalMS)*time.Millisecond + climbBound)
			return nil, nil
		case climbed && b.State == model.BreakerOpen:
			// The rung before goes on, unless it gave nothing.
			return nil, s.stay(b)
		default:
			return nil, nil
		}
		c := b.copy()
		return &c, nil
	}
	return nil, nil
}

// stay gives up the next rung.
func (s *Set) stay(b *breaker) *Release {
	b.climbing, b.Left = time.Time{}, 0
	if b.LastEffect == model.EffectNone {
		return &Release{b.LeaseID, model.EndNoRelief}
	}
	return nil
}

// turn begins a state, and with it a generation.
func (b *breaker) turn(state model.BreakerState, now time.Time) {
	b.State, b.Since = state, now
	b.Generation++
	b.again = false
}

// Ended tells that a lease has ended. One of an older generation changes nothing.
func (s *Set) Ended(end model.LeaseEnd) *model.Breaker {
	for _, b := range s.byPath {
		if b.State != model.BreakerOpen && !b.Eased || b.LeaseID != end.LeaseID {
			continue
		}
		if end.Reason == model.EndReplaced && b.pending != nil {
			b.madeWay = true // for the next action, whose outcome is under way
			return nil
		}
		if !end.At.IsZero() && end.At.Before(b.measuredAt) {
			b.retract()
		}
		s.halfOpen(b, end.Reason)
		c := b.copy()
		return &c
	}
	return nil
}

// retract takes back what was measured of a culprit that, as is heard only now, had been let
// go of before: where the enforcer is killed, what it held is undone before anybody is told.
func (b *breaker) retract() {
	b.LastEffect = model.EffectUnknown
	b.Resting = slices.DeleteFunc(b.Resting, func(r model.Rest) bool { return r.Refuted && r.Kind == b.Kind })
}

func (s *Set) halfOpen(b *breaker, reason model.EndReason) {
	b.LastEnd, b.Eased, b.climbing = reason, false, time.Time{}
	if reason == model.EndReleased {
		s.rest(b, false)
	}
	b.turn(model.BreakerHalfOpen, s.now)
}

// ease begins to watch a culprit that is held still, but not as tightly. From that it is let go
// of it is watched anew: what it did while there was a limit says little.
func (b *breaker) ease(now time.Time) {
	b.Eased, b.climbing = true, time.Time{}
	b.turn(model.BreakerHalfOpen, now)
}

// rest has the culprit left alone for the kind of trouble for which it was held.
func (s *Set) rest(b *breaker, refuted bool) {
	b.Resting = slices.DeleteFunc(b.Resting, func(r model.Rest) bool { return r.Kind == b.Kind })
	b.Resting = append(b.Resting, model.Rest{Kind: b.Kind, Until: s.now.Add(s.cfg.RefutedFor.D()), Refuted: refuted})
}

// Advance moves on to the time of a sample. jumped is by how much the clock was set within
// it: all that is planned moves along.
func (s *Set) Advance(now time.Time, jumped time.Duration) (changed []model.Breaker, releases []Release) {
	if jumped >= time.Second || jumped <= -time.Second {
		s.shift(jumped)
	}
	s.now = now
	for _, path := range slices.Sorted(maps.Keys(s.byPath)) {
		b := s.byPath[path]
		generation := b.Generation
		b.Resting = slices.DeleteFunc(b.Resting, func(r model.Rest) bool { return !now.Before(r.Until) })
		switch b.State {
		case model.BreakerOpen:
			switch {
			case b.Until == nil || now.Sub(*b.Until) >= endSlack:
				s.halfOpen(b, model.EndExpired)
			case !b.climbing.IsZero() && b.pending == nil && !now.Before(b.climbing):
				if r := s.stay(b); r != nil {
					releases = append(releases, *r)
				}
			case b.EasesAt != nil && b.pending == nil && now.Sub(*b.EasesAt) >= endSlack:
				b.ease(now)
			}
		case model.BreakerHalfOpen:
			switch {
			case b.pending != nil:
			case b.Eased && (b.Until == nil || now.Sub(*b.Until) >= endSlack):
				s.halfOpen(b, model.EndExpired)
			case !b.Eased && now.Sub(b.Since) >= s.cfg.WatchFor.D():
				b.turn(model.BreakerClosed, now)
			}
		case model.BreakerClosed:
			for b.Opened > 0 && now.Sub(b.Since) >= s.cfg.ForgiveAfter.D() {
				b.Opened--
				b.Since = b.Since.Add(s.cfg.ForgiveAfter.D())
			}
			if b.Opened > 0 {
				break
			}
			b.Rung = 0
			if len(b.Resting) == 0 && b.pending == nil {
				delete(s.byPath, path)
			}
		}
		if b.Generation != generation {
			changed = append(changed, b.copy())
		}
	}
	return changed, releases
}

func (s *Set) shift(by time.Duration) {
	s.quiet = s.quiet.Add(by)
	for _, b := range s.byPath {
		b.Since = b.Since.Add(by)
		b.Until, b.EasesAt = shifted(b.Until, by), shifted(b.EasesAt, by)
		if !b.climbing.IsZero() {
			b.climbing = b.climbing.Add(by)
		}
		if !b.measuredAt.IsZero() {
			b.measuredAt = b.measuredAt.Add(by)
		}
		for i := range b.Resting {
			b.Resting[i].Until = b.Resting[i].Until.Add(by)
		}
	}
}

func shifted(t *time.Time, by time.Duration) *time.Time {
	if t == nil {
		return nil
	}
	moved := t.Add(by)
	return &moved
}

// forget makes room: of those that are closed the one that has been so for longest goes.
func (s *Set) forget() bool {
	var oldest *breaker
	for _, b := range s.byPath {
		if b.State != model.BreakerClosed || b.pending != nil {
			continue
		}
		if oldest == nil || cmp.Or(b.Since.Compare(oldest.Since), cmp.Compare(b.Cgroup, oldest.Cgroup)) < 0 {
			oldest = b
		}
	}
	if oldest == nil {
		return false
	}
	delete(s.byPath, oldest.Cgroup)
	return true
}
