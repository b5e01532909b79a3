package enforce

import (
	"fmt"

	"github.com/breakerd/breakerd/model"
)

// guardBystanders protects processes of the cgroup that are not of the culprit's
// tree. The enforcer sees for itself: each process must descend from the root. The
// child of a process that has ended is handed to another parent, so a process that
// does not descend is still taken for one of the tree if it is in a process group or a
// session that the root leads, or if breakerd, which saw the forks, says that nobody is
// outside, and if it is not older than the root.
//
// Where the tree can be moved apart, the others are no part of it (see facts.plan).
func guardBystanders(d *model.Decision, f *facts) string {
	if scopeOf(d) == model.ScopeCgroup {
		return "" // all of them are meant
	}
	if d.Target.Outside < 0 {
		return fmt.Sprintf("%d processes outside the tree is no number", d.Target.Outside)
	}
	root := d.Target.Root
	tree := map[int32]bool{root.PID: true}
	var out []string
	for i := range f.procs {
		p := &f.procs[i]
		if f.moved[p.ProcID] || inTree(root, p, f, tree) {
			continue
		}
		if d.Target.Outside == 0 && p.StartTime >= root.StartTime {
			continue
		}
		out = append(out, p.String())
	}
	if len(out) == 0 {
		return ""
	}
	why := fmt.Sprintf("%d of the %d processes in %s are not of the tree of %d: %s",
		len(out), len(f.procs), d.Target.Cgroup, root.PID, list(out))
	if f.notApart != "" {
		why += "; the tree cannot be held alone: " + f.notApart
	}
	return why
}

// descends walks up the parents until it meets somebody whose place is known, and
// remembers what it learned of everybody on the way.
func descends(pid int32, f *facts, tree map[int32]bool) bool {
	var way []int32
	in := false
	for pid > 1 && len(way) <= len(f.parents) {
		known, ok := tree[pid]
		if ok {
			in = known
			break
		}
		way = append(way, pid)
		pid = f.parents[pid]
	}
	for _, p := range way {
		tree[p] = in
	}
	return in
}
