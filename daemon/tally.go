package daemon

import (
	"slices"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// tally adds up blame.
type tally struct {
	pairs   map[pair]uint64 // ns
	victims map[model.CgroupID]waits
}

type pair struct{ offender, victim model.CgroupID }

// waits is where the waiting of one victim went. What follows WaitNS adds up to it.
type waits struct {
	WaitNS, NeighbourNS, SelfNS, OwnQuotaNS, KernelNS, StealNS, UnknownNS uint64
}

func (w *waits) add(o waits) {
	w.WaitNS += o.WaitNS
	w.NeighbourNS += o.NeighbourNS
	w.SelfNS += o.SelfNS
	w.OwnQuotaNS += o.OwnQuotaNS
	w.KernelNS += o.KernelNS
	w.StealNS += o.StealNS
	w.UnknownNS += o.UnknownNS
}

func newTally() tally {
	return tally{pairs: make(map[pair]uint64), victims: make(map[model.CgroupID]waits)}
}

// add takes in a span. What is full takes no new pairs or victims, but goes on counting
// those that it has.
func (t *tally) add(s *span) {
	for _, p := range s.pairs {
		if _, known := t.pairs[p.pair]; known || len(t.pairs) < maxPairs {
			t.pairs[p.pair] += p.ns
		}
	}
	for _, v := range s.victims {
		sum, known := t.victims[v.victim]
		if known || len(t.victims) < maxPairs {
			sum.add(v.waits)
			t.victims[v.victim] = sum
		}
	}
}

// span is the blame of a stretch of time: of one tick, or of a few that were merged. It
// takes a third of the memory of a tally.
type span struct {
	from, to time.Duration // since boot
	pairs    []pairNS
	victims  []victimWaits
}

type pairNS struct {
	pair
	ns uint64
}

type victimWaits struct {
	victim model.CgroupID
	waits
}

// entries is what a span takes in memory: 24 and 64 bytes each.
func (s *span) entries() int { return len(s.pairs) + len(s.victims) }

func spanOf(s *model.Sample, shares map[model.CgroupID]*blame.Shares) *span {
	to := time.Duration(s.BootNS)
	out := &span{from: to - s.Length(), to: to}
	for id, v := range shares {
		w := waits{v.WaitNS, v.NeighbourNS(), v.SelfNS, v.OwnQuotaNS, v.KernelNS, v.StealNS, v.UnknownNS}
		out.victims = append(out.victims, victimWaits{id, w})
		for _, n := range v.Neighbours {
			if n.NS > 0 {
				out.pairs = append(out.pairs, pairNS{pair{n.Offender, id}, n.NS})
			}
		}
	}
	return out
}

func (s *span) merge(o *span) *span {
	t := newTally()
	t.add(s)
	t.add(o)
	out := &span{from: s.from, to: o.to}
	for p, ns := range t.pairs {
		out.pairs = append(out.pairs, pairNS{p, ns})
	}
	for id, w := range t.victims {
		out.victims = append(out.victims, victimWaits{id, w})
	}
	return out
}

// recent is the blame of the last minutes, the oldest first: tick by tick as long as
// there is room, and coarser the longer ago where thousands wait for thousands.
type recent []*span

// maxRecent bounds the entries of all spans: 12 MB at most.
const maxRecent = 200_000

func (r *recent) add(s *span) {
	*r = append(*r, s)
	old := 0
	for s.to-(*r)[old].to >= maxWindow || s.to < (*r)[old].to { // also where boot time ran back
		old++
	}
	*r = slices.Delete(*r, 0, old)
	if r.entries() <= maxRecent {
		return
	}
	// The older half is merged two by two: the same cgroups wait in most ticks.
	half := len(*r) / 2
	merged := (*r)[:0:0]
	for i := 0; i < half; i += 2 {
		if i+1 < half {
			merged = append(merged, (*r)[i].merge((*r)[i+1]))
		} else {
			merged = append(merged, (*r)[i])
		}
	}
	*r = append(merged, (*r)[half:]...)
	for len(*r) > 1 && r.entries() > maxRecent {
		*r = slices.Delete(*r, 0, 1)
	}
}

func (r *recent) entries() (n int) {
	for _, s := range *r {
		n += s.entries()
	}
	return n
}

// last adds up the spans that end within the window, and says how long they cover.
func (r *recent) last(window time.Duration) (sum tally, covers time.Duration) {
	sum = newTally()
	if len(*r) == 0 {
		return sum, 0
	}
	now := (*r)[len(*r)-1].to
	for _, s := range slices.Backward(*r) {
		if now-s.to >= window {
			break
		}
		sum.add(s)
		covers = now - s.from
	}
	return sum, covers
}
