package model

import "time"

// Triage is what a person would have looked at when an incident opened, captured once
// and bounded in size. Texts in it were chosen by whoever runs the processes.
type Triage struct {
	// Cause says the root cause in a short paragraph, with the figures in it.
	Cause string `json:"cause"`
	// Processes are those that weigh most in the cause, the culprit's cgroup first.
	Processes []ProcessFigures `json:"processes"`
	// Cgroups are the culprit's, the victims' and the others that weigh most.
	Cgroups  []CgroupFigures  `json:"cgroups"`
	Pressure *PressurePercent `json:"pressure,omitempty"` // of the host; nil where the kernel has none
	Blame    []BlamePair      `json:"blame"`              // the worst first
	Forks    []ProcessEvent   `json:"forks"`              // the newest first
	Execs    []ProcessEvent   `json:"execs"`
	Seen     Observation      `json:"seen"`
}

// ProcessEvent is a process that was made, or became another program.
type ProcessEvent struct {
	At        time.Time `json:"at"` // the end of the tick
	PID       int32     `json:"pid"`
	ParentPID int32     `json:"parent_pid,omitempty"` // of a fork
	Comm      string    `json:"comm"`
	Cmdline   string    `json:"cmdline,omitempty"` // of an exec; cut
	Cgroup    string    `json:"cgroup"`
	CgroupID  CgroupID  `json:"cgroup_id"`
}

// Observation says how well breakerd saw in the seconds before an incident opened.
type Observation struct {
	Samples       int     `json:"samples"`
	CoveredMS     float64 `json:"covered_ms"`
	LongestTickMS float64 `json:"longest_tick_ms"`
	LateMS        float64 `json:"late_ms"` // the latest tick
	LostEvents    uint64  `json:"lost_events"`
	LostCells     uint64  `json:"lost_cells"`
	LostCgroups   uint64  `json:"lost_cgroups"`
}
