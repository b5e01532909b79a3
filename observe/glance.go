package observe

import (
	"time"

	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/model"
)

// A machine on which nothing happens is glanced at in each tick, and a sample is taken of
// it less often. After a while of that breakerd dozes: it glances once a second, and
// earlier only where the kernel programs wake it. The kernel counts on meanwhile, and a
// sample carries its true length, so that nothing is lost but when within it something
// happened.
const (
	// wholeEvery is how often a sample is taken of a calm machine.
	wholeEvery = time.Second
	// Longest is how far two samples lie apart, at most.
	Longest = 2 * time.Second
	// Who dozes glances this often: nothing wakes him where somebody waits for memory or
	// io, or without an end for a CPU.
	dozeTick = time.Second
	// Somebody waited if the tasks on one CPU did for more than one part in this of a
	// tick. The least that opens an incident by default is five times as much
	// (noisy_neighbour, a tenth of the time).
	stirPart = 50
	// For so long after trouble nobody dozes, and everybody's files go on being read as
	// often as they were in it.
	restless = 10 * time.Second
)

// glance is what tells a calm machine from one on which something happens: totals that
// take 12 µs to read.
type glance struct {
	boot     int64 // when, on CLOCK_BOOTTIME
	pressure model.Pressure
	records  int // bytes of fork, exec and exit records that no sample has taken in yet
}

// stirred says whether more happened between two glances than on a calm machine in a tick.
// Pressure of a CPU is that of all of them on average: one task that waits all the time is
// one CPU's part of it.
func stirred(before, now glance, cpus int, tick time.Duration) bool {
	length := uint64(min(max(0, now.boot-before.boot), int64(tick))) / 1000 // µs
	much := func(was, is model.Stall, parts int) bool {
		return (is.SomeUS-min(was.SomeUS, is.SomeUS))*uint64(max(1, parts))*stirPart > length
	}
	return now.records >= bpf.StirBytes ||
		much(before.pressure.CPU, now.pressure.CPU, cpus) ||
		much(before.pressure.Memory, now.pressure.Memory, cpus) ||
		much(before.pressure.IO, now.pressure.IO, cpus)
}

// calm looks whether this tick is worth no sample. Where it cannot tell, it is worth one.
func (o *Observer) calm() bool {
	if !o.started || o.last.PressureAbsent {
		return false
	}
	now, err := o.glance()
	if err != nil {
		return false // whoever takes the sample says what is wrong
	}
	before := o.seen
	o.seen = now
	if stirred(before, now, o.last.CPUs, o.tick) {
		o.stirredAt = time.Now()
		return false
	}
	whole := wholeEvery
	if o.drowsy() {
		whole = Longest
	}
	// Half a tick early is better than a whole one late.
	return now.boot-o.clocks.Boot < int64(whole-o.tick/2)
}

// drowsy says whether nothing has stirred for so long that it may doze.
func (o *Observer) drowsy() bool {
	return o.started && !o.last.PressureAbsent && o.rested()
}

// rested says whether nothing has stirred for a while.
func (o *Observer) rested() bool { return time.Since(o.stirredAt) >= restless }

// dozeUntil is when whoever dozes looks if nothing wakes him: in time for the next sample,
// and not before the tick is over.
func (o *Observer) dozeUntil() time.Time {
	until := o.due.Add(dozeTick - o.tick)
	if sample := o.sampled.Add(Longest); sample.Before(until) {
		until = sample
	}
	if until.Before(o.due) {
		until = o.due
	}
	return until
}

func (o *Observer) glance() (glance, error) {
	now, err := o.now()
	if err != nil {
		return glance{}, err
	}
	p, err := o.meter.Pressure()
	return glance{now.Boot, p, o.collector.Unread()}, err
}
