package main

import (
	"context"
	"time"

	"github.com/breakerd/breakerd/model"
)

// scenario is a labelled load: what is done, and what may be said of it. The labels come
// from what the load does and from docs/incidents.md, never from what was answered.
type scenario struct {
	name string
	tell string // what happens, for a person

	// kinds are those of which at least one must open; none: silence is expected, which
	// is nothing at the level of a warning or above.
	kinds []model.Kind
	// also may open besides, against the same culprit, and be right.
	also []model.Kind
	// culprits are cgroups of the scenario; naming any of them is right.
	culprits []string
	// root names the actor whose process must be the culprit's root; "" if all of the
	// cgroup is to blame.
	root string
	// victims must all be named by incidents against the culprit.
	victims []string

	needs  []need
	actors []actor
	// limits are files of cgroups that are written before anything starts.
	limits []limit

	// hurts is a cgroup that must have waited for a CPU, by the kernel's own figures, for
	// the label to be true; spares one that must not have.
	hurts, spares string
	// stalls is the resource of which the host's pressure must have been high.
	stalls model.Resource

	// file is the size, in MB, of the file that the workers find; 0 if there is none.
	file int

	warm   time.Duration // from the innocents' start to the offenders'
	within time.Duration // from the offenders' start to the incident
	watch  time.Duration // how long silence must last

	// during does what the actors cannot do themselves, until the context ends.
	during func(context.Context, *stage)
	// replay makes it a scenario of a recording instead: see suspend.go.
	replay bool
}

func (s *scenario) silent() bool { return len(s.kinds) == 0 }

// actor is one process, and what it starts.
type actor struct {
	name   string
	cgroup string // below the scenario's; several may share one
	late   bool   // starts only after the others have had time to warm up
	kind   string // of work
	args   []string
}

// limit is a value for a file of a cgroup of the scenario.
type limit struct{ cgroup, file, value string }

// start is an actor that is there from the beginning; offend one that starts the trouble.
func start(name, cgroup, kind string, args ...string) actor {
	return actor{name: name, cgroup: cgroup, kind: kind, args: args}
}

func offend(name, cgroup, kind string, args ...string) actor {
	return actor{name: name, cgroup: cgroup, kind: kind, args: args, late: true}
}

// Premises, by the kernel's own figures: a label of harm or of harmlessness is only as
// true as the harm.
const (
	hurtMSPerSecond   = 100.0
	sparedMSPerSecond = 100.0
	// stallPercent is how much of the time the host must have stalled where a scenario is
	// about memory or io: the thresholds are 10 and 40 % of full.
	memoryFullPercent = 10.0
	ioFullPercent     = 40.0
)
