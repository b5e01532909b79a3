package detect

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
)

// finding is what a detector says of one culprit in one tick, also where it is below
// the threshold.
type finding struct {
	suspect
	cgroup       model.CgroupID
	ratio        float64 // of what was measured to its threshold: 1 and more opens
	severity     float64
	resource     model.Resource // that the victims wait for; cpu where nothing is said
	estimated    bool           // nobody measured who made whom wait
	hostwide     bool           // the host is in trouble, whoever stands out
	confidence   float64        // 0 to 1: see model.Incident
	margin       float64
	victims      []hurt // the worst first
	contributors []model.Contributor
	evidence     map[string]float64
	// explain puts the figures into words, for a culprit and victims so named.
	explain func(culprit string, victims []string) string
}

// hurt is a cgroup and how much it is made to wait.
type hurt struct {
	victim      model.CgroupID
	msPerSecond float64
}

// within reports whether n is root or descends from it.
func (n *node) within(root *node) bool {
	for ; n != nil; n = n.up {
		if n == root {
			return true
		}
	}
	return false
}

// hurtSpan is the span over which waits are weighed. A hurt that is smaller than a few
// scheduling rounds is noise.
const hurtSpan = 2 * time.Second

// hurtBy lists the cgroups that one cgroup makes wait at least so much.
func (w *window) hurtBy(offender model.CgroupID, atLeastMSPerSecond float64) []hurt {
	if w.offences == nil {
		w.offences = make(map[model.CgroupID][]hurt)
		_, covered := w.last(hurtSpan)
		for victim, s := range w.blame(hurtSpan) {
			if w.table.watcher(victim) {
				continue
			}
			for _, n := range s.Neighbours {
				w.offences[n.Offender] = append(w.offences[n.Offender], hurt{victim, msPerSecond(n.NS, covered)})
			}
		}
	}
	var hurts []hurt
	for _, h := range w.offences[offender] {
		if h.msPerSecond >= atLeastMSPerSecond {
			hurts = append(hurts, h)
		}
	}
	sortHurts(hurts)
	return hurts
}

func sortHurts(hurts []hurt) {
	slices.SortFunc(hurts, func(a, b hurt) int {
		return cmp.Or(cmp.Compare(b.msPerSecond, a.msPerSecond), cmp.Compare(a.victim, b.victim))
	})
}

func sortedIDs[V any](m map[model.CgroupID]V) []model.CgroupID {
	return slices.Sorted(maps.Keys(m))
}

// rankedBy are those with the largest figure first.
func rankedBy[V cmp.Ordered](figure map[model.CgroupID]V) []model.CgroupID {
	ranked := sortedIDs(figure)
	slices.SortStableFunc(ranked, func(x, y model.CgroupID) int { return cmp.Compare(figure[y], figure[x]) })
	return ranked
}

// maxContributors bounds what an incident says of the others.
const maxContributors = 16

// contributors are the first of them, each with its share, 0 to 1.
func (w *window) contributors(ranked []model.CgroupID, share func(model.CgroupID) float64) []model.Contributor {
	var all []model.Contributor
	for _, id := range ranked[:min(len(ranked), maxContributors)] {
		all = append(all, model.Contributor{Cgroup: w.path(id), CgroupID: id, Share: round3(share(id))})
	}
	return all
}

func msPerSecond(ns uint64, over time.Duration) float64 {
	if over <= 0 {
		return 0
	}
	return float64(ns) / 1e6 / over.Seconds()
}

func clamp(v float64) float64  { return max(0, min(1, v)) }
func round(v float64) float64  { return math.Round(v*10) / 10 }
func round3(v float64) float64 { return math.Round(v*1000) / 1000 }

// list joins a few names for a sentence.
func list(names []string) string {
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}
