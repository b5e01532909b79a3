package judge

import (
	"time"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/model"
)

// Breakers are those of whom something is known, by the paths of their culprits.
func (j *Judge) Breakers() []model.Breaker { return j.breakers.All() }

// Snapshot is what the breakers know, to be given to Remember.
func (j *Judge) Snapshot() ([]byte, error) { return j.breakers.Snapshot() }

// Remember has the breakers begin with what is known already, before the first sample.
func (j *Judge) Remember(breakers *breaker.Set) { j.breakers = breakers }

// SetLearning changes how breakers learn from the next sample on.
func (j *Judge) SetLearning(cfg breaker.Config) { j.breakers.SetConfig(cfg) }

// feel looks at the victims of those who are held or were let go of, and moves the breakers
// on.
func (j *Judge) feel(s *model.Sample) (events []Event) {
	changed, releases := j.breakers.Advance(s.Time, time.Duration(s.Lost.ClockJumpNS))
	for _, b := range changed {
		events = append(events, Event{Type: Switched, Breaker: &b})
	}
	for _, r := range releases {
		events = append(events, Event{Type: Undone, Release: &r})
	}
	for _, w := range j.breakers.Watched() {
		b, r := j.breakers.Felt(w, j.watch.Toll(w.Culprit, w.Resource, w.Victims, w.Span))
		if b != nil {
			events = append(events, Event{Type: Measured, Breaker: b})
		}
		if r != nil {
			events = append(events, Event{Type: Undone, Release: r})
		}
	}
	return events
}

// Ended takes in that a lease has ended.
func (j *Judge) Ended(end model.LeaseEnd) []Event {
	if b := j.breakers.Ended(end); b != nil {
		return []Event{{Type: Switched, Breaker: b}}
	}
	return nil
}

// sufferers are the victims of an incident, and what they wait for.
func sufferers(in *model.Incident) (r model.Resource, victims []model.CgroupID) {
	r = model.CPU
	for _, v := range in.Victims {
		r = v.Resource
		victims = append(victims, v.CgroupID)
	}
	return r, victims
}

// tollSpan is how long is looked at before a culprit is held: as long as while it is.
const tollSpan = 2 * time.Second
