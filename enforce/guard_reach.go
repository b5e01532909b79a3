package enforce

import (
	"fmt"

	"github.com/breakerd/breakerd/model"
)

// guardReach bounds how much may be held at once: so many leases, and such a share
// of the machine's processes.
//
// Only established processes count, on either side, because a fork storm is nearly all
// of the machine's processes, and is what should be stopped: its processes are young.
// breakerd cannot make a process look younger than it is.
func guardReach(_ *model.Decision, f *facts) string {
	r := f.config.Reach
	if len(f.held) >= r.Leases {
		return fmt.Sprintf("%d leases are held already, and %d is the most", len(f.held), r.Leases)
	}
	mine := f.established()
	machine := max(f.machine, mine, 1)
	hold := mine + f.heldEstablished
	if share := 100 * float64(hold) / float64(machine); share > r.ProcessesPercent {
		return fmt.Sprintf("%d of the machine's %d processes older than %s would stand still: %.1f %%, and %g %% is the most",
			hold, machine, r.Young.D(), share, r.ProcessesPercent)
	}
	return ""
}

// established counts the target's processes that are not young.
func (f *facts) established() int {
	n := 0
	for i := range f.procs {
		if f.isEstablished(f.procs[i].StartTime) {
			n++
		}
	}
	return n
}

func (f *facts) isEstablished(start uint64) bool {
	return start+uint64(f.config.Reach.Young.D().Seconds()*ticksPerSecond) <= f.ticks
}
