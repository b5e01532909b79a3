// Package blame says who made whom wait. It is pure: samples in, shares out.
//
// For each victim the shares add up to its whole wait. What could not be told apart
// is unknown; it is never divided among the suspects.
package blame

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/breakerd/breakerd/model"
)

// Shares divide the time that one cgroup waited for a resource: for a CPU the time that
// its tasks waited, for memory and io the growth of its own pressure.
type Shares struct {
	Victim    model.CgroupID
	Resource  model.Resource
	Estimated bool   // worked out from circumstances, not measured
	WaitNS    uint64 // the sum of all that follow

	Neighbours    []Neighbour // other cgroups, the worst first
	SelfNS        uint64      // the victim's own other tasks, and what it asked for
	AskedNS       uint64      // of SelfNS, what its tasks asked for: they let others go first
	OwnQuotaNS    uint64      // held by its own cpu.max, or an ancestor's
	KernelNS      uint64      // kernel threads, a CPU waking up
	OurThrottleNS uint64      // held by a limit of ours
	StealNS       uint64      // the hypervisor
	UnknownNS     uint64
	QuotaUnsure   bool // it has a quota, or may have one, and how much of the wait that made was not seen
}

// Neighbour is a cgroup that ran while the victim waited.
type Neighbour struct {
	Offender model.CgroupID
	NS       uint64
}

// NeighbourNS is what all neighbours together account for.
func (s *Shares) NeighbourNS() uint64 {
	var sum uint64
	for _, n := range s.Neighbours {
		sum += n.NS
	}
	return sum
}

// By is what one cgroup accounts for.
func (s *Shares) By(offender model.CgroupID) uint64 {
	for _, n := range s.Neighbours {
		if n.Offender == offender {
			return n.NS
		}
	}
	return 0
}

// Over divides the waits for a CPU within the consecutive samples from the given one
// on, by victim. The samples before it are what running totals are compared with.
func Over(samples []*model.Sample, from int) map[model.CgroupID]*Shares {
	g := newGathered()
	for _, s := range samples[from:] {
		for i := range s.Waits {
			if c, ok := cellOf(&s.Waits[i]); ok {
				g.add(c)
			}
		}
	}
	return divide(g.victims, samples, from)
}

// Cell is a wait for a CPU as it is kept: in half the room of a model.Wait, and without
// anything for a garbage collector to follow.
type Cell struct {
	offender, victim model.CgroupID
	ns               uint64
	by               source
}

type source uint8

const (
	byUnknown source = iota
	byKernel
	byAsked
	byCgroup
)

func cellOf(w *model.Wait) (c Cell, ok bool) {
	c = Cell{offender: w.Offender, victim: w.Victim, ns: w.NS}
	switch w.By {
	case model.ByKernel:
		c.by = byKernel
	case model.ByAsked:
		c.by = byAsked
	case model.ByCgroup:
		c.by = byCgroup
	}
	return c, w.Resource == model.CPU
}

// For is how long a victim waited for that cgroup; false where it was somebody else.
func (c Cell) For(offender model.CgroupID) (victim model.CgroupID, ns uint64, ok bool) {
	return c.victim, c.ns, c.by == byCgroup && c.offender == offender
}

// Cells are the waits for a CPU of one sample.
func Cells(waits []model.Wait) []Cell {
	cells := make([]Cell, 0, len(waits))
	for i := range waits {
		if c, ok := cellOf(&waits[i]); ok {
			cells = append(cells, c)
		}
	}
	return cells
}

// OverCells is Over where the waits of each sample are kept beside it.
func OverCells(cells [][]Cell, samples []*model.Sample, from int) map[model.CgroupID]*Shares {
	g := newGathered()
	for _, of := range cells[from:] {
		for _, c := range of {
			g.add(c)
		}
	}
	return divide(g.victims, samples, from)
}

