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
	own     map[*node]float64
	subtree map[*node]float64
	size    map[*node]int
	members map[*node]bool
	tops    []*node // members whose parent is not a member
	total   float64
}

// tally adds up what the processes of a cgroup have on their account.
func (t *table) tally(cgroup model.CgroupID, own map[*node]float64) *account {
	a := &account{own: own, subtree: map[*node]float64{}, size: map[*node]int{}, members: map[*node]bool{}}
	for _, n := range t.nodes {
		if n.Cgroup == cgroup && !n.Kernel {
			a.members[n] = true
		}
	}
	for n := range a.members {
		// The tree of pid 1 is the machine: who it started is looked at one by one.
		if n.PID != 1 && (!a.members[n.up] || n.up.PID == 1) {
			a.tops = append(a.tops, n)
		}
	}
	slices.SortFunc(a.tops, func(x, y *node) int { return compareIDs(x.ProcID, y.ProcID) })
	for _, n := range a.tops {
		a.add(n)
		a.total += a.subtree[n]
	}
	return a
}

func (a *account) add(n *node) {
	weight, size := a.own[n], 1
	for child := range n.down {
		if a.members[child] {
			a.add(child)
			weight += a.subtree[child]
			size += a.size[child]
		}
	}
	a.subtree[n], a.size[n] = weight, size
}

// suspects are those who answer for the cause: the one tree that dominates; or every
// tree that alone exceeds enough; or else the whole cgroup.
func (a *account) suspects(enough float64) []suspect {
	if a.total == 0 {
		return nil
	}
	if best := a.heaviest(a.tops); best != nil && a.subtree[best] >= dominant*a.total {
		return []suspect{a.tree(a.descend(best))}
	}
	var found []suspect
	for _, n := range a.tops {
		if enough > 0 && a.subtree[n] > enough {
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
		children := make([]*node, 0, len(n.down))
		for child := range n.down {
			if a.members[child] {
				children = append(children, child)
			}
		}
		best := a.heaviest(children)
		if best == nil || a.subtree[best] < dominant*a.subtree[n] {
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
		return cmp.Or(cmp.Compare(a.subtree[x], a.subtree[y]), -compareIDs(x.ProcID, y.ProcID))
	})
}

func (a *account) tree(root *node) suspect {
	return suspect{
		root: root, largest: root,
		weight:  a.subtree[root],
		share:   a.subtree[root] / a.total,
		members: a.size[root],
		outside: len(a.members) - a.size[root],
	}
}

func (a *account) whole() suspect {
	return suspect{largest: a.heaviest(a.tops), weight: a.total, share: 1, members: len(a.members)}
}
