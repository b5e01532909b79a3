package observe

import (
	"time"

	"github.com/breakerd/breakerd/model"
)

// A machine on which nothing happens is glanced at in each tick, and a sample is taken of
// it less often. The kernel counts on meanwhile, and a sample carries its true length, so
// that nothing is lost but when within it something happened.
const (
	// WholeEvery is how often a sample is taken of a calm machine.
	WholeEvery = time.Second
	// Somebody waited if the tasks on one CPU did for more than one part in this of a
	// tick. The least that opens an incident by default is five times as much
	// (noisy_neighbour, a tenth of the time).
	stirPart = 50
	// Processes come and go from so many bytes of records on since the last sample: those
	// of two processes that were forked, exec'd and ended, or of seven that were forked.
	stirBytes = 560
	// After trouble everybody's files go on being read as often as they were in it.
	restless = 10 * time.Second
)

// glance is what tells a calm machine from one on which something happens: totals that
// take 12 µs to read.
type glance struct {
	boot     int64 // when, on CLOCK_BOOTTIME
	pressure model.Pressure
	records  int // bytes of fork, exec and exit records that no sample has taken in yet
}

// stirred says whether more happened between two glances than on a calm machine. Pressure
// of a CPU is that of all of them on average: one task that waits all the time is one CPU's
// part of it.
func stirred(before, now glance, cpus int) bool {
	length := uint64(max(0, now.boot-before.boot)) / 1000 // µs
	much := func(was, is model.Stall, parts int) bool {
		return (is.SomeUS-min(was.SomeUS, is.SomeUS))*uint64(max(1, parts))*stirPart > length
	}
	return now.records >= stirBytes ||
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
	if stirred(before, now, o.last.CPUs) {
		o.stirredAt = time.Now()
		return false
	}
	// Half a tick early is better than a whole one late.
	return now.boot-o.clocks.Boot < int64(WholeEvery-o.tick/2)
}

func (o *Observer) glance() (glance, error) {
	now, err := o.now()
	if err != nil {
		return glance{}, err
	}
	p, err := o.meter.Pressure()
	return glance{now.Boot, p, o.collector.Unread()}, err
}
