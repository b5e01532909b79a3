package report

import (
	"cmp"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Bounds of a report, so that a week in which a thousand things were held is read, and
// written, too.
const (
	maxHolds    = 100
	maxRows     = 50
	maxKeys     = 5000 // of what is counted by name
	maxCharts   = 6
	maxNames    = 5
	maxFlapLook = 64 // holds of one target that are compared
	laneSlots   = 1000
)

// Builder takes in one story after the other, and keeps only what a report says of them.
type Builder struct {
	report   Report
	kinds    map[model.Kind]*KindCount
	policies map[string]*Policy
	victims  map[victimKey]*Spared
	others   map[targetKey]*OtherHit
	guards   map[string]*Guard
	targets  map[targetKey][]Flap // one for each hold
	unable   map[targetKey]*Refusal
	failed   map[targetKey]*Refusal
	lanes    map[laneKey][]uint8
	leftOut  map[string]int
	heard    map[string]time.Time // when each policy first said anything, by its name
}

type victimKey struct {
	cgroup   string
	resource model.Resource
}

type targetKey struct{ policy, cgroup string }

// New begins a report over a stretch of time.
func New(since, until time.Time) *Builder {
	return &Builder{
		report: Report{Since: since.UTC(), Until: until.UTC(), Holds: []Hold{}, Charts: []Chart{}},
		kinds:  map[model.Kind]*KindCount{}, policies: map[string]*Policy{}, victims: map[victimKey]*Spared{}, others: map[targetKey]*OtherHit{},
		guards: map[string]*Guard{}, targets: map[targetKey][]Flap{}, unable: map[targetKey]*Refusal{}, failed: map[targetKey]*Refusal{},
		lanes: map[laneKey][]uint8{}, leftOut: map[string]int{}, heard: map[string]time.Time{},
	}
}

// Of is the report of a chronicle.
func Of(c *model.Chronicle) *Report {
	b := New(c.Since, c.Until)
	for i := range c.Stories {
		b.Add(&c.Stories[i])
	}
	return b.Report(c.Began)
}

// From is from when on stories should be added: what was before the report's time tells
// only which policy is no new one.
func (b *Builder) From() time.Time { return b.report.Since.Add(-enoughTime) }

// Add takes in a story.
func (b *Builder) Add(s *model.Story) {
	b.hear(s)
	if s.ClosedAt != nil && s.ClosedAt.Before(b.report.Since) {
		return
	}
	b.incident(s)
	answered := false
	spoke := make(map[*Policy]bool) // about this incident
	refusedBy := make(map[string]bool)
	infeasible := make(map[*Policy]bool)
	for i := range s.Verdicts {
		v := &s.Verdicts[i]
		if v.LastAt.Before(b.report.Since) || v.At.After(b.report.Until) {
			continue
		}
		answered = true // also where it cannot be told whose error it was
		p := b.policy(v.Policy, v.At, v.LastAt)
		if p != nil {
			spoke[p] = true
			p.hash(v.PolicyHash)
		}
		b.verdict(s, v, p, refusedBy)
		if v.RefusedBy == "feasibility" && p != nil {
			infeasible[p] = true
		}
	}
	for p := range infeasible {
		p.Infeasible++
	}
	for i := range s.Holds {
		h := &s.Holds[i]
		if at := begun(h); at.Before(b.report.Since) || at.After(b.report.Until) {
			continue
		}
		b.hold(s, h)
	}
	for p := range spoke {
		p.Incidents++
	}
	if !answered && s.Level != model.Info {
		b.report.Totals.Unanswered++
	}
}

// hear notes when a policy first said anything.
func (b *Builder) hear(s *model.Story) {
	for i := range s.Verdicts {
		v := &s.Verdicts[i]
		first, known := b.heard[v.Policy]
		if v.At.Before(first) || !known && len(b.heard) < maxKeys {
			b.heard[v.Policy] = v.At
		}
	}
}

// count finds or makes what is counted under a key; nil where there are too many.
func count[K comparable, V any](b *Builder, all map[K]*V, key K, what string) (v *V, fresh bool) {
	if v, known := all[key]; known {
		return v, false
	}
	if len(all) >= maxKeys {
		b.leftOut[what]++
		return nil, false
	}
	v = new(V)
	all[key] = v
	return v, true
}

func (b *Builder) incident(s *model.Story) {
	t := &b.report.Totals
	t.Incidents++
	k, fresh := count(b, b.kinds, s.Kind, "kinds")
	if k == nil {
		return
	}
	if fresh {
		k.Kind = s.Kind
	}
	k.Count++
	weight := 1
	switch s.Level {
	case model.Warning:
		k.Warning++
		t.Trouble++
		weight = 2
	case model.Critical:
		k.Critical++
		t.Trouble++
		weight = 3
	}
	for _, v := range s.Incident.Victims {
		k.StallMS += v.StallMS
	}
	until := b.report.Until
	if s.ClosedAt != nil {
		until = *s.ClosedAt
	}
	b.mark(laneKey{false, string(s.Kind)}, s.OpenedAt, until, weight)
}

func (b *Builder) policy(name string, first, last time.Time) *Policy {
	if name == "" {
		return nil
	}
	p, fresh := count(b, b.policies, name, "policies")
	if p == nil {
		return nil
	}
	if fresh {
		*p = Policy{Policy: name, FirstAt: first, LastAt: last, Hashes: []string{}}
	}
	if first.Before(p.FirstAt) {
		p.FirstAt = first
	}
	if last.After(p.LastAt) {
		p.LastAt = last
	}
	return p
}

func (p *Policy) hash(hash string) {
	if hash != "" && len(p.Hashes) < maxNames && !slices.Contains(p.Hashes, hash) {
		p.Hashes = append(p.Hashes, hash)
	}
}

// verdict counts a refusal or a failure; what was held is told by its lease.
func (b *Builder) verdict(s *model.Story, v *model.Verdict, p *Policy, refusedBy map[string]bool) {
	t := &b.report.Totals
	times := max(1, v.Times)
	key := targetKey{v.Policy, s.Culprit.Cgroup}
	switch {
	case v.Error != "":
		t.Failed += times
		if p != nil {
			p.Failed += times
			p.failure = cmp.Or(p.failure, v.Error)
		}
		b.refusal(b.failed, key, "", v.Error, times)
		return
	case v.RefusedBy == "":
		return
	case v.RefusedBy == "policy":
		t.Denied += times
		if p != nil {
			p.Denied += times
		}
	default:
		t.Refused += times
		if p != nil {
			p.Refused += times
			if v.RefusedBy == "protected" {
				p.Protected += times
			}
		}
	}
	if v.RefusedBy == "feasibility" || v.RefusedBy == "bystanders" {
		b.refusal(b.unable, key, v.RefusedBy, v.Reason, times)
	}
	g, fresh := count(b, b.guards, v.RefusedBy, "guards")
	if g == nil {
		return
	}
	if fresh {
		*g = Guard{Guard: v.RefusedBy, Policies: []string{}, Example: v.Reason, Cgroup: s.Culprit.Cgroup}
	}
	g.Times += times
	if !refusedBy[v.RefusedBy] {
		refusedBy[v.RefusedBy] = true
		g.Incidents++
	}
	if v.Policy != "" && len(g.Policies) < maxNames && !slices.Contains(g.Policies, v.Policy) {
		g.Policies = append(g.Policies, v.Policy)
	}
}

func (b *Builder) refusal(all map[targetKey]*Refusal, key targetKey, guard, why string, times int) {
	r, fresh := count(b, all, key, "refusals")
	if r == nil {
		return
	}
	if fresh {
		*r = Refusal{Cgroup: key.cgroup, Policy: key.policy, Guard: guard, Why: why}
	}
	r.Times += times
}
