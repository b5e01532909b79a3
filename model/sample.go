package model

import "time"

// Sample is all that was seen in one tick. Counts are the growth within the tick;
// pressure, quota and usage are running totals, as the kernel keeps them, so that
// a reader can take the difference over any window. Everything that is decided is
// a pure function of samples.
type Sample struct {
	Time     time.Time `json:"time"`      // wall clock at the end of the tick
	BootNS   int64     `json:"boot_ns"`   // CLOCK_BOOTTIME at the end of the tick
	LengthNS int64     `json:"length_ns"` // true length of the tick, on CLOCK_BOOTTIME
	// Keyframe says that Procs lists every process, not only changes, and that
	// whoever reads this sample must forget the ones it knew.
	Keyframe bool           `json:"keyframe,omitempty"`
	Host     Host           `json:"host"`
	Cgroups  []CgroupSample `json:"cgroups,omitempty"`
	Waits    []Wait         `json:"waits,omitempty"`
	IOHolds  []IOHold       `json:"io_holds,omitempty"`
	Procs    ProcChanges    `json:"procs"`
	Lost     Lost           `json:"lost"`
}

// Length is the true length of the tick.
func (s *Sample) Length() time.Duration { return time.Duration(s.LengthNS) }

// Host is the state of the whole machine. The times are totals since boot.
type Host struct {
	BootID        string `json:"boot_id"` // /proc/sys/kernel/random/boot_id
	CPUs          int    `json:"cpus"`    // online
	CPUBusyNS     uint64 `json:"cpu_busy_ns"`
	CPUIdleNS     uint64 `json:"cpu_idle_ns"` // idle and iowait
	StealNS       uint64 `json:"steal_ns"`    // taken by the hypervisor
	Processes     int    `json:"processes"`
	MemTotalBytes uint64 `json:"mem_total_bytes"`
	MemAvailBytes uint64 `json:"mem_available_bytes"`
	SwapFreeBytes uint64 `json:"swap_free_bytes,omitempty"`
	// KernelIOHeldNS is how long block requests that are nobody's were at a device, since
	// breakerd looks.
	KernelIOHeldNS uint64   `json:"kernel_io_held_ns,omitempty"`
	Pressure       Pressure `json:"pressure"`
	PressureAbsent bool     `json:"pressure_absent,omitempty"` // PSI is off or not built in
}

// Pressure holds totals of pressure stall information, for a host or a cgroup.
type Pressure struct {
	CPU    Stall `json:"cpu"`
	Memory Stall `json:"memory"`
	IO     Stall `json:"io"`
}

// Stall is one pressure file: time in which some, or all non-idle, tasks stalled.
type Stall struct {
	SomeUS uint64 `json:"some_us"`
	FullUS uint64 `json:"full_us"`
}

// CgroupSample is one cgroup that was active in the tick.
type CgroupSample struct {
	ID   CgroupID `json:"cgroup_id"`
	Path string   `json:"cgroup"` // below the cgroup2 mount; "" when it could not be found

	// Growth within the tick, counted in the kernel.
	RunNS      uint64 `json:"run_ns,omitempty"`
	WaitNS     uint64 `json:"wait_ns,omitempty"` // settled in this tick, see docs/architecture.md
	Forks      uint64 `json:"forks,omitempty"`   // of processes, not threads
	Execs      uint64 `json:"execs,omitempty"`
	Exits      uint64 `json:"exits,omitempty"`
	ShortExits uint64 `json:"short_exits,omitempty"` // exits of processes younger than 1 s
	// Block requests of the cgroup that a device completed in this tick: how long they
	// were at the device, each for itself, and how much they moved.
	IOHeldNS   uint64 `json:"io_held_ns,omitempty"`
	IORequests uint64 `json:"io_requests,omitempty"`
	IOBytes    uint64 `json:"io_bytes,omitempty"`

	// Limited says that a cpu.max which breakerd had written held it, or one above it;
	// MemoryLimited the same of a memory.high.
	Limited       bool `json:"limited,omitempty"`
	MemoryLimited bool `json:"memory_limited,omitempty"`

	// CPUWeights are the cpu.weight of each cgroup on the way to it, as they were last read, the
	// outermost first and its own last: 0 where cpu.idle is set, 100 also where there is none.
	// Absent where all are 100.
	CPUWeights []uint32 `json:"cpu_weights,omitempty"`

	// QuotaUnread says that it waited and may have a quota, and that how long one held it was
	// not read in this tick.
	QuotaUnread bool `json:"quota_unread,omitempty"`

	// Detail is read from cgroupfs only for some: those that waited or made others wait,
	// and in turn everybody, so that slow growth is seen too.
	Detail *CgroupDetail `json:"detail,omitempty"`
}

