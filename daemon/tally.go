package daemon

import (
	"math"
	"slices"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// tally adds up blame.
type tally struct {
	pairs   map[pair]uint64 // ns
	victims map[stalled]waits
}

type pair struct {
	offender, victim model.CgroupID
	resource         resource
}

// stalled is a cgroup and what it waited for.
type stalled struct {
	victim   model.CgroupID
	resource resource
}

// resource is a model.Resource in one byte: there are many pairs.
type resource uint8

var resources = [...]model.Resource{model.CPU, model.Memory, model.IO}

func resourceOf(name model.Resource) resource {
	return resource(max(0, slices.Index(resources[:], name)))
}

func (r resource) name() model.Resource { return resources[r] }

// estimated: only what the scheduler tells is measured.
func (r resource) estimated() bool { return r.name() != model.CPU }

// waits is where the waiting of one victim went. What follows WaitNS adds up to it.
type waits struct {
	WaitNS, NeighbourNS, SelfNS, OwnQuotaNS, KernelNS, OurThrottleNS, StealNS, UnknownNS uint64
}

func (w *waits) add(o waits) {
	w.WaitNS += o.WaitNS
	w.NeighbourNS += o.NeighbourNS
	w.SelfNS += o.SelfNS
	w.OwnQuotaNS += o.OwnQuotaNS
	w.KernelNS += o.KernelNS
	w.OurThrottleNS += o.OurThrottleNS
	w.StealNS += o.StealNS
	w.UnknownNS += o.UnknownNS
}

func newTally() tally {
	return tally{pairs: make(map[pair]uint64), victims: make(map[stalled]waits)}
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
		sum, known := t.victims[v.stalled]
		if known || len(t.victims) < maxPairs {
			sum.add(v.waits)
			t.victims[v.stalled] = sum
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
	stalled
	waits
}

// entries is what a span takes in memory: 32 and 80 bytes each.
func (s *span) entries() int { return len(s.pairs) + len(s.victims) }

func spanOf(s *model.Sample, each ...map[model.CgroupID]*blame.Shares) *span {
	to := time.Duration(s.BootNS)
	out := &span{from: to - s.Length(), to: to}
	// Hundreds are kept: none is to have room for what never comes.
	var victims, pairs int
	for _, shares := range each {
		victims += len(shares)
		for _, v := range shares {
			pairs += len(v.Neighbours)
		}
	}
	out.victims, out.pairs = make([]victimWaits, 0, victims), make([]pairNS, 0, pairs)
	for _, shares := range each {
		for id, v := range shares {
			r := resourceOf(v.Resource)
			w := waits{v.WaitNS, v.NeighbourNS(), v.SelfNS, v.OwnQuotaNS, v.KernelNS, v.OurThrottleNS, v.StealNS, v.UnknownNS}
			out.victims = append(out.victims, victimWaits{stalled{id, r}, w})
			for _, n := range v.Neighbours {
				if n.NS > 0 {
					out.pairs = append(out.pairs, pairNS{pair{n.Offender, id, r}, n.NS})
				}
			}
		}
	}
	return out
}

func (s *span) merge(o *span) *span {
	t := newTally()
	t.add(s)
	t.add(o)
	out := &span{from: s.from, to: o.to, pairs: make([]pairNS, 0, len(t.pairs)), victims: make([]victimWaits, 0, len(t.victims))}
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

// maxRecent bounds the entries of all spans: 6.4 MB at most. Where 2,000 cgroups wait for
// each other in every tick, what is more than a few seconds ago is told in seconds.
const maxRecent = 80_000

func (r *recent) add(s *span) {
	*r = append(*r, s)
	old := 0
	for s.to-(*r)[old].to >= maxWindow || s.to < (*r)[old].to { // also where boot time ran back
		old++
	}
	*r = slices.Delete(*r, 0, old)
	for len(*r) > 1 && r.entries() > maxRecent {
		r.coarsen(s.to)
	}
}

// coarsen makes room: of the two neighbours which together are the shortest for their age
// it makes one, so that a window of any length is told as exactly. As a rule the same
// cgroups wait in both; where they do not, the oldest goes.
func (r *recent) coarsen(now time.Duration) {
	at, least := 0, math.Inf(1)
	for i := range len(*r) - 1 {
		from := (*r)[i].from
		if part := float64((*r)[i+1].to-from) / float64(now-from); part < least {
			at, least = i, part
		}
	}
	a, b := (*r)[at], (*r)[at+1]
	merged := a.merge(b)
	if saved := a.entries() + b.entries() - merged.entries(); saved < min(a.entries(), b.entries())/4 {
		*r = slices.Delete(*r, 0, 1)
		return
	}
	(*r)[at] = merged
	*r = slices.Delete(*r, at+1, at+2)
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
