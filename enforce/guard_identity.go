package enforce

import (
	"errors"
	"fmt"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// guardIdentity protects whoever has taken the place of the one that was meant: a
// pid and a path are given out again.
func guardIdentity(d *model.Decision, f *facts) string {
	t := d.Target
	switch {
	case errors.Is(f.err, cgroupctl.ErrGone):
		return fmt.Sprintf("cgroup %s with id %d is gone", t.Cgroup, t.CgroupID)
	case f.err != nil:
		return fmt.Sprintf("cgroup %s could not be looked at: %v", t.Cgroup, f.err)
	case len(f.procs) == 0:
		return fmt.Sprintf("cgroup %s is empty: whoever it was has ended", t.Cgroup)
	}
	if scopeOf(d) == model.ScopeCgroup {
		return ""
	}
	// The children of a root that has ended may be all that is left of the tree, but
	// nobody can tell any more from here. A policy may ask for the cgroup instead.
	for i := range f.procs {
		p := &f.procs[i]
		switch {
		case p.PID != t.Root.PID:
		case p.StartTime != t.Root.StartTime:
			return fmt.Sprintf("process %d was started at %d, not at %d: it is another one", p.PID, p.StartTime, t.Root.StartTime)
		default:
			return ""
		}
	}
	return fmt.Sprintf("process %d, the root of the tree, is not in %s any more", t.Root.PID, t.Cgroup)
}