// DefaultCPUWeight is the cpu.weight of a cgroup to which nobody gave another.
const DefaultCPUWeight = 100

// CgroupDetail is read from the files of one cgroup.
type CgroupDetail struct {
	// Pressure holds totals, as the kernel keeps them; nil where the kernel has none.
	Pressure *Pressure `json:"pressure,omitempty"`
	// ThrottledNS is the total time for which a cpu.max held this cgroup, and each of its
	// ancestors (throttled_usec of cpu.stat, added up): it grows when any of them is held.
	// Each CPU counts for itself; since 6.18 what is held is tasks, not a CPU's queue.
	ThrottledNS  uint64 `json:"throttled_ns,omitempty"`
	Processes    int    `json:"processes,omitempty"`
	MemoryBytes  uint64 `json:"memory_bytes,omitempty"`
	IOReadBytes  uint64 `json:"io_read_bytes,omitempty"`
	IOWriteBytes uint64 `json:"io_write_bytes,omitempty"`

	// Repeated says that what follows was read up to a minute ago, and stands here again.
	Repeated bool `json:"repeated,omitempty"`
	// Of memory.stat; all zero where there is no memory controller.
	AnonBytes    uint64 `json:"anon_bytes,omitempty"`
	FileBytes    uint64 `json:"file_bytes,omitempty"` // page cache, with shared memory
	ShmemBytes   uint64 `json:"shmem_bytes,omitempty"`
	RefaultPages uint64 `json:"refault_pages,omitempty"` // total: evicted and needed again
	ScanPages    uint64 `json:"scan_pages,omitempty"`    // total: looked at to be reclaimed

	// The tightest limits of the cgroup and its ancestors; 0 where there is none.
	MemoryMaxBytes  uint64  `json:"memory_max_bytes,omitempty"`
	MemoryHighBytes uint64  `json:"memory_high_bytes,omitempty"`
	CPUMaxPercent   float64 `json:"cpu_max_percent,omitempty"` // of one CPU
	PIDsMax         uint64  `json:"pids_max,omitempty"`
	IOLimited       bool    `json:"io_limited,omitempty"` // by an io.max, on some device
}

// Wait is one cell of the blame matrix of a tick: how long tasks of Victim waited
// while Offender had what they waited for.
type Wait struct {
	Resource Resource   `json:"resource"`
	By       WaitSource `json:"by"`
	Offender CgroupID   `json:"offender_id,omitempty"` // only where By is ByCgroup
	Victim   CgroupID   `json:"victim_id"`
	NS       uint64     `json:"ns"`
}

// IOHold is for how long the block requests of a cgroup were at a device that were done within
// a tick, each request for itself. Over time they add up to IOHeldNS of the cgroup.
type IOHold struct {
	Device string     `json:"device,omitempty"`    // of a whole disk, as in 8:0; "" where it is not known
	By     WaitSource `json:"by"`                  // ByCgroup, or ByKernel where a request is nobody's
	Cgroup CgroupID   `json:"cgroup_id,omitempty"` // only where By is ByCgroup
	NS     uint64     `json:"ns"`
	// WaitedNS is how long they took from where they were asked for, in the queue too: reads, and writes
	// that somebody may stand still for. What is written back in the background is not in it.
	WaitedNS uint64 `json:"waited_ns,omitempty"`
}

