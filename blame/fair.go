package blame

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// Claim is what a cgroup got of the CPUs within one span, and what it would have got with
// nobody else there, both in nanoseconds.
type Claim struct {
	ID     model.CgroupID
	Path   string // "" where it is not known
	Ran    uint64
	Wanted uint64
	// Weights are the cpu.weight of each cgroup on the way to it, as a sample has them; where
	// there are none all are the default.
	Weights []uint32
	key     string // Path, as it is compared
}

// Claims are those of all cgroups within one span.
//
// They say which way a fight goes. Waiting alone does not: while a service runs, every
// queued task of a crowd waits for it.
type Claims struct {
	claims []Claim // in the order of their paths: who is below a cgroup follows it
	index  map[model.CgroupID]int
	before []sums // of those before each, and of all
}

type sums struct{ ran, wanted uint64 }

// nowhere is the cgroup in which those are whose path is not known: to be many is no
// advantage for them, either.
const nowhere = "\x00"

// NewClaims takes over the claims.
func NewClaims(claims []Claim) *Claims {
	for i := range claims {
		claims[i].key = pathKey(claims[i].Path)
	}
	slices.SortFunc(claims, func(x, y Claim) int {
		return cmp.Or(comparePaths(x.key, y.key), cmp.Compare(x.ID, y.ID))
	})
	all := &Claims{claims: claims, index: make(map[model.CgroupID]int, len(claims)), before: make([]sums, len(claims)+1)}
	for i, c := range claims {
		all.index[c.ID] = i
		all.before[i+1] = sums{all.before[i].ran + c.Ran, all.before[i].wanted + c.Wanted}
	}
	return all
}

// Entitlement is what a cgroup may have of the CPUs, in nanoseconds.
type Entitlement struct {
	// Share is its part of all that the CPUs gave. Who got more took it from somebody.
	Share uint64
	// Within is its part where each branch of the tree divides what it got, be that more than
	// the branch's own share: never less than Share. Who got less was deprived of it by those in
	// Greedy, for who is in one branch with a crowd does not answer for what the crowd took from
	// other branches.
	Within uint64
	// Greedy is the outermost branch around it that got more than its share; of no claims where
	// there is none.
	Greedy Branch
}

// Entitled divides what the CPUs gave among those who wanted it by their weights: who wanted
// less than the share of his weight gets all of it, and what is left is divided among the
// others (max-min fairness). It is divided from the root on, among the children of a cgroup
// with all that is below each, as the scheduler does it: nobody gets more by spreading over
// many cgroups of his own. The processes that a cgroup with children has itself count as one
// of them, of the default weight.
func (c *Claims) Entitled() map[model.CgroupID]Entitlement {
	entitled := make(map[model.CgroupID]Entitlement, len(c.claims))
	all := Branch{0, len(c.claims)}
	given := c.sum(all).ran
	c.divide(all, 0, 0, Entitlement{Share: given, Within: given}, entitled)
	return entitled
}

// divide gives to those of a branch, whose paths agree in the first depth bytes, which are so
// many names.
func (c *Claims) divide(whole Branch, depth, names int, given Entitlement, entitled map[model.CgroupID]Entitlement) {
	type child struct {
		Branch
		depth  int
		wanted uint64
		load   uint64
	}
	var children []child
	for at := whole.First; at < whole.End; {
		b := child{Branch: Branch{at, at + 1}, depth: depth, load: loadOf(model.DefaultCPUWeight)}
		if path := c.claims[at].key; len(path) > depth {
			b.depth = depth + len(firstName(path[depth:]))
			for b.End < whole.End && within(c.claims[b.End].key, path[:b.depth]) {
				b.End++
			}
			b.depth++ // the slash
			b.load = c.load(b.Branch, names)
		}
		b.wanted = c.sum(b.Branch).wanted
		children = append(children, b)
		at = b.End
	}
	if got := c.sum(whole).ran; got > given.Within {
		given.Within = got
		if given.Greedy == (Branch{}) {
			given.Greedy = whole
		}
	}
	// Those who want least for their weight come first.
	slices.SortStableFunc(children, func(x, y child) int {
		return cmp.Compare(float64(x.wanted)/float64(x.load), float64(y.wanted)/float64(y.load))
	})
	var left uint64
	for _, b := range children {
		left += b.load
	}
	for _, b := range children {
		gets := Entitlement{
			Share:  min(b.wanted, mulDiv(given.Share, b.load, left)),
			Within: min(b.wanted, mulDiv(given.Within, b.load, left)),
			Greedy: given.Greedy,
		}
		left -= b.load
		given.Share -= gets.Share
		given.Within -= gets.Within
		if b.End-b.First == 1 {
			entitled[c.claims[b.First].ID] = gets
		} else {
			c.divide(b.Branch, b.depth, names+1, gets, entitled)
		}
	}
}

