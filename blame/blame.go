// Package blame says who made whom wait. It is pure: samples in, shares out.
//
// For each victim the shares add up to its whole wait. What could not be told apart
// is unknown; it is never divided among the suspects.
package blame

import (
	"cmp"
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
	SelfNS        uint64      // the victim's own other tasks
	OwnQuotaNS    uint64      // held by its own cpu.max, or an ancestor's
	KernelNS      uint64      // kernel threads, interrupts, a CPU waking up
	OurThrottleNS uint64      // held by a limit of ours
	StealNS       uint64      // the hypervisor
	UnknownNS     uint64
	QuotaUnsure   bool // it has a quota, and how long that held it was not seen
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
	victims := make(map[model.CgroupID]*Shares)
	for _, s := range samples[from:] {
		for _, w := range s.Waits {
			if w.Resource == model.CPU {
				add(victims, w)
			}
		}
	}
	steal := stealOver(samples[max(0, from-1):])
	quotas := quotasOver(samples, from)
	for id, v := range victims {
		// The scheduler's clock runs on while the hypervisor runs somebody else, so the
		// time of every cause contains its part of the steal.
		v.StealNS = v.takeFromAll(steal.of(v.WaitNS))
		held, sure := quotas[id].held()
		switch {
		case !sure:
			v.QuotaUnsure = true
			v.UnknownNS += v.takeFromNeighbours()
		case held > 0:
			// A task held by its own quota stays queued, and whoever runs meanwhile
			// would look guilty (seen on 5.10, 6.1 and 6.12).
			v.OwnQuotaNS = v.takeFromAll(min(held, v.WaitNS-v.StealNS))
		}
		slices.SortFunc(v.Neighbours, func(a, b Neighbour) int {
			return cmp.Or(cmp.Compare(b.NS, a.NS), cmp.Compare(a.Offender, b.Offender))
		})
	}
	return victims
}

func add(victims map[model.CgroupID]*Shares, w model.Wait) {
	v := victims[w.Victim]
	if v == nil {
		v = &Shares{Victim: w.Victim, Resource: model.CPU}
		victims[w.Victim] = v
	}
	v.WaitNS += w.NS
	switch {
	case w.By == model.ByKernel:
		v.KernelNS += w.NS
	case w.By != model.ByCgroup:
		v.UnknownNS += w.NS
	case w.Offender == w.Victim:
		v.SelfNS += w.NS
	default:
		for i := range v.Neighbours {
			if v.Neighbours[i].Offender == w.Offender {
				v.Neighbours[i].NS += w.NS
				return
			}
		}
		v.Neighbours = append(v.Neighbours, Neighbour{Offender: w.Offender, NS: w.NS})
	}
}

// takeFromAll takes ns from the measured causes, from each in proportion, and returns
// what it took; rounding leaves it a few nanoseconds short.
func (s *Shares) takeFromAll(ns uint64) (taken uint64) {
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
}

// quotasOver reads the quotas of every cgroup over a span: from the last reading before
// it, if there is one, to the last within it.
func quotasOver(samples []*model.Sample, from int) map[model.CgroupID]quota {
	quotas := make(map[model.CgroupID]quota)
	for i, s := range samples {
		for j := range s.Cgroups {
			c := &s.Cgroups[j]
			if c.Detail == nil {
				continue
			}
			total := c.Detail.ThrottledNS
			q := quotas[c.ID]
			if i < from || q.readings == 0 {
				q = quota{first: total}
			}
			q.last = total
			q.readings++
			quotas[c.ID] = q
		}
	}
	return quotas
}

// held is how long the cgroup was held within the span. It is not sure where the cgroup
// has been held before and there is only one reading.
func (q quota) held() (ns uint64, sure bool) {
	if q.readings == 1 && q.last > 0 {
		return 0, false
	}
	return q.last - min(q.first, q.last), true
}
