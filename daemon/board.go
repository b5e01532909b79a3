package daemon

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// Bounds of what is remembered.
const (
	maxIncidents = 1000
	maxPairs     = 65536 // of the blame since the start; 100 bytes each
	maxWindow    = 5 * time.Minute
	maxNames     = 16384
)

// board is what breakerd shows: the incidents, and who made whom wait. The pipeline
// writes it, and the API reads it.
type board struct {
	name func(path string) (unit string)

	mu        sync.Mutex
	incidents []model.Incident // the oldest first
	total     int
	began     time.Time
	latest    time.Time
	sum       tally
	recent    []tick // the oldest first
	names     map[model.CgroupID]string
	history   []*model.Sample // what the next tick's totals are compared with
}

// tick is the blame of one sample.
type tick struct {
	at    time.Time
	tally tally
}

// tally adds up blame.
type tally struct {
	pairs   map[pair]uint64
	victims map[model.CgroupID]*blame.Shares // without neighbours: those are in pairs
}

type pair struct{ offender, victim model.CgroupID }

func newTally() tally {
	return tally{pairs: make(map[pair]uint64), victims: make(map[model.CgroupID]*blame.Shares)}
}

func newBoard(name func(string) string) *board {
	return &board{name: name, sum: newTally(), names: make(map[model.CgroupID]string)}
}

// sample adds the blame of a tick.
func (b *board) sample(s *model.Sample) {
	// A quota is read with every tick in which its cgroup waits, so that a few samples
	// before are enough to compare with.
	const before = 8
	samples := append(b.history, s)
	shares := blame.Over(samples, len(samples)-1)
	b.history = slices.Clone(samples[max(0, len(samples)-before):])

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.began.IsZero() {
		b.began = s.Time.Add(-s.Length())
	}
	b.latest = s.Time
	for _, c := range s.Cgroups {
		if c.Path != "" && (len(b.names) < maxNames || b.names[c.ID] != "") {
			b.names[c.ID] = c.Path
		}
	}
	now := tick{at: s.Time, tally: newTally()}
	for _, v := range shares {
		now.tally.add(v)
	}
	b.sum.merge(now.tally)
	b.recent = append(b.recent, now)
	old, _ := slices.BinarySearchFunc(b.recent, s.Time.Add(-maxWindow), func(t tick, at time.Time) int { return t.at.Compare(at) })
	b.recent = slices.Delete(b.recent, 0, old)
}

func (t *tally) add(v *blame.Shares) {
	for _, n := range v.Neighbours {
		if n.NS > 0 {
			t.pairs[pair{n.Offender, v.Victim}] += n.NS
		}
	}
	t.addVictim(v)
}

func (t *tally) addVictim(v *blame.Shares) {
	sum := t.victims[v.Victim]
	if sum == nil {
		sum = &blame.Shares{Victim: v.Victim}
		t.victims[v.Victim] = sum
	}
	sum.WaitNS += v.WaitNS
	sum.SelfNS += v.SelfNS
	sum.OwnQuotaNS += v.OwnQuotaNS
	sum.KernelNS += v.KernelNS
	sum.StealNS += v.StealNS
	sum.UnknownNS += v.UnknownNS
}

// merge adds another tally. What is full takes no new pairs, but goes on counting those
// that it has.
func (t *tally) merge(o tally) {
	for p, ns := range o.pairs {
		if _, known := t.pairs[p]; known || len(t.pairs) < maxPairs {
			t.pairs[p] += ns
		}
	}
	for id, v := range o.victims {
		if _, known := t.victims[id]; known || len(t.victims) < maxPairs {
			t.addVictim(v)
		}
	}
}

// blame sums over the last window; 0 is since the start.
func (b *board) blame(window time.Duration) (api.Blame, error) {
	if window > maxWindow {
		return api.Blame{}, fmt.Errorf("%w: window %v is longer than the %v that are remembered; without a window it is since breakerd started", api.ErrBadRequest, window, maxWindow)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	out := api.Blame{Since: b.began, Until: b.latest, Pairs: []api.Pair{}, Victims: []api.VictimShares{}}
	sum := b.sum
	if window > 0 {
		sum = newTally()
		out.Since = b.latest
		for _, t := range slices.Backward(b.recent) {
			if !t.at.After(b.latest.Add(-window)) {
				break
			}
			sum.merge(t.tally)
		}
		if since := b.latest.Add(-window); since.After(b.began) {
			out.Since = since
		} else {
			out.Since = b.began
		}
	}
	neighbours := make(map[model.CgroupID]uint64)
	for p, ns := range sum.pairs {
		neighbours[p.victim] += ns
		out.Pairs = append(out.Pairs, api.Pair{Offender: b.cgroup(p.offender), Victim: b.cgroup(p.victim), Resource: model.CPU, StallMS: ms(ns)})
	}
	slices.SortFunc(out.Pairs, func(x, y api.Pair) int {
		return cmp.Or(cmp.Compare(y.StallMS, x.StallMS), cmp.Compare(x.Victim.CgroupID, y.Victim.CgroupID), cmp.Compare(x.Offender.CgroupID, y.Offender.CgroupID))
	})
	for id, v := range sum.victims {
		out.Victims = append(out.Victims, api.VictimShares{
			Cgroup: b.cgroup(id), WaitMS: ms(v.WaitNS), NeighbourMS: ms(neighbours[id]), SelfMS: ms(v.SelfNS),
			OwnQuotaMS: ms(v.OwnQuotaNS), KernelMS: ms(v.KernelNS), StealMS: ms(v.StealNS), UnknownMS: ms(v.UnknownNS),
		})
	}
	slices.SortFunc(out.Victims, func(x, y api.VictimShares) int {
		return cmp.Or(cmp.Compare(y.NeighbourMS, x.NeighbourMS), cmp.Compare(y.WaitMS, x.WaitMS), cmp.Compare(x.CgroupID, y.CgroupID))
	})
	return out, nil
}

func (b *board) cgroup(id model.CgroupID) api.Cgroup {
	path := b.names[id]
	return api.Cgroup{Cgroup: path, CgroupID: id, Unit: b.name(path)}
}

// ms keeps microseconds: what is shown adds up to within one of them a share.
func ms(ns uint64) float64 { return float64(ns/1000) / 1000 }

// incident remembers an incident as it is now.
func (b *board) incident(in model.Incident) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range slices.Backward(b.incidents) {
		if b.incidents[i].ID == in.ID {
			b.incidents[i] = in
			return
		}
	}
	b.total++
	b.incidents = append(b.incidents, in)
	if len(b.incidents) > maxIncidents {
		b.incidents = slices.Delete(b.incidents, 0, 1)
	}
}

// all are the incidents, the newest first.
func (b *board) all() []model.Incident {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]model.Incident, 0, len(b.incidents))
	for i := range slices.Backward(b.incidents) {
		all = append(all, b.incidents[i].Clone())
	}
	return all
}

// counts are the open incidents and all there were.
func (b *board) counts() (open, total int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.incidents {
		if b.incidents[i].State == model.Open {
			open++
		}
	}
	return open, b.total
}
