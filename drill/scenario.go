package drill

import (
	"os/exec"
	"runtime"
	"time"

	"github.com/breakerd/breakerd/model"
)

// scenario is something that breakerd must see, or must leave alone.
type scenario struct {
	name string
	tell string // what happens, for a person
	// kind of the incident that is expected; "" where silence is.
	kind model.Kind
	// offender is what misbehaves, in a cgroup of its own.
	offender func() *exec.Cmd
	// victim says that a latency-sensitive service runs beside it.
	victim bool
	// within is how soon after the offender's start the incident must be open.
	within time.Duration
	// watch is how long silence must last.
	watch time.Duration
}

// Names are those of the scenarios.
func Names() (names []string) {
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return names
}

// scenarios is the literal list.
func scenarios() []scenario {
	cpus := runtime.NumCPU()
	return []scenario{
		{
			name:     "fork-storm",
			tell:     "A process forks about 100 times a second and leaves half of the children behind.",
			kind:     model.ForkStorm,
			offender: forkStorm,
			within:   2500 * time.Millisecond,
		},
		{
			name:     "cpu-hogs",
			tell:     "Three endless loops a CPU start beside a service that answers a request every 8 ms.",
			kind:     model.CPUContention,
			offender: func() *exec.Cmd { return hogs(3 * cpus) },
			victim:   true,
			within:   5 * time.Second,
		},
		{
			name:     "parallel-job",
			tell:     "A parallel job keeps every CPU busy, and nobody else wants one.",
			offender: func() *exec.Cmd { return parallelJob(cpus, 400_000*cpus) },
			watch:    7 * time.Second,
		},
	}
}
