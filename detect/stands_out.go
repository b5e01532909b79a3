package detect

import (
	"maps"
	"path"
	"slices"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// Bounds of a verdict on who makes a pressure: under them nobody stands out, and unknown
// is the answer.
const (
	standOutShare  = 0.5 // of the whole stall, what nobody is known to have made included
	standOutMargin = 0.2 // more than the next
)

// hostwideInfo is the severity of a pressure that hurts nobody, as far as is known.
const hostwideInfo = 0.2

// estimateSpan is the span over which stalls of memory and io are weighed: the files of a
// cgroup are not read in every tick.
const estimateSpan = 5 * time.Second

// verdict is who makes a pressure, and who suffers from it.
type verdict struct {
	culprit      model.CgroupID // 0: nobody stands out
	share        float64        // of the culprit, or of who comes next to it
	margin       float64
	victims      []hurt // of the culprit; of anybody where nobody stands out
	contributors []model.Contributor
}

// standsOut says who made most of all stalls, those of its own processes included: a
// cgroup that holds itself up is in nobody else's hands. So is one that stalls at a limit of
// its own memory; one that a limit of breakerd's holds is not, or what was done about it
// would be a reason to do it again.
func (w *window) standsOut(shares map[model.CgroupID]*blame.Shares, covered time.Duration) verdict {
	caused := make(map[model.CgroupID]float64)
	whole := 0.0
	victims := sortedIDs(shares) // floats add up to the same in the same order only
	victims = slices.DeleteFunc(victims, w.above(victims))
	for _, id := range victims {
		s := shares[id]
		caused[id] += float64(s.SelfNS)
		if s.Resource == model.Memory {
			caused[id] += float64(s.OwnQuotaNS)
		}
		for _, n := range s.Neighbours {
			caused[n.Offender] += float64(n.NS)
		}
		whole += float64(s.WaitNS)
	}
	if whole == 0 {
		return verdict{}
	}
	maps.DeleteFunc(caused, func(_ model.CgroupID, ns float64) bool { return ns == 0 })
	var v verdict
	v.contributors = w.contributors(rankedBy(caused), func(id model.CgroupID) float64 { return caused[id] / whole })
	if len(v.contributors) > 0 {
		v.share = v.contributors[0].Share
		v.margin = v.share
	}
	if len(v.contributors) > 1 {
		v.margin -= v.contributors[1].Share
	}
	if v.share >= standOutShare && v.margin >= standOutMargin {
		v.culprit = v.contributors[0].CgroupID
	}
	for _, id := range victims {
		s := shares[id]
		ns := s.By(v.culprit)
		if v.culprit == 0 {
			ns = s.NeighbourNS() + s.UnknownNS
		}
		if ns > 0 && id != v.culprit && !w.table.watcher(id) {
			v.victims = append(v.victims, hurt{id, msPerSecond(ns, covered)})
		}
	}
	sortHurts(v.victims)
	return v
}

// above tells which cgroups hold another of the same list. The stall of those is that of
// the ones below, once more.
func (w *window) above(ids []model.CgroupID) func(model.CgroupID) bool {
	dirs := map[string]bool{}
	for _, id := range ids {
		for dir := w.path(id); len(dir) > 1; {
			dir = path.Dir(dir)
			if dirs[dir] {
				break
			}
			dirs[dir] = true
		}
	}
	return func(id model.CgroupID) bool { return dirs[w.path(id)] }
}

// blamed says who makes the pressure on a resource: measured for the CPU, estimated for
// memory and io.
func (w *window) blamed(r model.Resource) verdict {
	if v, ok := w.verdicts[r]; ok {
		return v
	}
	var v verdict
	if r == model.CPU {
		_, covered := w.last(hurtSpan)
		v = w.standsOut(w.blame(hurtSpan), covered)
		v.victims = nil // a wait alone is no wrong
		if v.culprit != 0 {
			v.victims = w.wrongedBy(v.culprit, 0)
		}
	} else {
		v = w.standsOut(w.estimate(r))
	}
	if w.verdicts == nil {
		w.verdicts = make(map[model.Resource]verdict)
	}
	w.verdicts[r] = v
	return v
}

// estimate divides the stalls for memory or io.
func (w *window) estimate(r model.Resource) (shares map[model.CgroupID]*blame.Shares, covered time.Duration) {
	if len(w.samples) == 0 {
		return nil, 0
	}
	_, covered = w.last(estimateSpan)
	if shares = w.estimates[r]; shares != nil {
		return shares, covered
	}
	if r == model.Memory {
		shares = blame.OverMemory(w.samples, w.index(estimateSpan), w.ledger.resident(estimateSpan))
	} else {
		shares = blame.OverIO(w.samples, w.index(estimateSpan))
	}
	if w.estimates == nil {
		w.estimates = make(map[model.Resource]map[model.CgroupID]*blame.Shares)
	}
	w.estimates[r] = shares
	return shares, covered
}

// accused is the finding about a pressure of the whole host.
func (w *window) accused(r model.Resource, ratio, victimMSPerSecond float64) finding {
	v := w.blamed(r)
	f := finding{
		resource: r, estimated: r != model.CPU, hostwide: true,
		cgroup: v.culprit, ratio: ratio, contributors: v.contributors,
		confidence: v.share * w.trust(estimateSpan), margin: v.margin,
	}
	if v.culprit == 0 {
		// How sure is it that nobody stands out? The less sure, the more somebody does.
		f.confidence = (1 - v.share) * w.trust(estimateSpan)
		f.margin = 0
	}
	if f.estimated {
		f.confidence = min(f.confidence, blame.EstimatedMost)
	}
	for _, h := range v.victims {
		if h.msPerSecond >= victimMSPerSecond {
			f.victims = append(f.victims, h)
		}
	}
	switch {
	case v.culprit == 0:
	case r == model.CPU:
		f.suspect = w.culprit(v.culprit, w.cpuUsed(v.culprit))
	case r == model.Memory:
		f.suspect = w.culprit(v.culprit, w.grown(v.culprit))
	default: // which process asked for what of a device is not known
		f.suspect = w.table.tally(v.culprit, nil).whole()
	}
	// What hurts nobody else is load, and no trouble.
	f.severity = hostwideInfo
	if len(f.victims) > 0 {
		f.severity = model.WarningSeverity + (1-model.WarningSeverity)*min(1, f.victims[0].msPerSecond/1000)
	}
	return f
}

// grown is how much memory (bytes) each process of a cgroup has gained in the last one or
// two minutes.
func (w *window) grown(cgroup model.CgroupID) map[*node]float64 {
	sum := make(map[*node]float64)
	for n := range w.table.cgroups[cgroup] {
		if n.ownBytes > n.ownBefore {
			sum[n] = float64(n.ownBytes - n.ownBefore)
		}
	}
	return sum
}

// standing says in words who is to blame.
func standing(culprit model.CgroupID, name string, r model.Resource, victims []string) string {
	how := "This is an estimate, from who used what while others were held up."
	if r == model.CPU {
		how = "Who made whom wait was measured in the scheduler."
	}
	hurt := " Nobody else is known to be held up by it."
	if len(victims) > 0 {
		hurt = " Held up by it: " + list(victims) + "."
	}
	if culprit == 0 {
		if len(victims) > 0 {
			hurt = " Held up: " + list(victims) + "."
		}
		return "Nobody stands out as the one who makes it, and nobody is accused." + hurt
	}
	return name + " makes most of it." + hurt + " " + how
}
