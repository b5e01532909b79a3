package model

import "time"

// BreakerState says whether a culprit is held, watched, or neither.
type BreakerState string

// The states of a breaker.
const (
	BreakerClosed   BreakerState = "closed"    // nothing is held
	BreakerOpen     BreakerState = "open"      // the lease runs
	BreakerHalfOpen BreakerState = "half_open" // loosened or let go of, and watched closely
)

// BreakerStates lists them.
var BreakerStates = []BreakerState{BreakerClosed, BreakerOpen, BreakerHalfOpen}

// Effect says whether it helped the victims that a culprit was held.
type Effect string

// The effects. Where nothing was measured nothing is known: in a dry run nobody is held,
// and a hold may be too short.
const (
	EffectUnknown  Effect = "unknown"
	EffectRelieved Effect = "relieved" // they are spared what the culprit was blamed for
	EffectPartial  Effect = "partial"  // they are spared some, and it makes them wait still
	EffectNone     Effect = "none"     // they wait as before: it was somebody else
)

// Effects lists them.
var Effects = []Effect{EffectUnknown, EffectRelieved, EffectPartial, EffectNone}

// Breaker is what is known of holding one culprit, which is a cgroup by its path: a service
// that is started again does not begin anew.
type Breaker struct {
	Cgroup string       `json:"cgroup"`
	State  BreakerState `json:"state"`
	// Generation counts the changes of the state. What was asked or measured in one says
	// nothing about the next.
	Generation uint64    `json:"generation"`
	Since      time.Time `json:"since"` // when the state began
	// Opened is how often it opened of late: what was fine for long enough is forgiven.
	Opened int `json:"opened"`
	// Rung is the action of the policy's ladder that it is at, 0 for the first.
	Rung       int        `json:"rung"`
	Kind       Kind       `json:"incident_kind"` // of the trouble for which it opened last
	IncidentID string     `json:"incident_id"`
	LeaseID    string     `json:"lease_id"` // of the last lease
	Until      *time.Time `json:"until"`    // when that ends at the latest
	// EasesAt is when the lease is loosened half way; nil where it is not. Eased says that it
	// was, and that it is held still.
	EasesAt    *time.Time `json:"eases_at,omitempty"`
	Eased      bool       `json:"eased,omitempty"`
	DryRun     bool       `json:"dry_run"`
	LastEffect Effect     `json:"last_effect"`
	LastEnd    EndReason  `json:"last_end"` // of the last lease; "" where there was none
	Before     Toll       `json:"before"`   // what it cost others before it was held
	After      Toll       `json:"after"`    // and afterwards, as it was measured last
	// Resting are the kinds of trouble for which it is left alone.
	Resting []Rest `json:"resting"`
}

// Rest says that a culprit is left alone for a while.
type Rest struct {
	Kind  Kind      `json:"incident_kind"`
	Until time.Time `json:"until"`
	// Refuted says that holding it did not help its victims; else somebody let it go.
	Refuted bool `json:"refuted"`
}

// Refuted reports whether holding the culprit for this kind of trouble was seen not to help,
// and not long ago.
func (b *Breaker) Refuted(kind Kind, now time.Time) bool {
	for _, r := range b.Resting {
		if r.Kind == kind && r.Refuted && now.Before(r.Until) {
			return true
		}
	}
	return false
}

// Toll is what a culprit costs its victims in each second.
type Toll struct {
	// CulpritMS is how long the culprit made them wait, OthersMS how long anybody else than
	// themselves did.
	CulpritMS float64 `json:"culprit_ms_per_second"`
	OthersMS  float64 `json:"others_ms_per_second"`
	// Growth is how many processes the culprit's cgroup made, less those that ended.
	Growth float64 `json:"net_growth_per_second"`
	SpanMS float64 `json:"span_ms"` // that was looked at; 0 where nothing was
}

// Span is the time that was looked at.
func (t *Toll) Span() time.Duration { return time.Duration(t.SpanMS * float64(time.Millisecond)) }

// LeaseEnd tells that a lease has ended.
type LeaseEnd struct {
	LeaseID string    `json:"lease_id"`
	Reason  EndReason `json:"end_reason"`
	At      time.Time `json:"ended_at,omitzero"` // zero where nobody knows
}
