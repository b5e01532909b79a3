package observe

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// threadsVar makes the test binary a program of as many threads that never rest.
const threadsVar = "BREAKERD_TEST_THREADS"

// yieldVar makes it one that lets others go first all the time.
const yieldVar = "BREAKERD_TEST_YIELD"

func TestMain(m *testing.M) {
	if os.Getenv(yieldVar) != "" {
		runtime.LockOSThread()
		for {
			unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
	}
	if n, err := strconv.Atoi(os.Getenv(threadsVar)); err == nil {
		runtime.GOMAXPROCS(n)
		for range n {
			go func() {
				for spun := uint64(0); ; spun++ {
					runtime.KeepAlive(spun)
				}
			}()
		}
		select {}
	}
	os.Exit(m.Run())
}

// duel is a victim among hogs, in cgroups of their own.
type duel struct {
	t            *testing.T
	o            *Observer
	hogs, victim *kerneltest.Cgroup
}

func newDuel(t *testing.T) *duel {
	t.Helper()
	o := open(t)
	scratch := kerneltest.ScratchCgroup(t)
	return &duel{t, o, scratch.Child("hogs"), scratch.Child("victim")}
}

// run takes as many samples, and returns them with how much the victim's tasks waited
// meanwhile, in seconds, as the kernel has it. The kernel adds a wait when it ends, and we
// as it goes on: so both ends lie where the hogs are frozen and no wait of theirs goes on.
func (d *duel) run(samples int) ([]*model.Sample, float64) {
	d.t.Helper()
	still := func() float64 {
		d.hogs.Write("cgroup.freeze", "1")
		time.Sleep(200 * time.Millisecond)
		return runDelay(d.t, d.victim)
	}
	before := still()
	next(d.t, d.o)
	d.hogs.Write("cgroup.freeze", "0")
	var span []*model.Sample
	for len(span) < samples {
		span = append(span, next(d.t, d.o))
	}
	waited := still() - before
	return append(span, next(d.t, d.o)), waited
}

// A task that is moved between the queues of two CPUs while it waits is settled with each
// of them for its part.
func TestBlameOfAVictimThatIsMovedAddsUpToItsRunDelay(t *testing.T) {
	d := newDuel(t)
	for range 2 * runtime.NumCPU() {
		d.hogs.Start("sh", "-c", spin)
	}
	d.victim.Start("sh", "-c", spin)
	span, waited := d.run(40)
	compare(t, span, d.victim.ID(), "run delay", waited, 1)
	named(t, span, d.victim.ID(), d.hogs.ID(), 90)
}

func TestBlameOfAVictimOfManyThreadsAddsUpToTheirRunDelays(t *testing.T) {
	d := newDuel(t)
	for range 2 * runtime.NumCPU() {
		d.hogs.Start("sh", "-c", spin)
	}
	t.Setenv(threadsVar, "12")
	d.victim.Start("/proc/self/exe")
	t.Setenv(threadsVar, "")
	time.Sleep(300 * time.Millisecond)
	span, waited := d.run(20)
	compare(t, span, d.victim.ID(), "the threads' run delay", waited, 3)
}

// Whoever shares only a part of a cgroup's path is another one.
func TestBlameIsOfTheCgroupThatATaskIsInHoweverDeep(t *testing.T) {
	d := newDuel(t)
	inner := d.hogs.Child("a").Child("b")
	sibling := d.hogs.Child("c")
	pin(t, inner.Start("sh", "-c", spin).Process.Pid)
	pin(t, d.victim.Start("sh", "-c", spin).Process.Pid)
	_ = sibling
	span, waited := d.run(24)
	compare(t, span, d.victim.ID(), "run delay", waited, 3)
	named(t, span, d.victim.ID(), inner.ID(), 80)
	for _, not := range []*kerneltest.Cgroup{d.hogs, sibling} {
		if ns := neighbour(span, d.victim.ID(), not.ID()); ns != 0 {
			t.Errorf("%v are blamed on %s, where nobody is", time.Duration(ns), not.Path)
		}
	}
}

// Two that take turns each microsecond leave a ring of 64 slices that reaches back less
// than a millisecond: most of a longer wait is found in the epochs.
func TestAWaitBehindShortSlicesIsDividedByTheEpochs(t *testing.T) {
	d := newDuel(t)
	other := d.hogs.Child("other")
	inner := d.hogs.Child("one")
	pin(t, d.victim.Start("sh", "-c", spin).Process.Pid)
	t.Setenv(yieldVar, "1")
	for _, hog := range []*kerneltest.Cgroup{inner, other} {
		pinAs(t, hog.Start("/proc/self/exe").Process.Pid, unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 10})
	}
	t.Setenv(yieldVar, "")
	span, waited := d.run(16)
	compare(t, span, d.victim.ID(), "run delay", waited, 10)
	one, two := neighbour(span, d.victim.ID(), inner.ID()), neighbour(span, d.victim.ID(), other.ID())
	t.Logf("blamed on the one %v, on the other %v", time.Duration(one), time.Duration(two))
	if float64(one+two) < 0.8*waited*1e9 {
		t.Errorf("%v of %.3f s are blamed on the two, want at least 80 %%", time.Duration(one+two), waited)
	}
	if one > 2*two || two > 2*one {
		t.Errorf("%v are blamed on the one and %v on the other, and they ran alike", time.Duration(one), time.Duration(two))
	}
}

