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
	paused   string // why nothing is begun; "" if it may be
	config   *Config

	state cgroupctl.State
	err   error     // why the cgroup could not be looked at
	procs []process // in the cgroup and below it; those that ended meanwhile left out
	// parents has the parent of each of them, and of each above them.
	parents map[int32]int32
	// ours says of which processes the guards themselves depend, and why.
	ours map[int32]string
	// apart are processes of the cgroup that would not be touched, because the others, in
	// procs, would be moved away from them.
	apart []process
	// moved are those whom we moved, when each was seen to be of the tree.
	moved map[model.ProcID]bool
	// owner looks after the cgroup, as far as that could be told; way is how to freeze it,
	// writes are what would carry the decision out, noWay is why it must not be.
	owner    cgroupctl.Owner
	ownerErr error
	waited   time.Duration // for systemd, which was asked
	way      cgroupctl.Way
	writes   []model.FileWrite
	noWay    string
	// lifted are what the decision takes the place of: the lease before it on a ladder, and
	// throttles of ours where it is a freeze.
	lifted []*lease
	// rates are what the target reads and writes, where that is to be limited.
	rates []cgroupctl.IORate
	// notApart is why the tree cannot be held without the others in its cgroup.
	notApart string

	machine         int // established processes on the machine
	memory          uint64
	held            []model.Lease
	standing        int // of these, those that somebody stands still or is slowed down by
	heldEstablished int
	heldBytes       uint64
	before          *model.Lease   // whose place the decision takes, as it was
	approval        model.Approval // the question about it; none where nobody was asked
	questions       int            // that wait
	tokensTarget    float64
	tokensOverall   float64
	started         time.Time // the engine
	letGo           time.Time // the target, or what is above or below it, the last time; zero if never
	letGoOf         string    // who that was
}

// ticksPerSecond is USER_HZ, in which the kernel tells user space about times on
// every architecture that Linux still has in common use.
const ticksPerSecond = 100

// look reads the facts about a decision's target, all but how many processes the
// machine has (see count). Nothing is kept of an earlier look: a pid is given out again,
// and a process becomes another program, and to find out takes as long as to read it.
func (e *Engine) look(d *model.Decision, rates []cgroupctl.IORate, unmeasured error) *facts {
	f := e.lookAt(d, targetOf(d))
	f.rates = rates
	if f.err == nil {
		f.err = unmeasured
	}
	e.plan(d, f, nil)
	return f
}

// known are the facts that the engine knows without a look at the machine.
func (e *Engine) known(d *model.Decision) *facts {
	f := &facts{
		now: e.now(), mode: e.mode, config: e.config.Load(),
		parents: map[int32]int32{}, ours: map[int32]string{},
	}
	e.mu.Lock()
	f.stopping, f.paused = e.stopping, e.pauseLocked(f.now)
	f.started = e.started
	f.letGoOf, f.letGo = e.ends.last(d.Target.Cgroup)
	f.tokensTarget, f.tokensOverall = e.limits.tokens(d.Target.Cgroup, f.now)
	f.approval, f.questions = e.questionLocked(d, f.now)
	for id, l := range e.active {
		switch {
		case id == d.ID:
		case id == d.After && l.State == model.LeaseHeld && !l.claimed:
			before := l.Lease
			f.before = &before
			f.lifted = append(f.lifted, l)
		case makesWay(l, d):
			f.lifted = append(f.lifted, l)
		default:
			f.held = append(f.held, l.Lease)
			if !l.thawed {
				f.standing++
				f.heldEstablished += l.established
				f.heldBytes += l.bytes
			}
		}
	}
	for pid := range e.peers {
		f.ours[pid] = "it is breakerd"
	}
	e.mu.Unlock()
	return f
}

// lookAt reads the facts about the cgroup that holds, or will hold, the processes.
func (e *Engine) lookAt(d *model.Decision, at cgroupctl.Ref) *facts {
	f := e.known(d)
	f.ours[e.proc.self] = "it is the enforcer"
	for pid, who := range f.ours {
		for _, up := range e.proc.above(pid, f.parents) {
			if _, ok := f.ours[up]; !ok {
				f.ours[up] = who + "'s ancestor"
			}
		}
	}
	if d.Target.Cgroup == "/" || cgroupctl.CheckPath(d.Target.Cgroup) != nil {
		return f // refused by its place alone
	}
	e.askOwner(d, f)
	f.state, f.err = e.cgroups.Inspect(at)
	if f.err != nil {
		return f
	}
	for _, pid := range f.state.PIDs {
		p, there := e.proc.read(pid)
		if !there {
			continue // it has ended: nobody to protect, nobody to freeze
		}
		if p.exe != "" && !protectedExe(p.exe, f.config.Protected.Exes) {
			p.exe = unprotected
		}
		f.procs = append(f.procs, p)
		f.parents[pid] = p.parent
	}
	for i := range f.procs {
		e.proc.above(f.procs[i].PID, f.parents)
	}
	f.ticks, f.memory = e.proc.ticks(), e.proc.totalMemory()
	return f
}

// unprotected stands for every program that nobody protects. Whoever starts thousands chooses
// their paths, of 4 KiB each, which is more than the enforcer may take.
const unprotected = "-"

// count counts the machine's established processes: what the target's share is of. It
// is done once for a decision, for it reads every process there is.
func (e *Engine) count(f *facts) {
	if f.ticks == 0 || f.mode == model.Monitor {
		return // there was nothing to look at, or nobody will ask
	}
	f.machine = f.established()
	inTarget := map[int32]bool{}
	for i := range f.procs {
		inTarget[f.procs[i].PID] = true
	}
	for _, pid := range e.proc.pids() {
		if inTarget[pid] {
			continue
		}
		// Kernel threads are no part of it, though there are a hundred and more: they are
		// never held, and would make room to hold the rest.
		if s, err := e.proc.stat(pid); err == nil && !s.ended() && s.flags&pfKthread == 0 && f.isEstablished(s.start) {
			f.machine++
		}
	}
}

// bootTicks is the time since boot, suspend included, as process starts are given.
func bootTicks() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // then every process counts as young: see procReader.ticks
	}
	return uint64(ts.Nano()) / (uint64(time.Second) / ticksPerSecond)
}
