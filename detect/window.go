package detect

import (
	"slices"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// kept is how far back the window reaches: twice as long as the longest look back of any
// detector (4 s), so that there is a reading of a quota before it to compare with.
const kept = 8 * time.Second

const (
	// waitsKept is the longest span that anybody asks the waits of, or what cgroups did.
	waitsKept = max(figureSpan, hurtSpan, estimateSpan)
	// usedSpan is that of the CPU time of processes.
	usedSpan = 2 * hurtSpan
)

// maxSamples bounds the window also where a recording says that a tick took nothing: it
// is more than the shortest tick (50 ms) needs.
const maxSamples = 512

// window holds the samples of the last seconds, the process table after the last of
// them, and what each sample charged to whom.
type window struct {
	table   *table
	samples []*model.Sample
	waits   [][]blame.Cell // of each sample
	charges []charges      // beside samples
	seen    []seen         // the same
	recent  recent
	names   names
	ledger  ledger

	ticks, used uint64 // of all ticks, and the one that the processes' CPU time is of
	fair        fairness
	gap         int64 // boot time when the window was last discarded; 0 if it never was

	// Of this tick, made when asked for.
	shares    map[time.Duration]map[model.CgroupID]*blame.Shares
	offences  map[model.CgroupID][]hurt  // by offender, over hurtSpan
	wronged   map[model.CgroupID][]wrong // the same
	claimed   *blame.Claims              // the same
	fights    map[[2]blame.Branch]fight  // the same, by the branches of victims and offenders
	verdicts  map[model.Resource]verdict
	estimates map[model.Resource]map[model.CgroupID]*blame.Shares // over estimateSpan
	runNS     map[model.CgroupID]uint64                           // by ran
}

// seen is how much one sample told, counted before it is thinned.
type seen struct{ events, cells, cgroups float64 }

func seenIn(s *model.Sample, cells int) seen {
	n := seen{cells: float64(cells), cgroups: float64(len(s.Cgroups))}
	for i := range s.Cgroups {
		c := &s.Cgroups[i]
		n.events += float64(c.Forks) + float64(c.Execs) + float64(c.Exits)
	}
	return n
}

func newWindow(cfg Config) *window {
	return &window{table: newTable(), names: newNames(), ledger: newLedger(), fair: fairnessOf(cfg)}
}

func fairnessOf(cfg Config) fairness {
	return fairness{cfg.NoisyNeighbour.DeprivedPercent, cfg.NoisyNeighbour.OwnQuotaPartAtMost}
}

// feed takes in a sample. It forgets everything but the processes where time did not
// run as the samples assume: nothing may be concluded from what lies across a suspend,
// or across the seam of two recordings. A clock that jumps is that of a machine that was
// stopped from outside, as a rule.
func (w *window) feed(s *model.Sample) (broken bool) {
	const most = int64(time.Second) // that a clock is set by, or a machine sleeps, and nothing else is wrong
	stopped := s.Lost.SuspendedNS > most || s.Lost.ClockJumpNS > most || s.Lost.ClockJumpNS < -most
	broken = s.Keyframe || stopped
	if len(w.samples) > 0 {
		before := w.now()
		broken = broken || s.BootNS <= before.BootNS || s.Host.BootID != before.Host.BootID
	}
	if broken {
		if len(w.samples) > 0 {
			w.gap = s.BootNS
		}
		w.samples, w.waits, w.charges, w.seen, w.ledger = nil, nil, nil, nil, newLedger()
	}
	light := *s
	if stopped {
		// What was counted while the machine stood still is nobody's doing.
		light.Cgroups, light.Waits, light.IOHolds = nil, nil, nil
	}
	light.Procs = model.ProcChanges{} // 1 MB each second at 20,000 processes, and in the table now
	w.ticks++
	w.samples = append(w.samples, &light)
	cells := blame.Cells(light.Waits)
	w.waits = append(w.waits, cells)
	w.seen = append(w.seen, seenIn(&light, len(cells)))
	light.Waits = nil
	w.charges = append(w.charges, w.table.apply(s))
	w.ledger.enter(s, w.table)
	w.shares, w.offences, w.wronged, w.verdicts, w.estimates, w.runNS, w.claimed = nil, nil, nil, nil, nil, nil, nil

	old := max(0, len(w.samples)-maxSamples)
	for s.BootNS-w.samples[old].BootNS > int64(kept) {
		old++
	}
	w.samples = slices.Delete(w.samples, 0, old)
	w.waits = slices.Delete(w.waits, 0, old)
	w.charges = slices.Delete(w.charges, 0, old)
	w.seen = slices.Delete(w.seen, 0, old)
	w.thin()
	w.names.learn(s)
	w.recent.learn(s, w.table)
	return broken
}

// thin forgets of older samples what no span reaches back to: 1 MB in each tick where
// thousands wait for thousands. What is kept is the readings that running totals are
// compared with, and who held the block devices between two of them.
func (w *window) thin() {
	now := w.now().BootNS
	for i, s := range w.samples {
		age := now - s.BootNS
		// Whatever is younger may be asked for again: index gives a tick some grace.
		if age < int64(usedSpan) {
			return
		}
		w.charges[i].cpuNS = nil
		if age < int64(waitsKept) || w.waits[i] == nil {
			continue
		}
		w.waits[i] = nil
		var kept []model.CgroupSample
		for j := range s.Cgroups {
			if c := &s.Cgroups[j]; c.Detail != nil || c.IOHeldNS > 0 {
				kept = append(kept, *c)
			}
		}
		s.Cgroups = kept
	}
}

// markGaps says in the evidence what the window did not see. A late tick is measured by
// its true length and only marked.
func (w *window) markGaps(evidence map[string]float64) {
	var lost model.Lost
	for _, s := range w.samples {
		lost.Events += s.Lost.Events
		lost.Cells += s.Lost.Cells
		lost.Cgroups += s.Lost.Cgroups
		lost.LateNS = max(lost.LateNS, s.Lost.LateNS)
	}
	for key, v := range map[string]float64{
		"lost_events": float64(lost.Events), "lost_cells": float64(lost.Cells), "lost_cgroups": float64(lost.Cgroups),
		"late_ms": round(float64(lost.LateNS) / 1e6),
	} {
		if v > 0 {
			evidence[key] = max(evidence[key], v)
		}
	}
	// While part of what a detector looks back on is missing.
	if age := w.now().BootNS - w.gap; w.gap != 0 && age >= 0 && age < int64(kept) {
		evidence["window_discarded_s_ago"] = round(time.Duration(age).Seconds())
	}
}

func (w *window) now() *model.Sample { return w.samples[len(w.samples)-1] }

// last gives the samples that end within d before the newest one, and the true time
// that they cover.
func (w *window) last(d time.Duration) (samples []*model.Sample, covered time.Duration) {
	from := w.index(d)
	for _, s := range w.samples[from:] {
		covered += s.Length()
	}
	return w.samples[from:], covered
}

// index is the first sample that ends within d before the newest.
func (w *window) index(d time.Duration) int {
	newest := w.now().BootNS
	// A tick that came a little late still belongs to the span it was meant for.
	d -= w.now().Length() / 2
	i := len(w.samples) - 1
	for i > 0 && newest-w.samples[i-1].BootNS < int64(d) {
		i--
	}
	return i
}

// blame divides the waits of the last d.
func (w *window) blame(d time.Duration) map[model.CgroupID]*blame.Shares {
	if s := w.shares[d]; s != nil {
		return s
	}
	if w.shares == nil {
		w.shares = make(map[time.Duration]map[model.CgroupID]*blame.Shares)
	}
	w.shares[d] = blame.OverCells(w.waits, w.samples, w.index(d))
	return w.shares[d]
}

// growth is the growth of a running total of the host over the last d, a second, from
// the sample before the span to the newest. False where the span has no beginning yet.
func (w *window) growth(d time.Duration, total func(*model.Host) uint64) (perSecond float64, ok bool) {
	from := w.index(d)
	if from == 0 {
		return 0, false
	}
	before, now := w.samples[from-1], w.now()
	first, last := total(&before.Host), total(&now.Host)
	elapsed := float64(now.BootNS-before.BootNS) / float64(time.Second)
	if last < first || elapsed <= 0 {
		return 0, false
	}
	return float64(last-first) / elapsed, true
}

// somePercent is how much of the last d at least one task waited for a CPU.
func (w *window) somePercent(d time.Duration) (float64, bool) {
	if w.now().Host.PressureAbsent {
		return 0, false
	}
	us, ok := w.growth(d, func(h *model.Host) uint64 { return h.Pressure.CPU.SomeUS })
	return us / 1e6 * 100, ok
}

// usePercent is how much of the time of all CPUs in the last d was not idle. It is held
// against the time that the kernel accounted for, not the clock's: an emulated CPU loses
// ticks, and with them up to a third of the busy time.
func (w *window) usePercent(d time.Duration) (float64, bool) {
	busy, ok := w.growth(d, func(h *model.Host) uint64 { return h.CPUBusyNS + h.StealNS })
	idle, known := w.growth(d, func(h *model.Host) uint64 { return h.CPUIdleNS })
	if !ok || !known || busy+idle == 0 {
		return 0, false
	}
	return busy / (busy + idle) * 100, true
}

// charged adds up what was charged in the last d to each living process, and to the rest
// of each cgroup.
func (w *window) charged(d time.Duration, pick func(charges) map[*node]int) map[*node]float64 {
	sum, _ := w.chargedWhere(d, pick)
	return sum
}

// chargedWhere counts by cgroup, too, what was done there by those whom a tree of another one sent
// (CLONE_INTO_CGROUP, or moved), and answers for: the cgroup itself does not.
func (w *window) chargedWhere(d time.Duration, pick func(charges) map[*node]int) (sum map[*node]float64, sent map[model.CgroupID]float64) {
	sum, sent = make(map[*node]float64), make(map[model.CgroupID]float64)
	for _, ch := range w.charges[w.index(d):] {
		for who, v := range pick(ch) {
			n := w.table.answers(who)
			if n == nil {
				continue
			}
			sum[n] += float64(v)
			if n.Cgroup != who.Cgroup {
				sent[who.Cgroup] += float64(v)
			}
		}
	}
	return sum, sent
}

// cpuUsed adds up the CPU time (ns) that was charged lately to each living process of a
// cgroup. Every process is charged once in a tick, whoever asks: there may be 20,000.
func (w *window) cpuUsed(cgroup model.CgroupID) map[*node]float64 {
	if w.used != w.ticks {
		w.used = w.ticks
		for _, ch := range w.charges[w.index(usedSpan):] {
			for _, used := range ch.cpuNS {
				n := used.by.alive()
				if n != nil && n.Cgroup != used.by.Cgroup {
					n = w.table.restOf(used.by.Cgroup) // whose CPU time it was
				}
				if n == nil {
					continue
				}
				if n.usedIn != w.ticks {
					n.usedIn, n.usedNS = w.ticks, 0
				}
				n.usedNS += float64(used.ns)
			}
		}
	}
	sum := make(map[*node]float64)
	for n := range w.table.cgroups[cgroup] {
		if n.usedIn == w.ticks {
			sum[n] = n.usedNS
		}
	}
	if rest := w.table.rest[cgroup]; rest != nil && rest.usedIn == w.ticks {
		sum[rest] = rest.usedNS
	}
	return sum
}

// ran is how long each cgroup ran within hurtSpan, in nanoseconds.
func (w *window) ran() map[model.CgroupID]uint64 {
	if w.runNS == nil {
		w.runNS = w.cgroupTotals(hurtSpan, func(c *model.CgroupSample) uint64 { return c.RunNS })
	}
	return w.runNS
}

// cgroupTotals adds up one count over the last d, by cgroup.
func (w *window) cgroupTotals(d time.Duration, pick func(*model.CgroupSample) uint64) map[model.CgroupID]uint64 {
	sum := make(map[model.CgroupID]uint64)
	samples, _ := w.last(d)
	for _, s := range samples {
		for i := range s.Cgroups {
			if v := pick(&s.Cgroups[i]); v > 0 {
				sum[s.Cgroups[i].ID] += v
			}
		}
	}
	return sum
}
