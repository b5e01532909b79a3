package detect

import (
	"cmp"
	"slices"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// figureSpan is the span that figures for people cover: long enough to be calm, short
// enough to be now.
const figureSpan = 4 * time.Second

// figures are what the window holds, by process and by cgroup, in figures for people.
type figures struct {
	w       *Watch
	covered time.Duration
	shares  map[model.CgroupID]*blame.Shares
	forks   map[*node]float64
	cgroups map[model.CgroupID]*model.CgroupFigures
	cpu     map[model.CgroupID]float64 // what the processes of a cgroup use, in percent of one CPU
}

func (w *Watch) figures(span time.Duration) *figures {
	win := w.window
	f := &figures{w: w, cgroups: make(map[model.CgroupID]*model.CgroupFigures), cpu: make(map[model.CgroupID]float64)}
	if len(win.samples) == 0 {
		return f
	}
	samples, covered := win.last(span)
	f.covered = covered
	f.shares = win.blame(span)
	f.forks = win.charged(span, madeForks)
	for _, s := range samples {
		for i := range s.Cgroups {
			c := &s.Cgroups[i]
			g := f.cgroup(c.ID)
			g.CPUPercent += f.perSecond(c.RunNS) / 1e7
			g.WaitMSPerSecond += f.perSecond(c.WaitNS) / 1e6
			g.ForksPerSecond += f.perSecond(c.Forks)
			g.ExecsPerSecond += f.perSecond(c.Execs)
			g.ExitsPerSecond += f.perSecond(c.Exits)
			g.IOHeldMSPerSecond += f.perSecond(c.IOHeldNS) / 1e6
			g.IOBytesPerSecond += f.perSecond(c.IOBytes)
		}
	}
	for _, victim := range sortedIDs(f.shares) { // sums of fractions depend on their order
		s := f.shares[victim]
		if s.Resource != model.CPU {
			continue
		}
		f.cgroup(victim).StallSufferedMSPerSecond = round(f.perSecond(s.NeighbourNS()) / 1e6)
		for _, n := range s.Neighbours {
			f.cgroup(n.Offender).StallCausedMSPerSecond += f.perSecond(n.NS) / 1e6
		}
	}
	for id, members := range win.table.cgroups {
		g := f.cgroup(id)
		g.Processes = len(members)
		for n := range members {
			g.RSSBytes += n.rssBytes
		}
	}
	for _, n := range inOrder(win.table.nodes) {
		percent, _ := win.table.cpuPercent(n)
		f.cpu[n.Cgroup] += percent
	}
	files := filesIn(samples)
	for id, g := range f.cgroups {
		for _, v := range []*float64{
			&g.CPUPercent, &g.WaitMSPerSecond, &g.StallCausedMSPerSecond, &g.ForksPerSecond, &g.ExecsPerSecond,
			&g.ExitsPerSecond, &g.IOHeldMSPerSecond, &g.IOBytesPerSecond,
		} {
			*v = round(*v)
		}
		g.Files = files[id].figures()
	}
	return f
}

func (f *figures) perSecond(n uint64) float64 {
	if f.covered <= 0 {
		return 0
	}
	return float64(n) / f.covered.Seconds()
}

// cgroup gives the figures of one cgroup, zero where nothing was seen of it.
func (f *figures) cgroup(id model.CgroupID) *model.CgroupFigures {
	g := f.cgroups[id]
	if g == nil {
		path := f.w.window.path(id)
		name := f.w.name(path)
		g = &model.CgroupFigures{Cgroup: path, CgroupID: id, Unit: name.Unit, Workload: name}
		f.cgroups[id] = g
	}
	return g
}

func (f *figures) process(n *node) model.ProcessFigures {
	g := f.cgroup(n.Cgroup)
	p := model.ProcessFigures{
		ProcID: n.ProcID, UID: n.UID, Comm: cut(n.Comm), Cmdline: cut(n.Cmdline), Kernel: n.Kernel,
		Cgroup: g.Cgroup, CgroupID: n.Cgroup, RSSBytes: n.rssBytes, CgroupStallSuffered: g.StallSufferedMSPerSecond,
	}
	if n.up != nil {
		p.ParentPID = n.up.PID
	}
	percent, known := f.w.window.table.cpuPercent(n)
	p.CPUPercent, p.CPUKnown = round(percent), known
	if all := f.cpu[n.Cgroup]; all > 0 && !n.Kernel {
		p.StallCausedEstimate = round(g.StallCausedMSPerSecond * percent / all)
	}
	if f.covered > 0 {
		p.ForksPerSecond = round(f.forks[n] / f.covered.Seconds())
	}
	return p
}

// cpuPercent is what a process used between the last two walks over all processes, of
// one CPU. It is not known before the second walk.
func (t *table) cpuPercent(n *node) (percent float64, known bool) {
	from := max(t.walkedBefore, n.bornNS)
	if t.walkedBefore == 0 || t.walkedNS <= from {
		return 0, false
	}
	if n.readNS != t.walkedNS {
		return 0, true
	}
	return float64(n.grewNS) / float64(t.walkedNS-from) * 100, true
}

func inOrder(nodes map[model.ProcID]*node) []*node {
	all := make([]*node, 0, len(nodes))
	for _, n := range nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *node) int { return compareIDs(a.ProcID, b.ProcID) })
	return all
}

