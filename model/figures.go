package model

import "time"

// ProcessFigures is one process as it was seen in the last seconds.
type ProcessFigures struct {
	ProcID
	ParentPID int32    `json:"parent_pid"`
	UID       uint32   `json:"uid"`
	Comm      string   `json:"comm"`
	Cmdline   string   `json:"cmdline"` // cut
	Kernel    bool     `json:"kernel,omitempty"`
	Cgroup    string   `json:"cgroup"`
	CgroupID  CgroupID `json:"cgroup_id"`
	// CPUPercent is of one CPU, between the last two walks over all processes: a second
	// where the machine is busy, ten where it is calm. CPUKnown is false before the second.
	CPUPercent     float64 `json:"cpu_percent"`
	CPUKnown       bool    `json:"cpu_known"`
	RSSBytes       uint64  `json:"rss_bytes"`
	ForksPerSecond float64 `json:"forks_per_second"`
	// Stall is measured by cgroup. What a process caused is its cgroup's part by its CPU
	// time, which is an estimate; what it suffered cannot be divided, and is its cgroup's.
	StallCausedEstimate float64 `json:"stall_caused_estimated_ms_per_second"`
	CgroupStallSuffered float64 `json:"cgroup_stall_suffered_ms_per_second"`
}

// CgroupFigures is one cgroup as it was seen in the last seconds.
type CgroupFigures struct {
	Cgroup     string   `json:"cgroup"`
	CgroupID   CgroupID `json:"cgroup_id"`
	Unit       string   `json:"unit"`
	Workload   Workload `json:"workload"`
	Processes  int      `json:"processes"`
	CPUPercent float64  `json:"cpu_percent"` // of one CPU
	// Wait is how long its tasks waited for a CPU, whatever for; suffered is the part that
	// others caused, caused what it made others wait. All measured in the scheduler.
	WaitMSPerSecond          float64 `json:"wait_ms_per_second"`
	StallCausedMSPerSecond   float64 `json:"stall_caused_ms_per_second"`
	StallSufferedMSPerSecond float64 `json:"stall_suffered_ms_per_second"`
	ForksPerSecond           float64 `json:"forks_per_second"`
	ExecsPerSecond           float64 `json:"execs_per_second"`
	ExitsPerSecond           float64 `json:"exits_per_second"`
	RSSBytes                 uint64  `json:"rss_bytes"` // sum over its processes: what they share counts for each
	IOHeldMSPerSecond        float64 `json:"io_held_ms_per_second"`
	IOBytesPerSecond         float64 `json:"io_bytes_per_second"`
	// Files is what was read of its files in the last seconds; nil if nothing was.
	Files *CgroupFiles `json:"files,omitempty"`
}

// CgroupFiles is what the files of a cgroup say.
type CgroupFiles struct {
	MemoryBytes uint64           `json:"memory_bytes"` // 0 without a memory controller
	Pressure    *PressurePercent `json:"pressure,omitempty"`
	// The tightest limits of the cgroup and its ancestors; 0 where there is none.
	CPUMaxPercent   float64 `json:"cpu_max_percent"` // of one CPU
	MemoryMaxBytes  uint64  `json:"memory_max_bytes"`
	MemoryHighBytes uint64  `json:"memory_high_bytes"`
	PIDsMax         uint64  `json:"pids_max"`
}

// PressurePercent is the part of the last seconds in which some, or all, tasks stalled.
type PressurePercent struct {
	CPUSome    float64 `json:"cpu_some"`
	MemorySome float64 `json:"memory_some"`
	MemoryFull float64 `json:"memory_full"`
	IOSome     float64 `json:"io_some"`
	IOFull     float64 `json:"io_full"`
}

// BlamePair says how long one cgroup waited for another, in each second.
type BlamePair struct {
	Offender    string   `json:"offender"`
	OffenderID  CgroupID `json:"offender_id"`
	Victim      string   `json:"victim"`
	VictimID    CgroupID `json:"victim_id"`
	Resource    Resource `json:"resource"`
	Estimated   bool     `json:"estimated"`
	MSPerSecond float64  `json:"ms_per_second"`
}

// WaitShares say where the waiting of one cgroup for a CPU went, in each second. What
// follows WaitMS adds up to it.
type WaitShares struct {
	WaitMS        float64 `json:"wait_ms"`
	NeighbourMS   float64 `json:"neighbour_ms"`
	SelfMS        float64 `json:"self_ms"`
	OwnQuotaMS    float64 `json:"own_quota_ms"`
	OurThrottleMS float64 `json:"our_throttle_ms"`
	KernelMS      float64 `json:"kernel_ms"`
	StealMS       float64 `json:"steal_ms"`
	UnknownMS     float64 `json:"unknown_ms"`
}

// KindMeasures is what one detector measures of a cgroup, beside its thresholds, also far
// below them.
type KindMeasures struct {
	Kind     Kind      `json:"kind"`
	Measures []Measure `json:"measures"`
	Missing  string    `json:"missing"` // why something could not be measured; "" where everything could
}

// WhyNot says what was seen of a cgroup, and how far it is from an incident.
type WhyNot struct {
	At          time.Time       `json:"at"`
	CoveredMS   float64         `json:"covered_ms"` // how far back the figures reach
	Process     *ProcessFigures `json:"process,omitempty"`
	Cgroup      CgroupFigures   `json:"cgroup"`
	Shares      WaitShares      `json:"shares"`
	WaitedFor   []BlamePair     `json:"waited_for"`    // who made it wait, the worst first
	WaitedForIt []BlamePair     `json:"waited_for_it"` // whom it made wait, the worst first
	Kinds       []KindMeasures  `json:"kinds"`
	Culprit     []string        `json:"culprit_of"` // open incidents
	Victim      []string        `json:"victim_of"`
}

// SortKey is a figure to rank processes and cgroups by.
type SortKey string

// The keys.
const (
	SortStallCaused   SortKey = "stall_caused"
	SortStallSuffered SortKey = "stall_suffered"
	SortCPU           SortKey = "cpu"
	SortRSS           SortKey = "rss"
	SortForks         SortKey = "forks"
)

// SortKeys lists them.
var SortKeys = []SortKey{SortStallCaused, SortStallSuffered, SortCPU, SortRSS, SortForks}

// OfProcess is the figure of a process; 0 where the key is none.
func (k SortKey) OfProcess(p *ProcessFigures) float64 {
	switch k {
	case SortStallCaused:
		return p.StallCausedEstimate
	case SortStallSuffered:
		return p.CgroupStallSuffered
	case SortCPU:
		return p.CPUPercent
	case SortRSS:
		return float64(p.RSSBytes)
	case SortForks:
		return p.ForksPerSecond
	}
	return 0
}

// OfCgroup is the figure of a cgroup; 0 where the key is none.
func (k SortKey) OfCgroup(g *CgroupFigures) float64 {
	switch k {
	case SortStallCaused:
		return g.StallCausedMSPerSecond
	case SortStallSuffered:
		return g.StallSufferedMSPerSecond
	case SortCPU:
		return g.CPUPercent
	case SortRSS:
		return float64(g.RSSBytes)
	case SortForks:
		return g.ForksPerSecond
	}
	return 0
}