func divide(victims map[model.CgroupID]*Shares, samples []*model.Sample, from int) map[model.CgroupID]*Shares {
	var elapsed uint64
	for _, s := range samples[from:] {
		elapsed = plus(elapsed, uint64(max(0, s.LengthNS)))
	}
	steal := stealOver(samples[max(0, from-1):])
	quotas := quotasOver(samples, from)
	for id, v := range victims {
		// The scheduler's clock runs on while the hypervisor runs somebody else, so the
		// time of every cause contains its part of the steal.
		v.StealNS = v.takeFromAll(steal.of(v.WaitNS))
		held, sure := quotas[id].held()
		// A task held by its own quota stays queued, and whoever runs meanwhile would look
		// guilty (seen on 5.10, 6.1 and 6.12). The kernel counts how long each CPU's queue
		// was held, and the wait is that of each task in it: as many as waited at a time.
		held = times(held, waiting(v.WaitNS, elapsed))
		held = min(held, v.WaitNS-v.StealNS)
		// A limit of ours is tighter than the quota that was there.
		if part := v.takeFromAll(held); quotas[id].ours {
			v.OurThrottleNS = part
		} else {
			v.OwnQuotaNS = part
		}
		// More may have waited in bursts, and nothing tells how many. So where the quota
		// counts for anything, nobody is accused of the rest.
		if !sure || held > v.WaitNS/quotaParts {
			v.QuotaUnsure = !sure || v.NeighbourNS() > 0
			v.UnknownNS += v.takeFromNeighbours()
		}
		v.rank()
	}
	return victims
}

// quotaParts: a quota that held a cgroup for one part in this of its wait, or more, may
// have made all of it.
const quotaParts = 100

// waiting is how many tasks waited at a time, at least one.
func waiting(waitNS, elapsedNS uint64) uint64 {
	if elapsedNS == 0 {
		return 1
	}
	return waitNS/elapsedNS + 1
}

// times multiplies without overflowing.
func times(a, b uint64) uint64 {
	if hi, lo := bits.Mul64(a, b); hi == 0 {
		return lo
	}
	return math.MaxUint64
}

// rank puts the worst neighbour first.
func (s *Shares) rank() {
	slices.SortFunc(s.Neighbours, func(a, b Neighbour) int {
		return cmp.Or(cmp.Compare(b.NS, a.NS), cmp.Compare(a.Offender, b.Offender))
	})
}

// gathered is what each victim waited, while it is added up.
type gathered struct {
	victims map[model.CgroupID]*Shares
	at      map[pair]int // where a neighbour stands, of victims that have many
}

type pair struct{ victim, offender model.CgroupID }

// manyNeighbours are more than are looked through one by one.
const manyNeighbours = 16

func newGathered() gathered {
	return gathered{make(map[model.CgroupID]*Shares), make(map[pair]int)}
}

// neighbour finds one among those of a victim; -1 is none.
func (g gathered) neighbour(v *Shares, offender model.CgroupID) int {
	if len(v.Neighbours) > manyNeighbours {
		if i, is := g.at[pair{v.Victim, offender}]; is {
			return i
		}
		return -1
	}
	return slices.IndexFunc(v.Neighbours, func(n Neighbour) bool { return n.Offender == offender })
}

func (g gathered) append(v *Shares, n Neighbour) {
	v.Neighbours = append(v.Neighbours, n)
	switch count := len(v.Neighbours); {
	case count == manyNeighbours+1:
		for i, n := range v.Neighbours {
			g.at[pair{v.Victim, n.Offender}] = i
		}
	case count > manyNeighbours:
		g.at[pair{v.Victim, n.Offender}] = count - 1
	}
}

func (g gathered) add(c Cell) {
	v := g.victims[c.victim]
	if v == nil {
		v = &Shares{Victim: c.victim, Resource: model.CPU}
		g.victims[c.victim] = v
	}
	v.WaitNS += c.ns
	switch {
	case c.by == byKernel:
		v.KernelNS += c.ns
	case c.by == byAsked:
		v.SelfNS += c.ns
		v.AskedNS += c.ns
	case c.by != byCgroup:
		v.UnknownNS += c.ns
	case c.offender == c.victim:
		v.SelfNS += c.ns
	default:
		if i := g.neighbour(v, c.offender); i >= 0 {
			v.Neighbours[i].NS += c.ns
		} else {
			g.append(v, Neighbour{Offender: c.offender, NS: c.ns})
		}
	}
}

