package enforce

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// facts are all that the guards judge, read at one moment.
type facts struct {
	now      time.Time
	ticks    uint64 // clock ticks since boot, the time of process starts
	mode     model.Mode
	stopping bool
	config   *Config

	state cgroupctl.State
	err   error     // why the cgroup could not be looked at
	procs []process // in the cgroup and below it; those that ended meanwhile left out
	// parents has the parent of each of them, and of each above them.
	parents map[int32]int32
	// ours says of which processes the guards themselves depend, and why.
	ours map[int32]string

	machine         int // processes on the machine
	held            []model.Lease
	heldEstablished int
	tokensTarget    float64
	tokensOverall   float64
}

// ticksPerSecond is USER_HZ, in which the kernel tells user space about times on
// every architecture that Linux still has in common use.
const ticksPerSecond = 100

// look reads the facts about a decision's target. What an earlier look has read of a
// process is kept, where there was one a moment ago: in a storm of thousands reading
// them all takes longer than the storm needs to grow. The root is always read anew.
func (e *Engine) look(d *model.Decision, before *facts) *facts {
	f := &facts{
		now: e.now(), mode: e.mode, config: &e.config,
		parents: map[int32]int32{}, ours: map[int32]string{},
	}
	e.mu.Lock()
	f.stopping = e.stopping
	f.tokensTarget, f.tokensOverall = e.limits.tokens(d.Target.Cgroup, f.now)
	for id, l := range e.active {
		if id != d.ID {
			f.held = append(f.held, l.Lease)
			f.heldEstablished += l.established
		}
	}
	for pid := range e.peers {
		f.ours[pid] = "it is breakerd"
	}
	e.mu.Unlock()
	f.ours[e.proc.self] = "it is the enforcer"
	for pid, who := range f.ours {
		for _, up := range e.proc.above(pid, f.parents) {
			if _, ok := f.ours[up]; !ok {
				f.ours[up] = who + "'s ancestor"
			}
		}
	}
	if f.mode == model.Monitor {
		return f // nothing more will be asked
	}
	if d.Target.Cgroup == "/" || cgroupctl.CheckPath(d.Target.Cgroup) != nil {
		return f // refused by its place alone
	}
	f.state, f.err = e.cgroups.Inspect(cgroupctl.Ref{Path: d.Target.Cgroup, ID: d.Target.CgroupID})
	if f.err != nil {
		return f
	}
	known := map[int32]process{}
	if before != nil {
		for _, p := range before.procs {
			if p.PID != d.Target.Root.PID {
				known[p.PID] = p
			}
		}
	}
	for _, pid := range f.state.PIDs {
		p, seen := known[pid]
		if !seen {
			var there bool
			if p, there = e.proc.read(pid); !there {
				continue // it has ended: nobody to protect, nobody to freeze
			}
		}
		f.procs = append(f.procs, p)
		f.parents[pid] = p.parent
	}
	for i := range f.procs {
		e.proc.above(f.procs[i].PID, f.parents)
	}
	f.machine = e.proc.count()
	f.ticks = e.proc.ticks()
	return f
}

// bootTicks is the time since boot, suspend included, as process starts are given.
func bootTicks() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // then every process counts as young: see procReader.ticks
	}
	return uint64(ts.Nano()) / (uint64(time.Second) / ticksPerSecond)
}