// filesRead are the first and the last reading of a cgroup's files within a span.
type filesRead struct {
	first, last *model.CgroupDetail
	from, to    int64 // boot times
}

func filesIn(samples []*model.Sample) map[model.CgroupID]filesRead {
	read := make(map[model.CgroupID]filesRead)
	for _, s := range samples {
		for i := range s.Cgroups {
			c := &s.Cgroups[i]
			if c.Detail == nil {
				continue
			}
			r := read[c.ID]
			if r.first == nil {
				r.first, r.from = c.Detail, s.BootNS
			}
			r.last, r.to = c.Detail, s.BootNS
			read[c.ID] = r
		}
	}
	return read
}

// figures is what was last read; nil where nothing was.
func (r filesRead) figures() *model.CgroupFiles {
	if r.last == nil {
		return nil
	}
	out := &model.CgroupFiles{
		MemoryBytes: r.last.MemoryBytes, CPUMaxPercent: r.last.CPUMaxPercent,
		MemoryMaxBytes: r.last.MemoryMaxBytes, MemoryHighBytes: r.last.MemoryHighBytes, PIDsMax: r.last.PIDsMax,
	}
	if r.first.Pressure != nil && r.last.Pressure != nil {
		out.Pressure = pressurePercent(*r.first.Pressure, *r.last.Pressure, time.Duration(r.to-r.from))
	}
	return out
}

// pressurePercent is nil where the two readings make no span.
func pressurePercent(from, to model.Pressure, d time.Duration) *model.PressurePercent {
	if d <= 0 {
		return nil
	}
	part := func(from, to uint64) float64 {
		if to < from {
			return 0
		}
		return round(min(100, float64(to-from)/float64(d.Microseconds()+1)*100))
	}
	return &model.PressurePercent{
		CPUSome:    part(from.CPU.SomeUS, to.CPU.SomeUS),
		MemorySome: part(from.Memory.SomeUS, to.Memory.SomeUS),
		MemoryFull: part(from.Memory.FullUS, to.Memory.FullUS),
		IOSome:     part(from.IO.SomeUS, to.IO.SomeUS),
		IOFull:     part(from.IO.FullUS, to.IO.FullUS),
	}
}

// hostPressure is nil where the kernel has none, and before there is a span.
func (w *window) hostPressure(span time.Duration) *model.PressurePercent {
	from := max(0, w.index(span)-1)
	before, now := w.samples[from], w.now()
	if now.Host.PressureAbsent {
		return nil
	}
	return pressurePercent(before.Host.Pressure, now.Host.Pressure, time.Duration(now.BootNS-before.BootNS))
}

// allResources are those that are waited for.
var allResources = []model.Resource{model.CPU, model.Memory, model.IO}

