package detect

import (
	"fmt"
	"slices"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// CPUContentionConfig are the thresholds of cpu_contention.
type CPUContentionConfig struct {
	// SomePercent is the host's CPU pressure: the part of the time in which at least
	// one task waited for a CPU.
	SomePercent float64 `json:"some_percent" yaml:"some_percent" doc:"The host's CPU pressure (some): percent of the time in which at least one task waited for a CPU." range:"1..100"`
	// UsePercent is how busy all CPUs together are.
	UsePercent float64 `json:"use_percent" yaml:"use_percent" doc:"How busy all CPUs together are, in percent." range:"1..100"`
	// VictimMSPerSecond is how long a cgroup is made to wait in each second before it
	// is a victim.
	VictimMSPerSecond float64 `json:"victim_ms_per_second" yaml:"victim_ms_per_second" doc:"How long a cgroup is made to wait in each second, in ms, before it is a victim." range:"1..1000000"`
	// DeprivedPercent is how much less than it was entitled to a cgroup must have got to
	// be a victim: see blame.Claims.Entitled.
	DeprivedPercent float64 `json:"deprived_percent" yaml:"deprived_percent" doc:"How many percent less than it was entitled to a cgroup must have got to be a victim." range:"0..100"`
	// OwnQuotaPartAtMost is the part of a victim's wait (0 to 1) that may be its own
	// quota's, or the hypervisor's, before nobody else is accused.
	OwnQuotaPartAtMost float64 `json:"own_quota_part_at_most" yaml:"own_quota_part_at_most" doc:"Nobody else is accused where more than this part of a victim's wait is due to its own CPU quota, or to the hypervisor." range:"0..1"`
	// Hold is how long it must go on.
	Hold config.Duration `json:"hold" yaml:"hold" doc:"How long it must go on." range:"1ms..1h"`
}

// cpuContention sees a busy machine on which one cgroup keeps others from running.
type cpuContention struct{ cfg CPUContentionConfig }

func (d cpuContention) kind() model.Kind    { return model.CPUContention }
func (d cpuContention) hold() time.Duration { return d.cfg.Hold.D() }

func (d cpuContention) look(w *window) []finding {
	some, ok := w.somePercent(time.Second)
	if !ok {
		return nil
	}
	use, ok := w.usePercent(time.Second)
	if !ok {
		return nil
	}
	ratio := min(some/d.cfg.SomePercent, use/d.cfg.UsePercent)
	if ratio < 0.5 {
		return nil
	}
	var findings []finding
	for _, o := range d.accuse(w) {
		f := finding{
			suspect: w.culprit(o.cgroup, w.cpuUsed(o.cgroup)), cgroup: o.cgroup, ratio: ratio, victims: o.victims, contributors: o.contributors,
			confidence: w.known(o.victims) * w.trust(hurtSpan), margin: o.margin,
		}
		d.judge(w, &f, o.share, some, use)
		findings = append(findings, f)
	}
	return findings
}

const (
	// Who makes others wait for so large a part of what the worst does is told of beside it, or
	// of two equal ones each would be forgotten whenever the other is ahead. So many are told at once.
	besideTheWorst = 0.5
	mostOffenders  = 4
)

// offender is a cgroup that hurts others.
type offender struct {
	cgroup       model.CgroupID
	victims      []hurt  // the worst first
	share        float64 // of what was done to its victims, 0 to 1
	margin       float64 // over who did most besides
	contributors []model.Contributor
}

// accuse finds the cgroups that hurt others, the worst first. Who made whom wait is
// measured; which way it goes is a matter of who got more than it was entitled to, and
// who less. So nobody is accused of a fight between equals.
func (d cpuContention) accuse(w *window) []offender {
	shares := w.blame(hurtSpan)
	_, covered := w.last(hurtSpan)
	if !anybody(shares, func(worst uint64) bool { return msPerSecond(worst, covered) >= d.cfg.VictimMSPerSecond }) {
		return nil // what everybody is entitled to need not be worked out
	}
	due := newDues(w, d.cfg.DeprivedPercent)
	fair := fairness{d.cfg.DeprivedPercent, d.cfg.OwnQuotaPartAtMost}
	caused := make(map[model.CgroupID]uint64)
	victims := make(map[model.CgroupID][]hurt)
	by := make(map[model.CgroupID][]blame.Neighbour) // who answers for a victim's wait
	for victim, s := range shares {
		if !due.deprived(victim) || fair.excuses(s) || w.table.watcher(victim) {
			continue
		}
		long := s.Neighbours // the worst come first
		if end := slices.IndexFunc(long, func(n blame.Neighbour) bool { return msPerSecond(n.NS, covered) < d.cfg.VictimMSPerSecond }); end >= 0 {
			long = long[:end]
		}
		by[victim] = due.guilty(victim, long)
		for _, n := range by[victim] {
			caused[n.Offender] += n.NS
			victims[n.Offender] = append(victims[n.Offender], hurt{victim, msPerSecond(n.NS, covered)})
		}
	}
	var all []offender
	ranked := rankedBy(caused)
	for i, id := range ranked {
		if len(all) == mostOffenders || float64(caused[id]) < besideTheWorst*float64(caused[ranked[0]]) || caused[id] == 0 {
			break
		}
		if i > 0 && due.greedy(ranked[0]) && !due.greedy(id) {
			continue
		}
		o := offender{cgroup: id, victims: victims[id]}
		sortHurts(o.victims)
		o.compare(w, by)
		all = append(all, o)
	}
	return all
}

// compare sets what the offender did to its victims beside what others did to the same ones.
func (o *offender) compare(w *window, by map[model.CgroupID][]blame.Neighbour) {
	did := make(map[model.CgroupID]uint64)
	sum := 0.0
	for _, h := range o.victims {
		for _, n := range by[h.victim] {
			did[n.Offender] += n.NS
			sum += float64(n.NS)
		}
	}
	share := func(id model.CgroupID) float64 { return float64(did[id]) / sum }
	ranked := rankedBy(did)
	o.contributors = w.contributors(ranked, share)
	o.share = share(o.cgroup)
	o.margin = o.share
	if i := slices.IndexFunc(ranked, func(id model.CgroupID) bool { return id != o.cgroup }); i >= 0 {
		o.margin = max(0, o.share-share(ranked[i]))
	}
}

// dues hold what each cgroup got against what it was entitled to.
type dues struct {
	ran      map[model.CgroupID]uint64
	claims   *blame.Claims
	entitled map[model.CgroupID]blame.Entitlement
	part     float64 // of what it was entitled to: who got no more was deprived
}

func newDues(w *window, deprivedPercent float64) dues {
	claims := w.claims()
	return dues{w.ran(), claims, claims.Entitled(), 1 - deprivedPercent/100}
}

func (d dues) gotLess(id model.CgroupID, due uint64) bool {
	return float64(d.ran[id]) <= d.part*float64(due)
}

// greedy says that a cgroup got more than it was entitled to, by as much as makes one deprived that
// got less.
func (d dues) greedy(id model.CgroupID) bool {
	return float64(d.ran[id]) >= (2-d.part)*float64(d.entitled[id].Share)
}

// deprived says that somebody took from a cgroup: anybody, or those in its own branch alone.
func (d dues) deprived(id model.CgroupID) bool { return d.gotLess(id, d.entitled[id].Within) }

// guilty are those of a victim's neighbours who answer for its wait.
func (d dues) guilty(victim model.CgroupID, neighbours []blame.Neighbour) []blame.Neighbour {
	in := func(b blame.Branch, id model.CgroupID) bool { return b.Has(d.claims.Index(id)) }
	var guilty []blame.Neighbour
	byAnybody := d.gotLess(victim, d.entitled[victim].Share)
	for _, n := range neighbours {
		if d.ran[n.Offender] > d.entitled[n.Offender].Share && (byAnybody || in(d.entitled[victim].Greedy, n.Offender)) {
			guilty = append(guilty, n)
		}
	}
	var answer []blame.Neighbour
	for _, n := range guilty {
		// Who is beside a crowd and its victim too does not answer with it, where the crowd does.
		greedy := d.entitled[n.Offender].Greedy
		crowd := func(x blame.Neighbour) bool { return in(greedy, x.Offender) && !d.deprived(x.Offender) }
		if !d.deprived(n.Offender) || !slices.ContainsFunc(guilty, crowd) {
			answer = append(answer, n)
		}
	}
	return answer
}

// anybody says whether there is one to whom the worst of its neighbours did that.
func anybody(shares map[model.CgroupID]*blame.Shares, did func(worstNS uint64) bool) bool {
	for _, s := range shares {
		if len(s.Neighbours) > 0 && did(s.Neighbours[0].NS) {
			return true
		}
	}
	return false
}

func (d cpuContention) judge(w *window, f *finding, share, some, use float64) {
	worst := f.victims[0]
	f.severity = model.WarningSeverity + (1-model.WarningSeverity)*min(1, worst.msPerSecond/1000)
	f.evidence = map[string]float64{
		"host_cpu_some_percent":  round(some),
		"cpu_use_percent":        round(use),
		"stall_ms_per_second":    round(worst.msPerSecond),
		"offender_share_percent": round(100 * share),
	}
	cpus := w.now().Host.CPUs
	if steal, ok := w.growth(hurtSpan, func(h *model.Host) uint64 { return h.StealNS }); ok && cpus > 0 {
		f.evidence["steal_percent"] = round(steal / 1e9 / float64(cpus) * 100)
	}
	f.explain = func(name string, victims []string) string {
		return fmt.Sprintf("%s keeps others from running: %s. The CPUs are %.0f %% busy and somebody waits for one %.0f %% of the time. The waiting was measured in the scheduler.",
			name, list(victims), use, some)
	}
}

func (d cpuContention) measure(w *window, cgroup model.CgroupID) []model.Measure {
	some, pressed := w.somePercent(time.Second)
	use, used := w.usePercent(time.Second)
	stall := 0.0
	for _, a := range d.accuse(w) {
		if a.cgroup == cgroup {
			stall = a.victims[0].msPerSecond
		}
	}
	raw := 0.0
	if hurts := w.hurtBy(cgroup, 0); len(hurts) > 0 {
		raw = hurts[0].msPerSecond
	}
	return []model.Measure{
		known("host_cpu_some_percent", some, pressed, d.cfg.SomePercent),
		known("cpu_use_percent", use, used, d.cfg.UsePercent),
		over("made_wait_ms_per_second", raw, d.cfg.VictimMSPerSecond),
		over("stall_ms_per_second", stall, d.cfg.VictimMSPerSecond), // unfairly
	}
}
