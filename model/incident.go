package model

import (
	"maps"
	"slices"
	"time"
)

// Kind is a kind of incident.
type Kind string

// The kinds. docs/incidents.md says when each opens.
const (
	ForkStorm      Kind = "fork_storm"
	CPUContention  Kind = "cpu_contention"
	NoisyNeighbour Kind = "noisy_neighbour"
	ShortLivedJobs Kind = "short_lived_jobs"
	MemoryLeak     Kind = "memory_leak"
	MemoryPressure Kind = "memory_pressure"
	IOPressure     Kind = "io_pressure"
	PSISaturation  Kind = "psi_saturation"
)

// Kinds lists all kinds, as people read them.
var Kinds = []Kind{
	ForkStorm, CPUContention, NoisyNeighbour, ShortLivedJobs, MemoryLeak, MemoryPressure, IOPressure, PSISaturation,
}

// State says whether an incident goes on.
type State string

// The states of an incident.
const (
	Open   State = "open"
	Closed State = "closed"
)

// Level is severity in a word.
type Level string

// The levels. Nothing informational is trouble.
const (
	Info     Level = "info"
	Warning  Level = "warning"
	Critical Level = "critical"
)

// Bounds of severity between the levels.
const (
	WarningSeverity  = 0.3
	CriticalSeverity = 0.7
)

// LevelOf says a severity (0 to 1) in a word.
func LevelOf(severity float64) Level {
	switch {
	case severity >= CriticalSeverity:
		return Critical
	case severity >= WarningSeverity:
		return Warning
	}
	return Info
}

// Incident is something that goes wrong because of somebody.
type Incident struct {
	ID       string     `json:"id"`
	Kind     Kind       `json:"kind"`
	State    State      `json:"state"`
	OpenedAt time.Time  `json:"opened_at"` // by the clock as it is now: it may have been set since
	ClosedAt *time.Time `json:"closed_at"`
	// Unfinished says that breakerd stopped while it was open: ClosedAt is when it was last
	// seen.
	Unfinished bool    `json:"unfinished,omitempty"`
	Severity   float64 `json:"severity"` // 0 to 1, the highest that it reached
	Level      Level   `json:"level"`
	Summary    string  `json:"summary"` // one paragraph in plain words
	// Estimated says that the blame was worked out from circumstances and not measured:
	// always for memory and io, never for cpu.
	Estimated bool `json:"estimated"`
	// Confidence (0 to 1) is how sure the verdict on the culprit is; Margin (0 to 1) is how
	// much more of the cause it accounts for than the next suspect. Both are as when it was
	// last over its threshold, not as at its worst.
	Confidence float64            `json:"confidence"`
	Margin     float64            `json:"margin"`
	Culprit    Culprit            `json:"culprit"`
	Victims    []Victim           `json:"victims"`
	Evidence   map[string]float64 `json:"evidence"` // figures, named with their units
	// Contributors are the others that were looked at, the worst first.
	Contributors []Contributor    `json:"contributors"`
	Decisions    []DecisionRecord `json:"decisions"`
	Triage       *Triage          `json:"triage,omitempty"`
}

// Clone is a copy that shares nothing with the incident that may still change: the
// triage is written once.
func (in *Incident) Clone() Incident {
	c := *in
	c.Victims = slices.Clone(in.Victims)
	c.Contributors = slices.Clone(in.Contributors)
	c.Decisions = slices.Clone(in.Decisions)
	c.Evidence = maps.Clone(in.Evidence)
	if in.ClosedAt != nil {
		closed := *in.ClosedAt
		c.ClosedAt = &closed
	}
	return c
}

// Scope says how much of a cgroup is meant.
type Scope string

// The scopes of a culprit and of an action.
const (
	ScopeTree   Scope = "tree"   // one process and its descendants
	ScopeCgroup Scope = "cgroup" // every process of the cgroup
)

// Culprit is who causes an incident: a process tree within a cgroup, or the
// whole cgroup where no single tree accounts for the cause.
type Culprit struct {
	Cgroup    string      `json:"cgroup"`
	CgroupID  CgroupID    `json:"cgroup_id"`
	Unit      string      `json:"unit"` // systemd unit; "" if unknown
	Workload  Workload    `json:"workload"`
	Scope     Scope       `json:"scope"`
	Root      CulpritRoot `json:"root"` // where Scope is cgroup: its largest contributor
	Processes int         `json:"processes"`
	UID       uint32      `json:"uid"`
	// Outside counts the processes of the cgroup that are not of the tree.
	Outside int `json:"outside"`
	// Share of the cause that the culprit accounts for, 0 to 1.
	Share float64 `json:"share"`
}

// Known reports whether anybody is accused. Where nobody stands out the culprit is empty,
// and nobody may be acted on.
func (c *Culprit) Known() bool { return c.CgroupID != 0 }

// CulpritRoot is the topmost process of a culprit.
type CulpritRoot struct {
	ProcID
	Comm    string `json:"comm"`
	Cmdline string `json:"cmdline"`
}

// Victim is a cgroup that was made to wait.
type Victim struct {
	Cgroup   string   `json:"cgroup"`
	CgroupID CgroupID `json:"cgroup_id"`
	Unit     string   `json:"unit"`
	Workload Workload `json:"workload"`
	Resource Resource `json:"resource"`
	StallMS  float64  `json:"stall_ms"` // made by the culprit's cgroup, since shortly before the incident opened
}

// Contributor is a cgroup and its share of the cause.
type Contributor struct {
	Cgroup   string   `json:"cgroup"`
	CgroupID CgroupID `json:"cgroup_id"`
	Share    float64  `json:"share"` // 0 to 1
}

// DecisionRecord is a decision and what became of it, as an incident tells it.
type DecisionRecord struct {
	ID        string     `json:"id"`
	At        time.Time  `json:"at"`
	Action    ActionKind `json:"action"` // "none" where the policies asked for nothing or denied
	Scope     Scope      `json:"scope,omitempty"`
	ForMS     int64      `json:"for_ms,omitempty"`
	DryRun    bool       `json:"dry_run"`
	RefusedBy string     `json:"refused_by"` // the guard, "policy" where a deny spoke, "" if nobody refused
	Reason    string     `json:"reason"`
	Policy    string     `json:"policy"` // the package that asked, or denied
	LeaseID   string     `json:"lease_id"`
	Error     string     `json:"error,omitempty"` // what failed while it was carried out
}