// A task that is nice, or idle, asked to wait: that is its own doing.
func TestWhatATaskAskedToWaitIsItsOwn(t *testing.T) {
	for name, test := range map[string]struct {
		victim  unix.SchedAttr
		percent float64 // of the wait, the neighbours'
	}{
		"nice -5":    {unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: -5}, 100},
		"nice 0":     {unix.SchedAttr{Policy: unix.SCHED_NORMAL}, 100},
		"nice 5":     {unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: 5}, 0},
		"nice 19":    {unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: 19}, 0},
		"SCHED_IDLE": {unix.SchedAttr{Policy: unix.SCHED_IDLE}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDuel(t)
			pinAs(t, d.victim.Start("sh", "-c", spin).Process.Pid, test.victim)
			for range 3 {
				pin(t, d.hogs.Start("sh", "-c", spin).Process.Pid)
			}
			span, waited := d.run(12)
			compare(t, span, d.victim.ID(), "run delay", waited, 3)
			shares := blame.Over(span, 0)[d.victim.ID()]
			// Kernel threads run beside all of them, and a hypervisor takes the CPU from all.
			rest := float64(shares.WaitNS - shares.KernelNS - shares.StealNS)
			got := 100 * float64(shares.NeighbourNS()) / rest
			t.Logf("%.1f %% of the wait is the neighbours', %.1f %% its own", got, 100*float64(shares.SelfNS)/rest)
			if math.Abs(got-test.percent) > 3 {
				t.Errorf("%.1f %% of the wait is the neighbours', want %.1f: %+v", got, test.percent, shares)
			}
		})
	}
}

// starvers keep a victim on their CPU from running.
var starvers = map[string]struct {
	victim, hog unix.SchedAttr
	late        time.Duration // the observer waits as well
	asked       bool          // the victim asked to wait
	nice        int           // of the victim, beside its policy
}{
	"a SCHED_IDLE victim under an ordinary hog":     {victim: unix.SchedAttr{Policy: unix.SCHED_IDLE}, hog: unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: -20}, asked: true},
	"an ordinary victim under a SCHED_FIFO hog":     {victim: unix.SchedAttr{Policy: unix.SCHED_NORMAL}, hog: unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 10}},
	"a nice SCHED_RR victim under a SCHED_FIFO hog": {victim: unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 5}, nice: 5, hog: unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 10}},
	"a SCHED_RR victim under a SCHED_FIFO hog":      {victim: unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 5}, hog: unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 10}},
	"a SCHED_FIFO victim under a SCHED_DEADLINE hog": {victim: unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 99},
		hog: unix.SchedAttr{Policy: unix.SCHED_DEADLINE, Runtime: 90e6, Deadline: 100e6, Period: 100e6}, late: 180 * time.Millisecond},
}

