package detect

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// ForkStormConfig are the thresholds of fork_storm.
type ForkStormConfig struct {
	// ForksPerSecond is how many processes one tree may make in each second.
	ForksPerSecond float64 `json:"forks_per_second" yaml:"forks_per_second" doc:"How many processes (not threads) one tree may make in each second." range:"1..1000000"`
	// Hold is how long it must go on.
	Hold config.Duration `json:"hold" yaml:"hold" doc:"How long it must go on." range:"1ms..1h"`
}

// Figures of a fork storm's severity. Making processes that end again is what builds
// and shell scripts do (344 forks/s of a make -j2, 1738 of an xargs -P2 were seen), so
// the rate alone is informational; what counts is what is left over, and who is hurt.
const (
	forkBaseSeverity = 0.1
	// Left over at this rate a storm is critical by itself: 3,000 processes in a minute.
	forkFullGrowth = 50.0 // processes/s
	forkGrowthPart = 0.6
	// Others made to wait this much in each second add the rest.
	forkFullStall = 1000.0 // ms/s
	forkHurtPart  = 0.3
	// Less than this in each second is not worth to be called a victim.
	forkVictimStall = 50.0 // ms/s
)

// forkStorm sees a tree that makes processes faster than anybody needs.
type forkStorm struct{ cfg ForkStormConfig }

func (d forkStorm) kind() model.Kind    { return model.ForkStorm }
func (d forkStorm) hold() time.Duration { return d.cfg.Hold.D() }

func (d forkStorm) look(w *window) []finding {
	const span = time.Second
	_, covered := w.last(span)
	seconds := covered.Seconds()
	if seconds <= 0 {
		return nil
	}
	// The kernel's counts are complete even where records were lost, so they say which
	// cgroups to look into.
	forks := w.cgroupTotals(span, func(c *model.CgroupSample) uint64 { return c.Forks })
	newest := make(map[model.CgroupID]float64)
	if length := w.now().Length().Seconds(); length > 0 { // else a recording says nonsense
		for i := range w.now().Cgroups {
			c := &w.now().Cgroups[i]
			newest[c.ID] = float64(c.Forks) / length
		}
	}
	var byTree, exits map[*node]float64
	var most []model.Contributor
	var found []finding
	for _, cgroup := range sortedIDs(forks) {
		rate := max(float64(forks[cgroup])/seconds, newest[cgroup])
		if rate < d.cfg.ForksPerSecond*0.5 {
			continue
		}
		if byTree == nil {
			byTree = w.charged(span, func(c charges) map[*node]int { return c.forks })
			exits = w.charged(span, func(c charges) map[*node]int { return c.exits })
			most = w.ranked(forks)
		}
		a := w.table.tally(cgroup, byTree)
		suspects := a.suspects(d.cfg.ForksPerSecond * seconds)
		if a.total < float64(forks[cgroup])/2 {
			// Its trees do not answer for what the kernel counted: those who forked have
			// ended, and whoever is charged instead is outside.
			whole := a.whole()
			whole.weight = float64(forks[cgroup])
			suspects = []suspect{whole}
		}
		for _, s := range suspects {
			// A storm that began within the span is measured by the newest tick alone, so
			// that it is seen at once and not averaged away.
			treeRate := s.weight / seconds
			if forks[cgroup] > 0 {
				treeRate = max(treeRate, newest[cgroup]*s.weight/float64(forks[cgroup]))
			}
			f := finding{
				suspect:      s,
				cgroup:       cgroup,
				ratio:        treeRate / d.cfg.ForksPerSecond,
				contributors: most,
				// The kernel counts every fork; whose they were is known of those whose records
				// came. Nobody is compared: each tree answers for its own.
				confidence: answered(a, s, float64(forks[cgroup])) * w.trust(span), margin: 1,
			}
			// How bad it is, is a matter of the whole span: in one tick forks run ahead of
			// their exits.
			growth := w.lasting(func(n *node) bool { return a.answers(s, n) })
			d.judge(w, &f, s.weight/seconds, a.sum(s, exits)/seconds, growth)
			found = append(found, f)
		}
	}
	return found
}

// ranked are the cgroups by a count, those with the most first, and their share of the sum.
func (w *window) ranked(counts map[model.CgroupID]uint64) []model.Contributor {
	ids := sortedIDs(counts)
	slices.SortStableFunc(ids, func(x, y model.CgroupID) int { return cmp.Compare(counts[y], counts[x]) })
	sum := 0.0
	for _, id := range ids {
		sum += float64(counts[id])
	}
	var all []model.Contributor
	for _, id := range ids[:min(len(ids), maxContributors)] {
		all = append(all, model.Contributor{Cgroup: w.path(id), CgroupID: id, Share: round3(float64(counts[id]) / sum)})
	}
	return all
}

// answered is the part of what the kernel counted of which it is known whose it was.
func answered(a *account, s suspect, counted float64) float64 {
	if s.root == nil || counted <= 0 {
		return 1 // the whole cgroup's in any case
	}
	return min(1, a.total/counted)
}

func (d forkStorm) measure(w *window, cgroup model.CgroupID) []model.Measure {
	const span = time.Second
	_, covered := w.last(span)
	forks := w.cgroupTotals(span, func(c *model.CgroupSample) uint64 { return c.Forks })[cgroup]
	rate := 0.0
	if covered > 0 {
		rate = float64(forks) / covered.Seconds()
	}
	tree := 0.0
	if forks > 0 && covered > 0 {
		s := w.culprit(cgroup, w.charged(span, func(c charges) map[*node]int { return c.forks }))
		tree = s.weight / covered.Seconds()
	}
	return []model.Measure{
		over("cgroup_forks_per_second", rate, d.cfg.ForksPerSecond),
		over("forks_per_second", tree, d.cfg.ForksPerSecond),
	}
}

func (d forkStorm) judge(w *window, f *finding, forks, exits, growth float64) {
	f.victims = w.hurtBy(f.cgroup, forkVictimStall)
	worst := 0.0
	for _, v := range f.victims {
		worst = max(worst, v.msPerSecond)
	}
	f.severity = forkBaseSeverity +
		forkGrowthPart*min(1, growth/forkFullGrowth) +
		forkHurtPart*min(1, worst/forkFullStall)
	f.evidence = map[string]float64{
		"forks_per_second":      round(forks),
		"exits_per_second":      round(exits),
		"net_growth_per_second": round(growth),
		"processes":             float64(f.members),
	}
	if some, ok := w.somePercent(2 * time.Second); ok {
		f.evidence["host_cpu_some_percent"] = round(some)
	}
	f.explain = func(name string, victims []string) string {
		text := fmt.Sprintf("%s makes %.0f processes a second while %.0f end, and has %d now.", name, forks, exits, f.members)
		switch {
		case len(victims) > 0:
			text += " It keeps others waiting: " + list(victims) + "."
		case growth < 1:
			text += " As many end as begin and nobody is kept waiting: this looks like a build or a script, not like trouble."
		default:
			text += " Nobody else is kept waiting so far."
		}
		return text
	}
}
