package detect

import (
	"cmp"
	"fmt"
	"math"
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
	half := d.cfg.ForksPerSecond * 0.5
	suspected := make(map[model.CgroupID]bool)
	for id, n := range forks {
		if max(float64(n)/seconds, newest[id]) >= half {
			suspected[id] = true
		}
	}
	if len(suspected) == 0 {
		return nil
	}
	byTree, elsewhere := w.chargedWhere(span, madeForks)
	if len(elsewhere) > 0 { // who answers for what was forked in another cgroup
		for id, sum := range byCgroup(byTree) {
			if sum/seconds >= half {
				suspected[id] = true
			}
		}
	}
	most := w.ranked(startedBy(byTree, forks, elsewhere))
	trust := w.trust(span)
	var storms []storm
	for _, cgroup := range sortedIDs(suspected) {
		a := w.table.tally(cgroup, byTree)
		suspects := a.suspects(d.cfg.ForksPerSecond * seconds)
		counted := float64(forks[cgroup]) - elsewhere[cgroup]
		if a.total < counted/2 {
			// Its trees do not answer for what the kernel counted: those who forked have
			// ended, and nobody who is left is charged instead.
			whole := a.whole()
			whole.weight = counted
			suspects = []suspect{whole}
		}
		for _, s := range suspects {
			// A storm that began within the span is measured by the newest tick alone, so
			// that it is seen at once and not averaged away.
			treeRate := s.weight / seconds
			if forks[cgroup] > 0 {
				treeRate = max(treeRate, newest[cgroup]*min(1, s.weight/float64(forks[cgroup])))
			}
			f := finding{
				suspect:      s,
				cgroup:       cgroup,
				ratio:        treeRate / d.cfg.ForksPerSecond,
				victims:      w.wrongedByTree(a, s, forkVictimStall),
				contributors: most,
				// The kernel counts every fork; whose they were is known of those whose records
				// came. Nobody is compared: each tree answers for its own.
				confidence: answered(a, s, counted) * trust, margin: 1,
			}
			storms = append(storms, storm{finding: f, account: a})
		}
	}
	w.lasting(storms)
	// Thousands of trees may fork. The worst are told, and not those that fork most: what
	// ends again would hide what stays.
	for i := range storms {
		storms[i].severity = storms[i].howBad()
	}
	slices.SortStableFunc(storms, func(x, y storm) int {
		return cmp.Or(cmp.Compare(y.severity, x.severity), cmp.Compare(y.ratio, x.ratio))
	})
	var exits map[*node]float64
	var found []finding
	for _, st := range storms[:min(len(storms), maxFindings)] {
		if exits == nil {
			exits = w.charged(span, func(c charges) map[*node]int { return c.exits })
		}
		d.judge(w, &st.finding, st.weight/seconds, st.account.sum(st.suspect, exits)/seconds, st.growth)
		found = append(found, st.finding)
	}
	return found
}

func madeForks(c charges) map[*node]int { return c.forks }

// storm is a finding before it is put into words.
type storm struct {
	finding
	account *account
	growth  float64 // processes/s
}

// howBad is the severity. It is a matter of the whole span: in one tick forks run ahead of
// their exits.
func (s *storm) howBad() float64 {
	worst := 0.0
	if len(s.victims) > 0 {
		worst = s.victims[0].msPerSecond
	}
	return forkBaseSeverity +
		forkGrowthPart*min(1, s.growth/forkFullGrowth) +
		forkHurtPart*min(1, worst/forkFullStall)
}

// lasting says how fast the processes of each storm become more: the least growth of any
// second that ended within the last one. What comes in bursts and goes again has not grown.
func (w *window) lasting(storms []storm) {
	if len(storms) == 0 {
		return
	}
	const span = time.Second
	for i := range storms {
		for _, n := range storms[i].account.of(storms[i].suspect) {
			n.storm, n.stormIn = i, w.ticks
		}
	}
	from := w.index(2 * span)
	ticks := w.samples[from:]
	net := make([][]float64, len(storms)) // in each tick
	all := make([]float64, len(storms)*len(ticks))
	for i := range net {
		net[i] = all[i*len(ticks) : (i+1)*len(ticks)]
	}
	charge := func(tick int, by map[*node]int, sign float64) {
		for n, count := range by {
			if n = w.table.answers(n); n != nil && n.stormIn == w.ticks {
				net[n.storm][tick] += sign * float64(count)
			}
		}
	}
	for tick := range ticks {
		charge(tick, w.charges[from+tick].forks, 1)
		charge(tick, w.charges[from+tick].exits, -1)
	}
	for i := range storms {
		storms[i].growth = leastGrowth(ticks, net[i], w.index(span)-from, span)
	}
}

// leastGrowth is the least, a second, of any span that ends with one of the ticks from the
// given one on.
func leastGrowth(ticks []*model.Sample, net []float64, from int, span time.Duration) (perSecond float64) {
	perSecond = math.Inf(1)
	for end := from; end < len(ticks); end++ {
		sum, covered := 0.0, time.Duration(0)
		for i := end; i >= 0 && covered < span-ticks[i].Length()/2; i-- {
			sum += net[i]
			covered += ticks[i].Length()
		}
		if covered > 0 {
			perSecond = min(perSecond, sum/covered.Seconds())
		}
	}
	if math.IsInf(perSecond, 1) {
		return 0
	}
	return max(0, perSecond)
}

// ranked are the cgroups by a count, those with the most first, and their share of the sum.
func (w *window) ranked(counts map[model.CgroupID]uint64) []model.Contributor {
	sum := 0.0
	for _, n := range counts {
		sum += float64(n)
	}
	return w.contributors(rankedBy(counts), func(id model.CgroupID) float64 { return float64(counts[id]) / sum })
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
	rate, tree := 0.0, 0.0
	if covered > 0 {
		byTree, elsewhere := w.chargedWhere(span, madeForks)
		rate = max(0, float64(forks)-elsewhere[cgroup]) / covered.Seconds()
		tree = w.culprit(cgroup, byTree).weight / covered.Seconds()
		if tree < rate/2 {
			tree = rate // of nobody who is left: the whole cgroup's
		}
	}
	return []model.Measure{
		over("cgroup_forks_per_second", rate, d.cfg.ForksPerSecond),
		over("forks_per_second", tree, d.cfg.ForksPerSecond),
	}
}

func (d forkStorm) judge(w *window, f *finding, forks, exits, growth float64) {
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
