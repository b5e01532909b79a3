package detect

import (
	"cmp"
	"slices"

	"github.com/breakerd/breakerd/model"
)

// dominant is the part of a cause that a single child's subtree must account for, so
// that the search for the culprit goes down to it.
const dominant = 0.8

// suspect is a part of a cgroup that answers for a cause.
type suspect struct {
	root    *node // nil: the whole cgroup
	largest *node // the process to name
	weight  float64
	share   float64 // of the whole cause within the cgroup, 0 to 1
	members int     // processes of the cgroup within the tree
	outside int     // processes of the cgroup that are not
}

// account is the cause within one cgroup, added up over its trees.
type account struct {
	cgroup  model.CgroupID
	entries map[*node]*entry // of the members
	members int
	tops    []*node // members whose parent is not a member
	rest    *node   // of those that ended; nil where there is none
	total   float64

	used      map[*node]float64 // CPU time of each, and of all: see wrongedByTree
	usedByAll float64
}

// entry is what a member has on its account, and what its tree has.
type entry struct {
	subtree float64
	size    int
	// The members that hang on it. A process may have thousands of children in other
	// cgroups, as whatever starts services has.
	down []*node
}

// tally adds up what the processes of a cgroup have on their account.
func (t *table) tally(cgroup model.CgroupID, own map[*node]float64) *account {
	members := t.cgroups[cgroup]
	a := &account{cgroup: cgroup, members: len(members), entries: make(map[*node]*entry, len(members)), rest: t.rest[cgroup]}
	a.total = own[a.rest]
	all := make([]entry, len(members))
	i := 0
	for n := range members {
		a.entries[n] = &all[i]
		i++
	}
	for n := range members {
		// The tree of pid 1 is the machine: who it started is looked at one by one.
		switch up := a.entries[n.up]; {
		case n.PID == 1:
		case up == nil || n.up.PID == 1:
			a.tops = append(a.tops, n)
		default:
			up.down = append(up.down, n)
		}
	}
	slices.SortFunc(a.tops, func(x, y *node) int { return compareIDs(x.ProcID, y.ProcID) })
	for _, n := range a.tops {
		a.add(n, own)
		a.total += a.entries[n].subtree
	}
	return a
}

// byCgroup adds up what is charged to the processes of each cgroup, and to its rest.
func byCgroup(by map[*node]float64) map[model.CgroupID]float64 {
	sums := make(map[model.CgroupID]float64)
	for n, v := range by {
		sums[n.Cgroup] += v
	}
	return sums
}

// has reports whether a process is a member.
func (a *account) has(n *node) bool { return n != nil && n.Cgroup == a.cgroup && !n.Kernel }

// below lists a member and the members that hang on it, parents before children.
func (a *account) below(root *node) []*node {
	all := []*node{root}
	for i := 0; i < len(all); i++ {
		all = append(all, a.entries[all[i]].down...)
	}
	return all
}

func (a *account) add(top *node, own map[*node]float64) {
	for _, n := range slices.Backward(a.below(top)) {
		e := a.entries[n]
		e.subtree += own[n]
		e.size++
		if n != top {
			up := a.entries[n.up]
			up.subtree += e.subtree
			up.size += e.size
		}
	}
}

// of lists a suspect's processes.
func (a *account) of(s suspect) []*node {
	if s.root != nil {
		return a.below(s.root)
	}
	var all []*node
	if a.rest != nil {
		all = append(all, a.rest)
	}
	for _, top := range a.tops {
		all = append(all, a.below(top)...)
	}
	return all
}

// sum adds up another account over a suspect's processes.
func (a *account) sum(s suspect, own map[*node]float64) (sum float64) {
	for _, n := range a.of(s) {
		sum += own[n]
	}
	return sum
}

// answers says whether a process is one of a suspect's.
func (a *account) answers(s suspect, n *node) bool {
	return a.has(n) && (s.root == nil || n.within(s.root))
}

// suspects are those who answer for the cause: the one tree that dominates; or every
// tree that alone exceeds enough; or else the whole cgroup.
func (a *account) suspects(enough float64) []suspect {
	if a.total == 0 {
		return nil
	}
	if best := a.heaviest(a.tops); best != nil && a.entries[best].subtree >= dominant*a.total {
		return []suspect{a.tree(a.descend(best))}
	}
	var found []suspect
	for _, n := range a.tops {
		if enough > 0 && a.entries[n].subtree > enough {
			found = append(found, a.tree(a.descend(n)))
		}
	}
	if found == nil {
		found = []suspect{a.whole()}
	}
	return found
}

// descend walks down while a single child's subtree still dominates.
func (a *account) descend(n *node) *node {
	for {
		best := a.heaviest(a.entries[n].down)
		if best == nil || a.entries[best].subtree < dominant*a.entries[n].subtree {
			return n
		}
		n = best
	}
}

func (a *account) heaviest(nodes []*node) *node {
	if len(nodes) == 0 {
		return nil
	}
	return slices.MaxFunc(nodes, func(x, y *node) int {
		return cmp.Or(cmp.Compare(a.entries[x].subtree, a.entries[y].subtree), -compareIDs(x.ProcID, y.ProcID))
	})
}

func (a *account) tree(root *node) suspect {
	e := a.entries[root]
	return suspect{
		root: root, largest: root,
		weight:  e.subtree,
		share:   e.subtree / a.total,
		members: e.size,
		outside: a.members - e.size,
	}
}

// culprit is who within a cgroup answers for a cause: a tree, or the whole.
func (w *window) culprit(cgroup model.CgroupID, cause map[*node]float64) suspect {
	a := w.table.tally(cgroup, cause)
	if suspects := a.suspects(0); suspects != nil {
		return suspects[0]
	}
	return a.whole() // no process of it has been measured yet
}

// size is how many processes of a cgroup are of a tree, or of the whole cgroup where there
// is no root, and how many are not; false where the root is not there any more.
func (t *table) size(cgroup model.CgroupID, root *node) (members, outside int, ok bool) {
	a := t.tally(cgroup, nil)
	if root == nil {
		return a.members, 0, true
	}
	e := a.entries[root]
	if e == nil {
		return 0, 0, false
	}
	return e.size, a.members - e.size, true
}

func (a *account) whole() suspect {
	return suspect{largest: a.heaviest(a.tops), weight: a.total, share: 1, members: a.members}
}
