package detect

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// NoisyNeighbourConfig are the thresholds of noisy_neighbour. Its sense of what is unfair
// is also that of the kinds which ask only whether somebody is hurt.
type NoisyNeighbourConfig struct {
	// VictimMSPerSecond is how long one cgroup may make another wait in each second.
	VictimMSPerSecond float64 `json:"victim_ms_per_second" yaml:"victim_ms_per_second" doc:"How long one cgroup may make another wait for a CPU in each second, in ms." range:"1..1000000"`
	// DeprivedPercent is how much less than it was entitled to beside its neighbour a
	// cgroup must have got to be a victim.
	DeprivedPercent float64 `json:"deprived_percent" yaml:"deprived_percent" doc:"How many percent less than it was entitled to a cgroup must have got to be a victim." range:"0..100"`
	// OwnQuotaPartAtMost is the part of a victim's wait (0 to 1) that may be its own
	// quota's, or the hypervisor's, before nobody else is accused.
	OwnQuotaPartAtMost float64 `json:"own_quota_part_at_most" yaml:"own_quota_part_at_most" doc:"Nobody else is accused where more than this part of a victim's wait is due to its own CPU quota, or to the hypervisor." range:"0..1"`
	// Hold is how long it must go on.
	Hold config.Duration `json:"hold" yaml:"hold" doc:"How long it must go on." range:"1ms..1h"`
}

// noisyNeighbour sees one cgroup that takes the CPUs which another has a right to, also
// where the machine as a whole is not busy.
type noisyNeighbour struct{ cfg NoisyNeighbourConfig }

func (d noisyNeighbour) kind() model.Kind    { return model.NoisyNeighbour }
func (d noisyNeighbour) hold() time.Duration { return d.cfg.Hold.D() }

// maxFindings bounds what one detector says in one tick: the worst.
const maxFindings = 16

func (d noisyNeighbour) look(w *window) []finding {
	wrongs := w.wrongs()
	var ranked []model.CgroupID
	for _, id := range sortedIDs(wrongs) {
		if wrongs[id][0].msPerSecond >= d.cfg.VictimMSPerSecond/2 {
			ranked = append(ranked, id)
		}
	}
	slices.SortStableFunc(ranked, func(x, y model.CgroupID) int {
		return cmp.Compare(wrongs[y][0].msPerSecond, wrongs[x][0].msPerSecond)
	})
	var found []finding
	for _, offender := range ranked[:min(len(ranked), maxFindings)] {
		found = append(found, d.judge(w, offender, wrongs[offender]))
	}
	return found
}

func (d noisyNeighbour) judge(w *window, offender model.CgroupID, wrongs []wrong) finding {
	worst := wrongs[0]
	f := finding{
		suspect: w.culprit(offender, w.cpuUsed(offender)),
		cgroup:  offender,
		ratio:   worst.msPerSecond / d.cfg.VictimMSPerSecond,
		victims: w.wrongedBy(offender, d.cfg.VictimMSPerSecond/2),
		margin:  worst.share - worst.next,
	}
	f.confidence = w.known(f.victims) * w.trust(hurtSpan)
	f.severity = model.WarningSeverity + (1-model.WarningSeverity)*min(1, worst.msPerSecond/1000)
	f.contributors = w.neighboursOf(worst.victim)
	f.evidence = map[string]float64{
		"stall_ms_per_second":     round(worst.msPerSecond),
		"offender_share_percent":  round(100 * worst.share),
		"victim_deprived_percent": round(worst.deprivedPercent),
	}
	if use, ok := w.usePercent(hurtSpan); ok {
		f.evidence["cpu_use_percent"] = round(use)
	}
	f.explain = func(name string, victims []string) string {
		return fmt.Sprintf("%s makes others wait for a CPU: %s. The worst of them got %.0f %% less than it was entitled to beside this neighbour, which got more. The waiting was measured in the scheduler.",
			name, list(victims), worst.deprivedPercent)
	}
	return f
}

// neighboursOf lists who made a cgroup wait, with their share of its whole wait.
func (w *window) neighboursOf(victim model.CgroupID) []model.Contributor {
	s := w.blame(hurtSpan)[victim]
	var all []model.Contributor
	for _, n := range s.Neighbours[:min(len(s.Neighbours), maxContributors)] {
		all = append(all, model.Contributor{Cgroup: w.path(n.Offender), CgroupID: n.Offender, Share: round3(part(n.NS, s.WaitNS-s.AskedNS))})
	}
	return all
}

func (d noisyNeighbour) measure(w *window, cgroup model.CgroupID) []model.Measure {
	raw := 0.0
	if hurts := w.hurtBy(cgroup, 0); len(hurts) > 0 {
		raw = hurts[0].msPerSecond
	}
	var worst wrong
	if wrongs := w.wrongs()[cgroup]; len(wrongs) > 0 {
		worst = wrongs[0]
	}
	return []model.Measure{
		over("made_wait_ms_per_second", raw, d.cfg.VictimMSPerSecond),
		over("stall_ms_per_second", worst.msPerSecond, d.cfg.VictimMSPerSecond),
		over("victim_deprived_percent", worst.deprivedPercent, d.cfg.DeprivedPercent),
	}
}
