package observe

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

const spin = "while :; do :; done"

func open(t *testing.T) *Observer {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF, kerneltest.PSI)
	o, err := Open(250*time.Millisecond, bpf.DefaultSizes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func next(t *testing.T, o *Observer) *model.Sample {
	t.Helper()
	s, err := o.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The blame on behalf of a victim with one task adds up to the growth of its own
// cpu.pressure within 1 %. The wait that goes on as the span ends is in the kernel's
// figure and not yet in ours, so the span is long beside one wait.
//
// The victim stays on one CPU: a cgroup's pressure is the average of the CPUs', weighted
// by how busy the cgroup was on each (collect_percpu_times, kernel/sched/psi.c), and that
// is less than what one task waited where the task moved between two readings.
//
// So do the hogs, which leaves another CPU to whoever reads: those weights are whole jiffies
// (nsecs_to_jiffies), so that what lies between two readings of any of a cgroup's pressure
// files within one jiffy counts for nothing. On 6.18 at 250 Hz a cgroup that waits 72 % of
// the time waits 2 % by its cpu.pressure where that is read each 2 ms; a reader that is put
// off the CPU between cpu.pressure and memory.pressure loses what it waited itself.
func TestBlameOfAOneTaskVictimAddsUpToItsOwnPressure(t *testing.T) {
	o := open(t)
	scratch := kerneltest.ScratchCgroup(t)
	hogs, victim := scratch.Child("hogs"), scratch.Child("victim")
	for range 2 * runtime.NumCPU() {
		pin(t, hogs.Start("sh", "-c", spin).Process.Pid)
	}
	pin(t, victim.Start("sh", "-c", spin).Process.Pid)

	pressure := func(s *model.Sample) (uint64, bool) {
		for _, c := range s.Cgroups {
			if c.ID == victim.ID() && c.Detail != nil && c.Detail.Pressure != nil {
				return c.Detail.Pressure.CPU.SomeUS, true
			}
		}
		return 0, false
	}
	next(t, o) // the keyframe reads every command line between its counts and the pressure
	var first, last uint64
	var span, samples []*model.Sample
	for len(samples) < 40 {
		s := next(t, o)
		us, ok := pressure(s)
		switch {
		case ok && first == 0:
			first = us
		case first != 0:
			samples = append(samples, s)
			if ok {
				last, span = us, samples
			}
		}
	}
	compare(t, span, victim.ID(), "cpu.pressure", float64(last-first)/1e6, 1)
}