// WaitSource says what kind of thing was running meanwhile.
type WaitSource string

// The sources of a wait that the scheduler can tell apart.
const (
	ByCgroup  WaitSource = "cgroup"  // processes of a cgroup, maybe the victim's own
	ByKernel  WaitSource = "kernel"  // kernel threads, and an idle CPU still waking up
	ByAsked   WaitSource = "asked"   // nobody: the task had asked to let others go first (nice above 0, SCHED_IDLE)
	ByUnknown WaitSource = "unknown" // longer ago than the ring of slices reaches, or not certain
)

// ProcChanges are the changes of the process table within a tick. They apply in
// the order of the fields.
type ProcChanges struct {
	Forked []Proc  `json:"forked,omitempty"`
	Execed []Exec  `json:"execed,omitempty"`
	Usage  []Usage `json:"usage,omitempty"`
	Exited []Exit  `json:"exited,omitempty"`
}

// Proc is a process as it was made, or as it was found at the first tick.
type Proc struct {
	ProcID
	Parent ProcID   `json:"parent"` // who forked it; who adopted it, if found at the first tick
	Cgroup CgroupID `json:"cgroup_id"`
	// ParentCgroup is where the parent was as it forked; 0 where that is Cgroup.
	ParentCgroup CgroupID `json:"parent_cgroup_id,omitempty"`
	UID          uint32   `json:"uid"`
	Comm         string   `json:"comm"`
	Cmdline      string   `json:"cmdline,omitempty"`
	Kernel       bool     `json:"kernel,omitempty"` // a kernel thread
	Found        bool     `json:"found,omitempty"`  // ran before breakerd looked; not a fork of this tick
	Self         bool     `json:"self,omitempty"`   // the breakerd that took the sample
}

// Exec is a process that became another program.
type Exec struct {
	ProcID
	Comm    string `json:"comm"`
	Cmdline string `json:"cmdline,omitempty"`
}

// Usage is what one process has used, as a total over its life and all its threads.
type Usage struct {
	ProcID
	Cgroup   CgroupID `json:"cgroup_id"` // where it is now
	CPUNS    uint64   `json:"cpu_ns"`
	RSSBytes uint64   `json:"rss_bytes"`
	// FileBytes are those of RSSBytes that are files: mapped, and dropped where memory is short.
	FileBytes uint64 `json:"file_bytes,omitempty"`
}

// OwnBytes is the memory that the process itself has taken: anonymous and shared.
func (u *Usage) OwnBytes() uint64 { return u.RSSBytes - min(u.FileBytes, u.RSSBytes) }

// Exit is the end of a process: its last thread's.
type Exit struct {
	ProcID
	LifeNS uint64 `json:"life_ns"`
	CPUNS  uint64 `json:"cpu_ns"` // all that it used, a total as in Usage
}

// Lost says what the tick could not see. Counts in Cgroups are complete even
// where Events is not zero, unless Cells or Cgroups is not zero either.
type Lost struct {
	Events      uint64 `json:"events,omitempty"`       // fork, exec and exit records
	Cells       uint64 `json:"cells,omitempty"`        // waits that found the matrix full
	Cgroups     uint64 `json:"cgroups,omitempty"`      // counts that found the table of cgroups full
	IOHolds     uint64 `json:"io_holds,omitempty"`     // requests whose disk found no room; IOHeldNS has them
	SuspendedNS int64  `json:"suspended_ns,omitempty"` // the machine slept within the tick
	ClockJumpNS int64  `json:"clock_jump_ns,omitempty"`
	LateNS      int64  `json:"late_ns,omitempty"` // how much later than planned the tick ended
}