// pairs are who made whom wait for any of the resources, where it is wanted, the worst first.
func (f *figures) pairs(resources []model.Resource, most int, want func(offender, victim model.CgroupID) bool) []model.BlamePair {
	pairs := []model.BlamePair{}
	for _, r := range resources {
		shares, covered := f.shares, f.covered
		if r != model.CPU {
			shares, covered = f.w.window.estimate(r)
		}
		for victim, s := range shares {
			for _, n := range s.Neighbours {
				if n.NS > 0 && want(n.Offender, victim) {
					pairs = append(pairs, model.BlamePair{
						OffenderID: n.Offender, VictimID: victim, Resource: s.Resource, Estimated: s.Estimated, MSPerSecond: round(msPerSecond(n.NS, covered)),
					})
				}
			}
		}
	}
	slices.SortFunc(pairs, func(x, y model.BlamePair) int {
		return cmp.Or(cmp.Compare(y.MSPerSecond, x.MSPerSecond), cmp.Compare(x.VictimID, y.VictimID),
			cmp.Compare(x.OffenderID, y.OffenderID), cmp.Compare(x.Resource, y.Resource))
	})
	pairs = pairs[:min(most, len(pairs))]
	for i := range pairs {
		p := &pairs[i]
		p.Offender, p.Victim = f.w.window.path(p.OffenderID), f.w.window.path(p.VictimID)
	}
	return pairs
}

// Processes are those that weigh most by a figure, the heaviest first.
func (w *Watch) Processes(by func(*model.ProcessFigures) float64, most int) []model.ProcessFigures {
	f := w.figures(figureSpan)
	all := make([]model.ProcessFigures, 0, len(w.window.table.nodes))
	for _, n := range w.window.table.nodes {
		all = append(all, f.process(n))
	}
	slices.SortFunc(all, func(x, y model.ProcessFigures) int {
		return cmp.Or(cmp.Compare(by(&y), by(&x)), compareIDs(x.ProcID, y.ProcID))
	})
	return slices.Clone(all[:min(most, len(all))])
}

// Cgroups are those that weigh most by a figure, the heaviest first.
func (w *Watch) Cgroups(by func(*model.CgroupFigures) float64, most int) []model.CgroupFigures {
	f := w.figures(figureSpan)
	all := make([]model.CgroupFigures, 0, len(f.cgroups))
	for _, g := range f.cgroups {
		all = append(all, *g)
	}
	slices.SortFunc(all, func(x, y model.CgroupFigures) int {
		return cmp.Or(cmp.Compare(by(&y), by(&x)), cmp.Compare(x.CgroupID, y.CgroupID))
	})
	return slices.Clone(all[:min(most, len(all))])
}

// maxPairs bounds the blame that is told of one cgroup, in each direction.
const maxPairs = 12

// WhyNot says what was seen of a cgroup, without what the detectors measure: see Measures.
func (w *Watch) WhyNot(cgroup model.CgroupID) model.WhyNot {
	f := w.figures(figureSpan)
	out := model.WhyNot{CoveredMS: f.covered.Seconds() * 1000, Cgroup: *f.cgroup(cgroup), Culprit: []string{}, Victim: []string{}}
	if len(w.window.samples) > 0 {
		out.At = w.window.now().Time
	}
	if s := f.shares[cgroup]; s != nil && s.Resource == model.CPU {
		ms := func(ns uint64) float64 { return round(f.perSecond(ns) / 1e6) }
		out.Shares = model.WaitShares{
			WaitMS: ms(s.WaitNS), NeighbourMS: ms(s.NeighbourNS()), SelfMS: ms(s.SelfNS), OwnQuotaMS: ms(s.OwnQuotaNS),
			OurThrottleMS: ms(s.OurThrottleNS), KernelMS: ms(s.KernelNS), StealMS: ms(s.StealNS), UnknownMS: ms(s.UnknownNS),
		}
	}
	out.WaitedFor = f.pairs(allResources, maxPairs, func(_, victim model.CgroupID) bool { return victim == cgroup })
	out.WaitedForIt = f.pairs(allResources, maxPairs, func(offender, _ model.CgroupID) bool { return offender == cgroup })
	return out
}

// Process finds a process by its number; false where there is none any more.
func (w *Watch) Process(pid int32) (model.ProcessFigures, bool) {
	for id, n := range w.window.table.nodes {
		if id.PID == pid {
			return w.figures(figureSpan).process(n), true
		}
	}
	return model.ProcessFigures{}, false
}