// What a task waits is in the tick in which it waits, whether it gets to run or not.
func TestAStarvedTaskShowsItsBlameInTheTickInWhichItWaits(t *testing.T) {
	for name, test := range starvers {
		t.Run(name, func(t *testing.T) {
			d := newDuel(t)
			hogs := 1
			if test.hog.Policy == unix.SCHED_DEADLINE {
				hogs = runtime.NumCPU() // they cannot be pinned
			}
			pid := d.victim.Start("sh", "-c", spin).Process.Pid
			pinAs(t, pid, unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: int32(test.nice)})
			pinAs(t, pid, test.victim)
			for range hogs {
				pinAs(t, d.hogs.Start("sh", "-c", spin).Process.Pid, test.hog)
			}
			span, _ := d.run(16)
			span = span[1:] // in which the victim is told to have run until the hog came, too
			hungry, late := 0, 0
			for i, s := range span {
				v := blame.Over(span[i:i+1], 0)[d.victim.ID()]
				var ran, waited uint64
				for _, c := range s.Cgroups {
					if c.ID == d.victim.ID() {
						ran = c.RunNS
					}
				}
				if v != nil {
					waited = v.WaitNS
				}
				length := float64(s.LengthNS)
				t.Logf("tick of %v: ran %v, waited %v", s.Length().Round(time.Millisecond), time.Duration(ran), time.Duration(waited))
				// What is gathered per CPU, and what is left of a wait shorter than 20 ms.
				if missing := length - float64(ran+waited); math.Abs(missing) > 0.15*length+25e6+float64(test.late) {
					late++
					t.Logf("tick %d: ran %v and waited %v of %v", i, time.Duration(ran), time.Duration(waited), s.Length())
				}
				if float64(waited) > 0.5*length {
					hungry++
				}
			}
			// A walk that was dear is not made again before it can be afforded: what one
			// tick misses then stands in the next.
			if late > 2 {
				t.Errorf("%d ticks of %d do not tell what was suffered in them, want at most one and its next", late, len(span))
			}
			if hungry < len(span)/2 {
				t.Errorf("starved in %d ticks of %d only", hungry, len(span))
			}
			if !test.asked {
				named(t, span, d.victim.ID(), d.hogs.ID(), 80)
			}
		})
	}
}

// named says that the offender has at least this part of the victim's wait, but for what
// strangers on the machine have of it.
func named(t *testing.T, span []*model.Sample, victim, offender model.CgroupID, percent float64) {
	t.Helper()
	shares := blame.Over(span, 0)[victim]
	if shares == nil {
		t.Fatal("the victim never waited")
	}
	offenders := neighbour(span, victim, offender)
	ofStrangers := shares.NeighbourNS() - min(offenders, shares.NeighbourNS())
	ours := float64(shares.WaitNS - ofStrangers)
	part := 100 * float64(offenders) / ours
	t.Logf("%.1f %% of the wait is the offender's, %.1f %% the kernel's, %.1f %% nobody's; and of strangers, %v", part,
		100*float64(shares.KernelNS)/ours, 100*float64(shares.UnknownNS)/ours, time.Duration(ofStrangers))
	if part < percent {
		t.Errorf("%.1f %% of the wait is the offender's, want at least %v %%: %+v", part, percent, shares)
	}
}

func neighbour(span []*model.Sample, victim, offender model.CgroupID) (ns uint64) {
	for _, s := range span {
		for _, w := range s.Waits {
			if w.By == model.ByCgroup && w.Victim == victim && w.Offender == offender {
				ns += w.NS
			}
		}
	}
	return ns
}

// compare holds the victim's whole wait against what the kernel says of it.
func compare(t *testing.T, span []*model.Sample, victim model.CgroupID, what string, kernels, percent float64) {
	t.Helper()
	shares := blame.Over(span, 0)[victim]
	if shares == nil {
		t.Fatal("the victim never waited")
	}
	ours := float64(shares.WaitNS) / 1e9
	off := 100 * (ours - kernels) / kernels
	t.Logf("blamed %.3f s, %s grew by %.3f s: %+.2f %%", ours, what, kernels, off)
	if math.Abs(off) > percent {
		t.Errorf("blame is off by %+.2f %%, want at most %v %%", off, percent)
	}
}

// runDelay is the second number of /proc/PID/task/*/schedstat, in seconds, of all
// threads in the cgroup.
func runDelay(t *testing.T, in *kerneltest.Cgroup) (seconds float64) {
	t.Helper()
	for _, pid := range in.PIDs() {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(files) == 0 {
			t.Fatalf("pid %d has no threads: %v", pid, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			ns, err := strconv.ParseUint(strings.Fields(string(text))[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			seconds += float64(ns) / 1e9
		}
	}
	return seconds
}

func pin(t *testing.T, pid int) {
	t.Helper()
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(pid, &one); err != nil {
		t.Fatalf("pin pid %d to CPU 0: %v", pid, err)
	}
}

// pinAs pins a task to CPU 0 under a scheduling policy. A deadline task cannot be pinned.
func pinAs(t *testing.T, pid int, attr unix.SchedAttr) {
	t.Helper()
	if attr.Policy != unix.SCHED_DEADLINE {
		pin(t, pid)
	}
	attr.Size = unix.SizeofSchedAttr
	if err := unix.SchedSetAttr(pid, &attr, 0); err != nil {
		t.Fatalf("give pid %d scheduling policy %d: %v", pid, attr.Policy, err)
	}
}
