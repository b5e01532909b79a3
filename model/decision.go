package model

import "time"

// ActionKind is a way to hold a culprit.
type ActionKind string

// The actions, from the mildest.
const (
	NoAction ActionKind = "none"
	Throttle ActionKind = "throttle"
	Freeze   ActionKind = "freeze"
)

// Action is what a policy asks for. Limits are zero where nothing was said.
type Action struct {
	Kind       ActionKind `json:"kind"`
	Scope      Scope      `json:"scope"`
	ForMS      int64      `json:"for_ms"`
	Reason     string     `json:"reason"`
	Priority   int        `json:"priority,omitempty"`
	CPUPercent float64    `json:"cpu_percent,omitempty"` // of one CPU
	MemoryHigh uint64     `json:"memory_high,omitempty"` // bytes
	IOPercent  float64    `json:"io_percent,omitempty"`
	PIDsMax    uint64     `json:"pids_max,omitempty"`
	// EaseMS is the last part of ForMS, in which the limits of a throttle are loosened half
	// way; 0 is none.
	EaseMS int64 `json:"ease_ms,omitempty"`
	// ApprovalMS is how long a person may take to say yes to it; 0 asks nobody.
	ApprovalMS int64 `json:"approval_ms,omitempty"`
	// Then are the next actions, each to be taken only where the one before gave no relief.
	Then []Action `json:"then,omitempty"`
}

// For is how long the action may hold.
func (a Action) For() time.Duration { return time.Duration(a.ForMS) * time.Millisecond }

// Ease is how long before its end a throttle is loosened half way.
func (a Action) Ease() time.Duration { return time.Duration(a.EaseMS) * time.Millisecond }

// Ladder is the action and those that follow it, each without what follows.
func (a Action) Ladder() []Action {
	all := append([]Action{a}, a.Then...)
	all[0].Then = nil
	return all
}

// Decision is what the policies want done about an incident. It is a request:
// the guards have not been asked yet.
type Decision struct {
	// ID is the incident's with a running number: the same samples and policies
	// give the same ID, and an ID is carried out at most once.
	ID         string    `json:"id"`
	IncidentID string    `json:"incident_id"`
	Kind       Kind      `json:"incident_kind"`
	At         time.Time `json:"at"`
	Action     Action    `json:"action"`
	Target     Target    `json:"target"`
	Policy     string    `json:"policy"`      // the package whose rule won
	PolicyHash string    `json:"policy_hash"` // of the whole set
	Denied     []string  `json:"denied,omitempty"`
	EvalUS     int64     `json:"eval_us"` // how long the policies took
	// DryRun says that the author of the rule holds it to a dry run: whatever the mode is,
	// this is gone through and never carried out.
	DryRun bool `json:"dry_run,omitempty"`
	// OpenedAt is when the incident opened, Confidence (0 to 1) how sure its verdict on the
	// culprit is, and Observed (0 to 1) the part of what happened of late that was seen.
	OpenedAt   time.Time `json:"opened_at"`
	Confidence float64   `json:"confidence"`
	Observed   float64   `json:"observed"`
	// After is the lease whose place this one takes: the one before on the ladder.
	After string `json:"after,omitempty"`
}

// Target is what a decision would act on.
type Target struct {
	Cgroup   string   `json:"cgroup"`
	CgroupID CgroupID `json:"cgroup_id"`
	Root     ProcID   `json:"root"`
	Scope    Scope    `json:"scope"`
	Outside  int      `json:"outside"` // processes of the cgroup that are not of the tree
}

// Outcome is what became of a decision. A refusal is a value, not an error.
type Outcome struct {
	DecisionID string `json:"decision_id"`
	DryRun     bool   `json:"dry_run"`
	// RefusedBy names the first guard that refused; "" if all agreed.
	RefusedBy string `json:"refused_by"`
	Reason    string `json:"reason"`
	LeaseID   string `json:"lease_id"`
	// Error says what failed after the guards had agreed. Nothing is held then.
	Error       string     `json:"error,omitempty"`
	WrittenAt   *time.Time `json:"written_at,omitempty"`
	ConfirmedAt *time.Time `json:"confirmed_at,omitempty"`
	// EasesAt is when what is held will be loosened half way; nil if it will not.
	EasesAt *time.Time `json:"eases_at,omitempty"`
}
