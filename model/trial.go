package model

import "time"

// PolicyTrial is how a set of policies fares that is tried beside the one in force, on the
// same incidents. Nothing is done because of it.
type PolicyTrial struct {
	Hash string `json:"hash"`
	// Since and Until are when it began, and when the set comes into force if nothing
	// stands against it.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Asked counts how often an incident was put to both sets.
	Asked uint64 `json:"asked"`
	// More are those whom this set would hold and the one in force would not, Fewer how
	// often it was the other way round.
	More  []TrialTouch `json:"more"`
	Fewer uint64       `json:"fewer"`
	// Errors counts evaluations of this set that failed; with one, nothing is ever done.
	Errors    uint64 `json:"errors"`
	LastError string `json:"last_error,omitempty"`
	// Withheld says why the set is not in force although its time has come; "" before.
	Withheld string `json:"withheld,omitempty"`
}

// TrialTouch is somebody whom only the tried set would hold.
type TrialTouch struct {
	Cgroup string     `json:"cgroup"`
	Kind   Kind       `json:"kind"` // of the incident
	Action ActionKind `json:"action"`
	Scope  Scope      `json:"scope"`
	Policy string     `json:"policy"`
	At     time.Time  `json:"at"` // first
	Times  uint64     `json:"times"`
	// Against says why the set must not come into force by itself because of that; "" where
	// nothing does.
	Against string `json:"against"`
}
