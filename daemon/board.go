package daemon

import (
	"cmp"
	"fmt"
	"iter"
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
	maxTriages   = 200   // of the newest incidents; 32 KB each at the most, and 6 KB as a rule
	maxPairs     = 32768 // of the blame since the start; 110 bytes each
	maxWindow    = 5 * time.Minute
	maxNames     = 16384
)

// board is what breakerd shows: the incidents, and who made whom wait. The pipeline
// writes it, and the API reads it.
type board struct {
	name func(path string) model.Workload

	mu        sync.Mutex
	incidents []model.Incident // the oldest first
	total     int
	began     time.Time
	latest    time.Time
	sum       tally // since the start
	recent    recent
	names     map[model.CgroupID]string
	forgot    time.Duration   // boot time at which names were last forgotten
	history   []*model.Sample // what the next tick's totals are compared with
	rss       rss
}

func newBoard(name func(string) model.Workload) *board {
	return &board{name: name, sum: newTally(), names: make(map[model.CgroupID]string), rss: newRSS()}
}

// sample adds the blame of a tick.
func (b *board) sample(s *model.Sample) {
	// Whoever waits or stalls is read with every tick, and everybody in turn every three
	// seconds where there are not hundreds, so that a few samples before are enough to
	// compare with.
	const before = 16
	light := *s
	light.Procs = model.ProcChanges{} // 1 MB at 20,000 processes
	samples := append(b.history, &light)
	b.rss.sample(s)
	last := len(samples) - 1
	now := spanOf(s, blame.Over(samples, last), blame.OverMemory(samples, last, b.rss.grown), blame.OverIO(samples, last))
	// What a tick's waits were is in its span; of what came before only the totals are compared.
	light.Waits = nil
	b.history = slices.Clone(samples[max(0, len(samples)-before):])

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.began.IsZero() {
		b.began = s.Time.Add(-s.Length())
	}
	b.latest = s.Time
	b.sum.add(now)
	b.recent.add(now)
	b.learn(s)
}

// learn remembers the names of the cgroups. Where there are too many, those of whom
// nothing was heard for minutes lose theirs.
func (b *board) learn(s *model.Sample) {
	now := time.Duration(s.BootNS)
	for i := range s.Cgroups {
		c := &s.Cgroups[i]
		if c.Path == "" {
			continue
		}
		if _, known := b.names[c.ID]; !known && len(b.names) >= maxNames {
			if since := now - b.forgot; since >= 0 && since < time.Minute {
				continue
			}
			b.forget(now)
		}
		b.names[c.ID] = c.Path
	}
}

func (b *board) forget(now time.Duration) {
	b.forgot = now
	lately, _ := b.recent.last(maxWindow)
	heard := make(map[model.CgroupID]bool)
	for p := range lately.pairs {
		heard[p.offender] = true
	}
	for v := range lately.victims {
		heard[v.victim] = true
	}
	for id := range b.names {
		if !heard[id] {
			delete(b.names, id)
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
		var covers time.Duration
		sum, covers = b.recent.last(window)
		out.Since = b.latest.Add(-covers)
	}
	for p, ns := range sum.pairs {
		out.Pairs = append(out.Pairs, api.Pair{Offender: b.cgroup(p.offender), Victim: b.cgroup(p.victim), Resource: p.resource.name(), Estimated: p.resource.estimated(), StallMS: ms(ns)})
	}
	slices.SortFunc(out.Pairs, func(x, y api.Pair) int {
		return cmp.Or(cmp.Compare(y.StallMS, x.StallMS), cmp.Compare(x.Victim.CgroupID, y.Victim.CgroupID), cmp.Compare(x.Offender.CgroupID, y.Offender.CgroupID), cmp.Compare(x.Resource, y.Resource))
	})
	for of, v := range sum.victims {
		out.Victims = append(out.Victims, api.VictimShares{
			Cgroup: b.cgroup(of.victim), Resource: of.resource.name(), Estimated: of.resource.estimated(), WaitMS: ms(v.WaitNS), NeighbourMS: ms(v.NeighbourNS), SelfMS: ms(v.SelfNS),
			OwnQuotaMS: ms(v.OwnQuotaNS), KernelMS: ms(v.KernelNS), OurThrottleMS: ms(v.OurThrottleNS), StealMS: ms(v.StealNS), UnknownMS: ms(v.UnknownNS),
		})
	}
	slices.SortFunc(out.Victims, func(x, y api.VictimShares) int {
		return cmp.Or(cmp.Compare(y.NeighbourMS, x.NeighbourMS), cmp.Compare(y.WaitMS, x.WaitMS), cmp.Compare(x.CgroupID, y.CgroupID), cmp.Compare(x.Resource, y.Resource))
	})
	return out, nil
}

func (b *board) cgroup(id model.CgroupID) api.Cgroup {
	path := b.names[id]
	name := b.name(path)
	return api.Cgroup{Cgroup: path, CgroupID: id, Unit: name.Unit, Workload: name}
}

// nameAll names cgroups that were quiet for so long that the judge forgot them.
func (b *board) nameAll(ids iter.Seq2[model.CgroupID, *string]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, path := range ids {
		if *path == "" {
			*path = b.names[id]
		}
	}
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
	if old := len(b.incidents) - maxTriages; old > 0 {
		b.incidents[old-1].Triage = nil
	}
	if len(b.incidents) > maxIncidents {
		// An open one would come back with the next tick, as if it were new.
		oldest := slices.IndexFunc(b.incidents, func(in model.Incident) bool { return in.State == model.Closed })
		oldest = max(0, oldest)
		b.incidents = slices.Delete(b.incidents, oldest, oldest+1)
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

// find is one incident.
func (b *board) find(id string) (model.Incident, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range slices.Backward(b.incidents) {
		if b.incidents[i].ID == id {
			return b.incidents[i].Clone(), true
		}
	}
	return model.Incident{}, false
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