// load is what the scheduler reckons a branch at, whose members have so many names in common
// above its own.
func (c *Claims) load(b Branch, names int) uint64 {
	for i := b.First; i < b.End; i++ {
		if weights := c.claims[i].Weights; names < len(weights) {
			return loadOf(weights[names]) // the others' are of the same file
		}
	}
	return loadOf(model.DefaultCPUWeight)
}

// loadOf is the scheduler's figure for a cpu.weight (kernel/sched/core.c: sched_weight_from_cgroup,
// and WEIGHT_IDLEPRIO for what is idle).
func loadOf(weight uint32) uint64 {
	if weight == 0 {
		return 3
	}
	return (uint64(weight)*1024 + 50) / 100
}

// sum is what those of a branch ran and wanted together.
func (c *Claims) sum(b Branch) sums {
	first, end := c.before[b.First], c.before[b.End]
	return sums{end.ran - first.ran, end.wanted - first.wanted}
}

// Branch is a part of the tree: some claims, of which the first and the one after the last are
// these by [Claims.At].
type Branch struct{ First, End int }

// Branches are the two branches of the tree in which two cgroups are, from where their paths
// part: those are who fights, before their members do. Where one is above the other its
// branch are its own processes.
func (c *Claims) Branches(x, y string) (xs, ys Branch) {
	x, y = pathKey(x), pathKey(y)
	at, _ := parting(x, y)
	return c.branch(x, at), c.branch(y, at)
}

// Right is the part, 0 to 1, of what two cgroups get together that the first may have where neither
// has enough: by the weights of the branches in which they are, from where their paths part.
func Right(x, y string, ofX, ofY []uint32) float64 {
	x, y = pathKey(x), pathKey(y)
	at, names := parting(x, y)
	load := func(path string, weights []uint32) float64 {
		if at < len(path) && names < len(weights) {
			return float64(loadOf(weights[names]))
		}
		return float64(loadOf(model.DefaultCPUWeight))
	}
	a, b := load(x, ofX), load(y, ofY)
	return a / (a + b)
}

// parting is where two paths part: behind so many bytes, which are whole names.
func parting(x, y string) (at, names int) {
	for at < len(x) && at < len(y) {
		name := firstName(x[at:])
		if name != firstName(y[at:]) {
			break
		}
		at += len(name) + 1
		names++
	}
	return at, names
}

// branch is the branch of a path that begins there.
func (c *Claims) branch(path string, at int) Branch {
	in := func(key string) bool { return key == path }
	if at < len(path) {
		path = path[:at+len(firstName(path[at:]))]
		in = func(key string) bool { return within(key, path) }
	}
	first := sort.Search(len(c.claims), func(i int) bool { return comparePaths(c.claims[i].key, path) >= 0 })
	return Branch{first, first + sort.Search(len(c.claims)-first, func(i int) bool { return !in(c.claims[first+i].key) })}
}

// Has reports whether the claim at an index is of the branch.
func (b Branch) Has(i int) bool { return b.First <= i && i < b.End }

// At is the claim at an index, in the order of the paths.
func (c *Claims) At(i int) Claim { return c.claims[i] }

// Index is where the claim of a cgroup is, -1 where it has none.
func (c *Claims) Index(id model.CgroupID) int {
	if i, ok := c.index[id]; ok {
		return i
	}
	return -1
}

// pathKey is a path as it is compared.
func pathKey(path string) string {
	if path == "" {
		return nowhere
	}
	return strings.TrimPrefix(path, "/")
}

func firstName(path string) string {
	name, _, _ := strings.Cut(path, "/")
	return name
}

// comparePaths orders paths by their names, so that all below a cgroup follows it.
func comparePaths(x, y string) int {
	n := min(len(x), len(y))
	for i := range n {
		if a, b := x[i], y[i]; a != b {
			switch {
			case a == '/':
				return -1
			case b == '/':
				return 1
			}
			return cmp.Compare(a, b)
		}
	}
	return cmp.Compare(len(x), len(y))
}
