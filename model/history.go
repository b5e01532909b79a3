package model

import (
	"encoding/json"
	"errors"
	"time"
)

// ErrNoHistory says that there is no history to be asked; the text says why.
var ErrNoHistory = errors.New("there is no history")

// ErrNotKept says that history does not have it, or not any more.
var ErrNotKept = errors.New("not in the history")

// HistoryState is how the history is doing.
type HistoryState struct {
	// Problem says why nothing is written, and what to do; "" if all is well.
	Problem string
	// SetAside is where a damaged file was put; "" if there was none.
	SetAside string
	Bytes    int64  // on the disk
	Dropped  uint64 // records that found no room while nothing could be written
}

// IncidentFilter says which incidents are asked for. What is empty does not matter.
type IncidentFilter struct {
	Since, Until time.Time // those that were open at some time between them
	Kind         Kind
	Cgroup       string // the culprit's, or one above it
	Unit         string // the culprit's
	Most         int    // the newest so many; 0 is all
}

// Story is all that history keeps of an incident.
type Story struct {
	Incident
	// Host is the machine as it was when the incident was last seen; nil if it is not kept.
	Host *Host `json:"host,omitempty"`
	// Inputs are what the policies saw when they were asked first and last; none where they
	// are not kept, which they are of the newest incidents only.
	Inputs   []json.RawMessage `json:"inputs,omitempty"`
	Verdicts []Verdict         `json:"verdicts,omitempty"`
	Holds    []Hold            `json:"holds,omitempty"`
	Moments  []Moment          `json:"moments,omitempty"`
}

// Verdict is a decision about an incident and what became of it. What is decided again
// and again in a row is one verdict, with how often.
type Verdict struct {
	DecisionRecord
	IncidentID string    `json:"incident_id"`
	Target     *Target   `json:"target,omitempty"` // nil where nothing was proposed
	PolicyHash string    `json:"policy_hash,omitempty"`
	InputHash  string    `json:"input_hash,omitempty"` // of what the policies saw; "" where the decision log is off
	EvalUS     int64     `json:"eval_us,omitempty"`
	Confidence float64   `json:"confidence,omitempty"`
	Times      int       `json:"times"`
	LastAt     time.Time `json:"last_at"`
}

// Repeats reports whether a verdict says what the one before it said.
func (v *Verdict) Repeats(before *Verdict) bool {
	return v.LeaseID == "" && before.LeaseID == "" && v.Action == before.Action && v.RefusedBy == before.RefusedBy &&
		v.Policy == before.Policy && v.Error == before.Error && v.PolicyHash == before.PolicyHash
}

// Hold is a lease, and what the victims of its incident went through.
type Hold struct {
	Lease
	// Before is how long each victim had waited when the lease began, since the incident
	// opened, and During how long it waited while the lease ran. Where nothing was written
	// (a dry run), During is what it would have been spared.
	Before []Victim `json:"before"`
	During []Victim `json:"during"`
}

// Moment is what was seen around an incident, of about a second while it is young and
// of longer stretches later.
type Moment struct {
	At       time.Time `json:"at"` // its end
	LengthMS float64   `json:"length_ms"`
	// Pressure of the host (some), in percent of the moment.
	CPUPercent    float64 `json:"cpu_percent"`
	MemoryPercent float64 `json:"memory_percent"`
	IOPercent     float64 `json:"io_percent"`
	// Of the culprit's cgroup.
	RunMS float64 `json:"run_ms"`
	Forks uint64  `json:"forks"`
	// StallMS is how long the victims waited because of it, added up; 0 before the incident
	// opened.
	StallMS float64 `json:"stall_ms"`
}

// Chronicle is what history keeps of a stretch of time: what a report is made of.
type Chronicle struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Began is how far back history reaches; nothing is known of what was before.
	Began time.Time `json:"began"`
	// Stories are the incidents that were open in it, the oldest first.
	Stories []Story `json:"stories"`
}
