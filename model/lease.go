package model

import "time"

// LeaseState is where a lease stands.
type LeaseState string

// The states of a lease, in their order.
const (
	LeaseIntended LeaseState = "intended" // written down, the write may or may not have happened
	LeaseHeld     LeaseState = "held"     // written and confirmed
	LeaseEnding   LeaseState = "ending"   // being undone
	LeaseEnded    LeaseState = "ended"
)

// EndReason says why a lease ended.
type EndReason string

// The reasons for a lease to end.
const (
	EndExpired     EndReason = "expired"     // its time was up
	EndReleased    EndReason = "released"    // an operator asked
	EndHeartbeat   EndReason = "heartbeat"   // breakerd was not heard of
	EndShutdown    EndReason = "shutdown"    // the enforcer stopped
	EndRecovered   EndReason = "recovered"   // found at the enforcer's start
	EndUnconfirmed EndReason = "unconfirmed" // the kernel did not confirm within the bound
	EndRefused     EndReason = "refused"     // a guard refused on a later look
	EndFailed      EndReason = "failed"      // it could not be carried out
	EndYielded     EndReason = "yielded"     // somebody else keeps writing the file
	EndNoRelief    EndReason = "no_relief"   // it did not help the victims
	EndReplaced    EndReason = "replaced"    // another action took its place
)

// EndReasons lists them.
var EndReasons = []EndReason{
	EndExpired, EndReleased, EndHeartbeat, EndShutdown, EndRecovered, EndUnconfirmed, EndRefused, EndFailed, EndYielded,
	EndNoRelief, EndReplaced,
}

// Lease is a held action. It is on disk before the write that it covers, with the
// values to put back.
type Lease struct {
	Version  int         `json:"version"`
	ID       string      `json:"id"` // the decision's
	State    LeaseState  `json:"state"`
	DryRun   bool        `json:"dry_run"`
	Decision Decision    `json:"decision"`
	Writes   []FileWrite `json:"writes"`
	// Inside is the name of the cgroup that was made below the target for some or all of
	// its processes; the writes are those of that cgroup. "" is the target itself.
	Inside    string    `json:"inside,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// BeganAt is when the first of the leases was made whose places this one took; nil where
	// it took none.
	BeganAt *time.Time `json:"began_at,omitempty"`
	HeldAt  *time.Time `json:"held_at"`
	// EasesAt is when its limits are loosened half way, which is watched until it expires; nil
	// where that is not to be. EasedAt is when it was done.
	EasesAt   *time.Time `json:"eases_at,omitempty"`
	EasedAt   *time.Time `json:"eased_at,omitempty"`
	ExpiresAt time.Time  `json:"expires_at"`
	EndedAt   *time.Time `json:"ended_at"`
	EndReason EndReason  `json:"end_reason"`
	// Note says what was found while undoing: a cgroup that had gone, a file that
	// had another owner by then.
	Note string `json:"note,omitempty"`
}

// FileWrite is one file of a cgroup, with what it held and what we wrote.
type FileWrite struct {
	File  string `json:"file"` // within the target's cgroup
	Was   string `json:"was"`
	Wrote string `json:"wrote"`
	// Step is the other value of ours: what is written when the lease is eased, and what was
	// held until then once it is. It is on disk before either is written, so that an undo at
	// any moment knows both. "" where there is none.
	Step string `json:"step,omitempty"`
	// Unit is the systemd unit through which it was written; "" is directly.
	Unit string `json:"unit,omitempty"`
	// Limit is what the unit had, where a limit is written through it. Was is "" then if
	// the cgroup did not have the file yet.
	Limit UnitLimit `json:"limit,omitzero"`
}

// UnitLimit is a limit of a systemd unit at one moment.
type UnitLimit struct {
	Property string `json:"property"` // as D-Bus has it
	// Device is the numbers of the block device, as in 8:0, where the limit is one of I/O.
	Device string `json:"device,omitempty"`
	Value  uint64 `json:"value"` // in the property's unit; the greatest number is no limit
	// DropIn says that somebody had set it at run time already, so that the file which says
	// so stays.
	DropIn bool `json:"drop_in"`
}

// LeaseVersion is the version of the form in which leases are kept on disk. 2 has
// Lease.Inside, FileWrite.Unit and FileWrite.Limit; 3 has Lease.BeganAt, Decision.After,
// Action.Then and Action.ApprovalMS; 4 has Lease.EasesAt, Lease.EasedAt, FileWrite.Step and
// Action.EaseMS.
const LeaseVersion = 4