// takeFromAll takes ns from the measured causes, from each in proportion, and returns
// what it took; rounding leaves it a few nanoseconds short.
func (s *Shares) takeFromAll(ns uint64) (taken uint64) {
	if ns == 0 {
		return 0 // as a rule, of thousands of victims
	}
	causes := []*uint64{&s.SelfNS, &s.KernelNS, &s.UnknownNS}
	for i := range s.Neighbours {
		causes = append(causes, &s.Neighbours[i].NS)
	}
	var whole uint64
	for _, c := range causes {
		whole += *c
	}
	if whole == 0 {
		return 0
	}
	ns = min(ns, whole)
	s.AskedNS -= mulDiv(s.AskedNS, ns, whole) // as of SelfNS, of which it stays a part
	for _, c := range causes {
		part := mulDiv(*c, ns, whole)
		*c -= part
		taken += part
	}
	return taken
}

func (s *Shares) takeFromNeighbours() (taken uint64) {
	taken = s.NeighbourNS()
	s.Neighbours = nil
	return taken
}

// ratio is a part of a whole, in numbers that do not round.
type ratio struct{ part, whole uint64 }

func (r ratio) of(n uint64) uint64 {
	if r.whole == 0 {
		return 0
	}
	return mulDiv(n, min(r.part, r.whole), r.whole)
}

// mulDiv is a*b/c with b <= c, so that the result fits.
func mulDiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return a
	}
	q, _ := bits.Div64(hi, lo, c)
	return q
}

// stealOver is the part of the busy CPU time that the hypervisor took.
func stealOver(samples []*model.Sample) ratio {
	if len(samples) < 2 {
		return ratio{}
	}
	first, last := samples[0].Host, samples[len(samples)-1].Host
	// The kernel's own counters of steal and idle time have been seen to run backwards.
	if last.StealNS < first.StealNS || last.CPUBusyNS < first.CPUBusyNS {
		return ratio{}
	}
	steal := last.StealNS - first.StealNS
	return ratio{part: steal, whole: steal + last.CPUBusyNS - first.CPUBusyNS}
}

// quota is what was read of how long a cgroup was held by one.
type quota struct {
	first, last uint64 // running totals
	readings    int
	before      bool // it held the cgroup shortly before the span
	unread      bool // since the last reading it may have held it, too
	ours        bool // breakerd had set it
}

// quotasOver reads the quotas of every cgroup over a span: from the last reading before
// it, if there is one, to the last within it.
func quotasOver(samples []*model.Sample, from int) map[model.CgroupID]quota {
	quotas := make(map[model.CgroupID]quota)
	for i, s := range samples {
		for j := range s.Cgroups {
			c := &s.Cgroups[j]
			if c.Detail == nil {
				if c.QuotaUnread {
					q := quotas[c.ID]
					q.unread = true
					quotas[c.ID] = q
				}
				continue
			}
			total := c.Detail.ThrottledNS
			q := quotas[c.ID]
			if i < from || q.readings == 0 {
				q = quota{first: total, before: q.before || q.readings > 0 && total > q.last}
			}
			q.ours = q.ours || c.Limited
			q.last, q.unread = total, false
			q.readings++
			quotas[c.ID] = q
		}
	}
	return quotas
}

// held is how long the cgroup was held within the span. It is not sure where it was not read
// to the end, where the cgroup has been held before and there is only one reading, and where it was held shortly before:
// a wait counts when it ends, and that may be after the kernel counted what it was.
func (q quota) held() (ns uint64, sure bool) {
	if q.unread || q.readings == 1 && q.last > 0 {
		return 0, false
	}
	ns = q.last - min(q.first, q.last)
	return ns, ns > 0 || !q.before
}
