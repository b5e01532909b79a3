// Package model holds the values that pass between the stages of breakerd, and
// their JSON form. It imports none of the other packages and does nothing: what
// sees fills a Sample, what decides turns samples into incidents and decisions,
// what touches answers with an Outcome and keeps a Lease.
//
// JSON names are snake_case and carry the unit where there is one (stall_ms,
// rss_bytes). Names of kernel things are the kernel's.
package model

import "fmt"

// ProcID is the identity of a process. A pid alone is never one, because the
// kernel gives it out again.
type ProcID struct {
	PID int32 `json:"pid"`
	// StartTime is in clock ticks since boot (1/100 s), as field 22 of
	// /proc/PID/stat, so that any tool can check it.
	StartTime uint64 `json:"start_time"`
}

// IsZero reports whether the identity is missing.
func (id ProcID) IsZero() bool { return id == ProcID{} }

func (id ProcID) String() string { return fmt.Sprintf("%d@%d", id.PID, id.StartTime) }

// CgroupID is the kernel's identity of a cgroup (kernfs id): the inode number of
// its directory on a 64-bit kernel since 5.5. A path is never an identity,
// because a cgroup can be removed and made again under the same name.
type CgroupID uint64

// Resource is something that processes wait for.
type Resource string

// The resources that pressure stall information knows.
const (
	CPU    Resource = "cpu"
	Memory Resource = "memory"
	IO     Resource = "io"
)

// Mode says how far breakerd may go.
type Mode string

// The modes, from the mildest.
const (
	Monitor Mode = "monitor" // watch and tell
	DryRun  Mode = "dry-run" // decide, pass the guards, hold a lease, write nothing
	Enforce Mode = "enforce" // ask the enforcer
)

// ParseMode refuses everything that is not exactly a mode: a slip in a mode must
// never fail towards acting.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Monitor, DryRun, Enforce:
		return m, nil
	}
	return "", fmt.Errorf("%q is none of monitor, dry-run, enforce", s)
}
