package enforce

import (
	"fmt"

	"github.com/breakerd/breakerd/model"
)

// mostLeft bounds the leases that are there at all, those among them whose undo leaves nobody frozen
// and does not end.
const mostLeft = 64

// guardReach bounds how much may be held at once: so many leases, and such a share
// of the machine's processes and of its memory, as they are resident: what two processes
// share counts for each, which only makes it refuse earlier.
//
// Only established processes count, on either side, because a fork storm is nearly all
// of the machine's processes, and is what should be stopped: its processes are young.
// breakerd cannot make a process look younger than it is.
func guardReach(_ *model.Decision, f *facts) string {
	r := f.config.Reach
	if len(f.held) >= mostLeft {
		return fmt.Sprintf("%d leases cannot be undone wholly, and %d is the most", len(f.held), mostLeft)
	}
	if f.standing >= r.Leases {
		return fmt.Sprintf("%d leases are held already, and %d is the most", f.standing, r.Leases)
	}
	mine := f.established()
	machine := max(f.machine, mine, 1)
	hold := mine + f.heldEstablished
	if share := 100 * float64(hold) / float64(machine); share > r.ProcessesPercent {
		return fmt.Sprintf("%d of the machine's %d processes older than %s would stand still: %.1f %%, and %g %% is the most",
			hold, machine, r.Young.D(), share, r.ProcessesPercent)
	}
	if f.memory == 0 {
		return "how much memory the machine has cannot be told"
	}
	bytes := f.establishedBytes() + f.heldBytes
	if share := 100 * float64(bytes) / float64(f.memory); share > r.MemoryPercent {
		return fmt.Sprintf("processes older than %s with %d MiB of the machine's %d MiB of memory would be held: %.1f %%, and %g %% is the most",
			r.Young.D(), bytes>>20, f.memory>>20, share, r.MemoryPercent)
	}
	return ""
}

// establishedBytes is the memory of the target's processes that are not young.
func (f *facts) establishedBytes() uint64 {
	var n uint64
	for i := range f.procs {
		if f.isEstablished(f.procs[i].StartTime) {
			n += f.procs[i].bytes
		}
	}
	return n
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
