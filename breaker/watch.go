package breaker

import (
	"maps"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Watch is whom to look at, and over how long.
type Watch struct {
	Cgroup     string
	Generation uint64
	Culprit    model.CgroupID
	Resource   model.Resource
	Victims    []model.CgroupID
	Span       time.Duration
}

// Spans of what is looked at. After a culprit was loosened or let go, it is found out soon
// whether it goes on.
const (
	openSpan     = 2 * time.Second
	halfOpenSpan = time.Second
)

// Watched are those whose victims are to be looked at now.
func (s *Set) Watched() (all []Watch) {
	for _, path := range slices.Sorted(maps.Keys(s.byPath)) {
		b := s.byPath[path]
		w := Watch{path, b.Generation, b.Culprit, b.Resource, b.Victims, openSpan}
		switch {
		case b.State == model.BreakerHalfOpen:
			w.Span = halfOpenSpan
		case b.State != model.BreakerOpen || b.DryRun || b.Measured || s.now.Sub(b.Since) < s.cfg.ReliefAfter.D():
			continue
		}
		all = append(all, w)
	}
	return all
}

// Felt takes in what a culprit costs its victims. What reaches back to before the state
// began, or was asked for in another generation, says nothing.
func (s *Set) Felt(w Watch, now model.Toll) (changed *model.Breaker, release *Release) {
	b := s.byPath[w.Cgroup]
	if b == nil || b.Generation != w.Generation || now.SpanMS == 0 || s.now.Sub(b.Since) < now.Span() {
		return nil, nil
	}
	b.After = now
	if b.State == model.BreakerHalfOpen {
		b.again = suffersAgain(b.Before, now)
		return nil, nil
	}
	b.Measured, b.measuredAt = true, s.now
	b.LastEffect = s.cfg.effect(b.Before, now)
	switch {
	case b.LastEffect != model.EffectNone && b.LastEffect != model.EffectPartial:
	case b.Left > 0:
		b.climbing = s.now.Add(climbBound)
	case b.LastEffect == model.EffectNone:
		s.rest(b, true)
		release = &Release{b.LeaseID, model.EndNoRelief}
	}
	c := b.copy()
	return &c, release
}
