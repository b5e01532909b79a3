package detect

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// ShortLivedJobsConfig are the thresholds of short_lived_jobs.
type ShortLivedJobsConfig struct {
	// ExitsPerSecond is how many processes of one tree may end in each second that lived
	// less than a second.
	ExitsPerSecond float64 `json:"exits_per_second" yaml:"exits_per_second" doc:"How many processes of one tree may end in each second that lived less than a second." range:"1..1000000"`
	// VictimMSPerSecond is how long a cgroup is unfairly made to wait in each second
	// before it is a victim.
	VictimMSPerSecond float64 `json:"victim_ms_per_second" yaml:"victim_ms_per_second" doc:"How long a cgroup is unfairly made to wait in each second, in ms, before it is a victim." range:"1..1000000"`
	// Hold is how long it must go on.
	Hold config.Duration `json:"hold" yaml:"hold" doc:"How long it must go on." range:"1ms..1h"`
}

const (
	shortLife = time.Second // as the kernel programs count, too
	// Loops sleep and builds link, so that one second is not like the next.
	shortSpan = 2 * time.Second
	// Short jobs that hurt nobody are what builds and scripts are made of (1,738/s in an
	// xargs -P2).
	shortSeverity = 0.1
	// From this part of the same command on it looks like something that fails and is
	// started again. A polling loop looks the same, because exit codes are not seen: so
	// it is said, and nothing follows from it.
	sameCommand = 0.95
)

// shortLivedJobs sees a tree that starts processes which end at once: crash loops, shell
// loops.
type shortLivedJobs struct{ cfg ShortLivedJobsConfig }

func (d shortLivedJobs) kind() model.Kind    { return model.ShortLivedJobs }
func (d shortLivedJobs) hold() time.Duration { return d.cfg.Hold.D() }

func (d shortLivedJobs) look(w *window) []finding {
	_, covered := w.last(shortSpan)
	seconds := covered.Seconds()
	if seconds <= 0 {
		return nil
	}
	enough := d.cfg.ExitsPerSecond * seconds
	counted := w.cgroupTotals(shortSpan, func(c *model.CgroupSample) uint64 { return c.ShortExits })
	byTree, elsewhere := w.chargedWhere(shortSpan, shortLives)
	// Who started them answers, wherever they ran.
	suspected := make(map[model.CgroupID]bool)
	sums := byCgroup(byTree)
	for id := range sums {
		suspected[id] = true
	}
	for id := range counted {
		suspected[id] = true
	}
	type candidate struct {
		suspect
		of   *account
		rest float64
	}
	var all []candidate
	for _, cgroup := range sortedIDs(suspected) {
		// The kernel's counts are complete also where records were lost.
		rest := float64(counted[cgroup]) - elsewhere[cgroup]
		if rest < enough/2 {
			if sums[cgroup] < enough/2 {
				continue
			}
		}
		a := w.table.tally(cgroup, byTree)
		suspects := a.suspects(enough)
		if a.total < rest/2 {
			whole := a.whole()
			whole.weight = rest
			suspects = []suspect{whole}
		}
		for _, s := range suspects {
			all = append(all, candidate{s, a, rest})
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(x, y candidate) int { return cmp.Compare(y.weight, x.weight) })
	most := w.ranked(startedBy(byTree, counted, elsewhere))
	var found []finding
	for _, c := range all[:min(len(all), maxFindings)] {
		f := finding{
			suspect: c.suspect, cgroup: c.of.cgroup, ratio: c.weight / enough, contributors: most,
			confidence: answered(c.of, c.suspect, c.rest) * w.trust(shortSpan), margin: 1, // as of fork_storm
		}
		d.judge(w, &f, c.of, seconds)
		found = append(found, f)
	}
	return found
}

func shortLives(c charges) map[*node]int { return c.short }

// startedBy counts forks or short lives by the cgroup that answers for them: of whoever started
// them where that is known, and else of the one in which they ended.
func startedBy(byTree map[*node]float64, counted map[model.CgroupID]uint64, elsewhere map[model.CgroupID]float64) map[model.CgroupID]uint64 {
	known := byCgroup(byTree)
	sum := make(map[model.CgroupID]uint64)
	for id, n := range known {
		sum[id] = uint64(n)
	}
	for id, n := range counted {
		if rest := float64(n) - elsewhere[id]; rest > known[id] { // complete also where records were lost
			sum[id] = uint64(rest)
		}
	}
	return sum
}

func (d shortLivedJobs) judge(w *window, f *finding, a *account, seconds float64) {
	rate := f.weight / seconds
	f.victims = w.wrongedByTree(a, f.suspect, d.cfg.VictimMSPerSecond)
	f.severity = shortSeverity
	if len(f.victims) > 0 {
		f.severity = model.WarningSeverity + 0.4*min(1, f.victims[0].msPerSecond/1000)
	}
	command, same := w.commonest(a, f.suspect)
	f.evidence = map[string]float64{
		"short_exits_per_second": round(rate),
		"same_command_percent":   round(100 * same),
		"processes":              float64(f.members),
	}
	f.explain = func(name string, victims []string) string {
		text := fmt.Sprintf("%s starts processes that end within a second, %.0f of them in each second.", name, rate)
		if same >= sameCommand {
			text += fmt.Sprintf(" Nearly all are the same command, %s: this looks like something that fails and is started again, or like a loop of a script.", command)
		}
		if len(victims) > 0 {
			return text + " It keeps others from running: " + list(victims) + "."
		}
		return text + " Nobody else is hurt by it."
	}
}

// commonest is the command that most of a suspect's short lives ran, and their part.
func (w *window) commonest(a *account, s suspect) (comm string, part float64) {
	type command struct{ comm, cmdline string }
	counts := make(map[command]int)
	all := 0
	for _, ch := range w.charges[w.index(shortSpan):] {
		for ended, count := range ch.short {
			if n := w.table.answers(ended); n != nil && a.answers(s, n) {
				counts[command{ended.Comm, ended.Cmdline}] += count
				all += count
			}
		}
	}
	most := 0
	for c, count := range counts {
		if count > most || count == most && c.comm < comm {
			most, comm = count, c.comm
		}
	}
	if all == 0 {
		return "", 0
	}
	return comm, float64(most) / float64(all)
}

func (d shortLivedJobs) measure(w *window, cgroup model.CgroupID) []model.Measure {
	_, covered := w.last(shortSpan)
	byTree, elsewhere := w.chargedWhere(shortSpan, shortLives)
	counted := float64(w.cgroupTotals(shortSpan, func(c *model.CgroupSample) uint64 { return c.ShortExits })[cgroup])
	rate, tree := 0.0, 0.0
	if covered > 0 {
		rate = max(0, counted-elsewhere[cgroup]) / covered.Seconds()
		if s := w.culprit(cgroup, byTree); s.weight > 0 {
			tree = s.weight / covered.Seconds()
		}
	}
	return []model.Measure{
		over("cgroup_short_exits_per_second", rate, d.cfg.ExitsPerSecond),
		over("short_exits_per_second", tree, d.cfg.ExitsPerSecond),
	}
}
