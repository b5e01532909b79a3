package blame

import (
	"math"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// The kernel says how long a cgroup stalled for memory and io, and not because of whom.
// What follows works that out from what the others did meanwhile. It is marked Estimated,
// never divides more than the circumstances account for, and leaves the rest unknown.

const (
	// A cgroup this near to its memory.max or memory.high is held by it: the kernel
	// reclaims a little at a time, so that it stays just below.
	nearLimitPercent = 90
	// A machine with more memory than this available makes nobody stall for it.
	sparePercent = 10
	// Whoever took less than one part in this of the machine's memory within the span
	// accounts for a part of the stall only: 48 MB of 24 GB.
	demandParts = 512
	pageBytes   = 4096
)

// EstimatedMost is how sure an estimate can be, 0 to 1.
const EstimatedMost = 0.7

// look is one look at the files of a cgroup.
type look struct {
	at     int // index of the sample
	detail *model.CgroupDetail
}

// span is what was read of the cgroups over a span, and where they are.
type span struct {
	samples  []*model.Sample
	from     int
	readings map[model.CgroupID][]look // from the last before the span on
	limits   map[model.CgroupID]limits
	paths    map[model.CgroupID]string // nil until somebody stalled
	disks    disks
}

// limits are what was seen of a cgroup's own, at any time: they are read less often than
// the rest.
type limits struct {
	io       bool
	memory   uint64 // the lower of memory.max and memory.high, its own or an ancestor's; 0 is none
	used     uint64 // the most
	ofMemory uint64 // of the machine
	ours     bool   // breakerd had set one of memory
}

func spanOf(samples []*model.Sample, from int) *span {
	sp := &span{samples: samples, from: from, readings: make(map[model.CgroupID][]look), limits: make(map[model.CgroupID]limits)}
	for i, s := range samples {
		for j := range s.Cgroups {
			c := &s.Cgroups[j]
			if c.Detail == nil {
				continue
			}
			r := sp.readings[c.ID]
			if i < from {
				r = r[:0]
			}
			sp.readings[c.ID] = append(r, look{i, c.Detail})
			if l := tightest(c.Detail); l > 0 || c.Detail.IOLimited {
				sum := sp.limits[c.ID]
				sum.ours = sum.ours || c.MemoryLimited
				sum.io = sum.io || c.Detail.IOLimited
				sum.memory = max(sum.memory, l)
				sum.used = max(sum.used, c.Detail.MemoryBytes)
				sum.ofMemory = max(sum.ofMemory, s.Host.MemTotalBytes)
				sp.limits[c.ID] = sum
			}
		}
	}
	return sp
}

// locate finds the paths, once somebody stalled: most of the time nobody does, and there
// may be thousands.
func (sp *span) locate() {
	if sp.paths != nil {
		return
	}
	sp.paths = make(map[model.CgroupID]string)
	for _, s := range sp.samples {
		for j := range s.Cgroups {
			if c := &s.Cgroups[j]; c.Path != "" {
				sp.paths[c.ID] = c.Path
			}
		}
	}
}

// kin says that one of two cgroups holds the other, or that they are the same: then what
// one does is no neighbour's doing. So it is where a path is not known.
func (sp *span) kin(a, b model.CgroupID) bool {
	pa, pb := sp.paths[a], sp.paths[b]
	return a == b || pa == "" || pb == "" || within(pa, pb) || within(pb, pa)
}

// within reports whether a path is that of a cgroup or of one below it.
func within(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// stalled is the growth of a pressure total in nanoseconds, between two readings.
func stalled(a, b *model.CgroupDetail, some func(*model.Pressure) uint64) uint64 {
	if a.Pressure == nil || b.Pressure == nil {
		return 0
	}
	us := less(some(b.Pressure), some(a.Pressure))
	return min(us, math.MaxInt64/1_000_000) * 1000
}

// less is a-b of running totals; one that ran back has not grown.
func less(a, b uint64) uint64 { return a - min(a, b) }

// weight is how much somebody counts in a division.
type weight struct {
	into *uint64
	by   uint64
}

// divide gives ns to all, by their weights, and what rounding leaves to nobody known.
func (s *Shares) divide(ns uint64, weights []weight) {
	// So that they add up without overflowing.
	most := uint64(math.MaxUint64) / uint64(len(weights)+1)
	var whole uint64
	for _, w := range weights {
		whole += min(w.by, most)
	}
	given := uint64(0)
	if whole > 0 {
		for _, w := range weights {
			part := mulDiv(ns, min(w.by, most), whole)
			*w.into += part
			given += part
		}
	}
	s.UnknownNS += ns - given
}

// estimated makes the shares of a victim that neighbours are put into.
type estimated struct {
	*Shares
	parts map[model.CgroupID]*uint64
}

func newEstimated(victim model.CgroupID, r model.Resource) estimated {
	return estimated{&Shares{Victim: victim, Resource: r, Estimated: true}, make(map[model.CgroupID]*uint64)}
}

func (e estimated) part(id model.CgroupID) *uint64 {
	if e.parts[id] == nil {
		e.parts[id] = new(uint64)
	}
	return e.parts[id]
}

func (e estimated) done() *Shares {
	for id, ns := range e.parts {
		if *ns > 0 {
			e.Neighbours = append(e.Neighbours, Neighbour{Offender: id, NS: *ns})
		}
	}
	e.rank()
	return e.Shares
}

// OverIO divides the growth of each cgroup's own io.pressure (some) within the samples
// from the given one on, by whose requests the devices worked on while it stalled. Of several
// devices each has the part in which the victim's own requests were at it: who fills another
// disk keeps it from nothing. More than they were held is unknown; so is everything where
// the victim had no request at a device itself, and what an io.max made it wait for.
func OverIO(samples []*model.Sample, from int) map[model.CgroupID]*Shares {
	sp := spanOf(samples, from)
	victims := make(map[model.CgroupID]*Shares)
	for id, readings := range sp.readings {
		e := newEstimated(id, model.IO)
		var at *stood // nil until it stalled
		for i := 1; i < len(readings); i++ {
			a, b := readings[i-1], readings[i]
			ns := stalled(a.detail, b.detail, func(p *model.Pressure) uint64 { return p.IO.SomeUS })
			if ns == 0 {
				continue
			}
			e.WaitNS += ns
			if sp.limits[id].io {
				e.QuotaUnsure = true
				e.UnknownNS += ns
				continue
			}
			if at == nil {
				sp.locate()
				at = sp.stoodAt(id)
			}
			sp.divideIO(e, at, ns, a.at, b.at)
		}
		if e.WaitNS > 0 {
			victims[id] = e.done()
		}
	}
	return victims
}

// divideIO divides what a victim stalled between two samples.
func (sp *span) divideIO(e estimated, at *stood, ns uint64, after, until int) {
	stalled := make(map[string]*uint64)
	var parts []weight
	for disk, by := range at.by {
		stalled[disk] = new(uint64)
		parts = append(parts, weight{stalled[disk], by})
	}
	e.divide(ns, parts) // all is unknown where it waited for something else, such as somebody's journal
	held := sp.disks.between(sp.samples, after, until, at.together)
	for disk, ns := range stalled {
		sp.divideDisk(e, *ns, held[disk])
	}
}

// divideDisk divides what a victim stalled for one disk.
func (sp *span) divideDisk(e estimated, ns uint64, d *diskUse) {
	if d == nil { // it was done with nothing
		e.UnknownNS += ns
		return
	}
	all, self, unclear := d.kernel, uint64(0), uint64(0)
	var weights []weight
	for id, by := range d.by {
		all = plus(all, by)
		switch {
		case sp.isPart(id, e.Victim):
			self = plus(self, by)
		case sp.kin(id, e.Victim):
			unclear = plus(unclear, by)
		default:
			weights = append(weights, weight{e.part(id), by})
		}
	}
	covered := min(ns, all)
	e.UnknownNS += ns - covered
	e.divide(covered, append(weights, weight{&e.SelfNS, self}, weight{&e.KernelNS, d.kernel}, weight{&e.UnknownNS, unclear}))
}

// isPart says that a cgroup is the victim, or below it.
func (sp *span) isPart(id, victim model.CgroupID) bool {
	return id == victim || sp.paths[victim] != "" && within(sp.paths[id], sp.paths[victim])
}

// plus adds without overflowing.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// OverMemory divides the growth of each cgroup's own memory.pressure (some) within the
// samples from the given one on. A victim near its own limit is held by nobody else. Where
// the machine is short of memory, it was those who demanded some meanwhile: by growing, also
// by taking back what had been evicted. Who takes back without growing is evicted from again,
// by whom is not known. Where the machine is not short of memory, nobody is accused.
//
// grown says for a cgroup how much the RSS of its processes grew within the span, for those
// whose memory.stat was not read twice; it may be nil.
func OverMemory(samples []*model.Sample, from int, grown func(model.CgroupID) uint64) map[model.CgroupID]*Shares {
	sp := spanOf(samples, from)
	victims := make(map[model.CgroupID]*Shares)
	var demands map[model.CgroupID]demand
	short := short(samples[from:])
	for id, readings := range sp.readings {
		e := newEstimated(id, model.Memory)
		for i := 1; i < len(readings); i++ {
			e.WaitNS += stalled(readings[i-1].detail, readings[i].detail, func(p *model.Pressure) uint64 { return p.Memory.SomeUS })
		}
		switch {
		case e.WaitNS == 0:
			continue
		case sp.limits[id].near() && sp.limits[id].ours: // which is tighter than what was there
			e.OurThrottleNS = e.WaitNS
		case sp.limits[id].near():
			e.OwnQuotaNS = e.WaitNS
		case !short || sp.limits[id].somewhere(): // such as above it, where others share it
			e.UnknownNS = e.WaitNS
		default:
			if demands == nil {
				sp.locate()
				demands = sp.demands(grown)
			}
			sp.divideMemory(e, demands)
		}
		victims[id] = e.done()
	}
	return victims
}

// short says that the machine had little memory to spare at some time.
func short(samples []*model.Sample) bool {
	for _, s := range samples {
		if s.Host.MemTotalBytes > 0 && s.Host.MemAvailBytes < s.Host.MemTotalBytes/100*sparePercent {
			return true
		}
	}
	return false
}

// near says that the cgroup fills its limit by itself.
func (l limits) near() bool { return l.memory > 0 && l.used >= l.memory/100*nearLimitPercent }

// somewhere says that there is a limit that can be reached.
func (l limits) somewhere() bool { return l.memory > 0 && l.memory < l.ofMemory }

// tightest is the lower of memory.max and memory.high; 0 is none.
func tightest(d *model.CgroupDetail) uint64 {
	if d.MemoryMaxBytes == 0 || d.MemoryHighBytes == 0 {
		return max(d.MemoryMaxBytes, d.MemoryHighBytes)
	}
	return min(d.MemoryMaxBytes, d.MemoryHighBytes)
}

// demands is how much memory (bytes) each cgroup without others below it asked for.
// Scans are not among it: they count the pages of who is reclaimed from.
func (sp *span) demands(grown func(model.CgroupID) uint64) map[model.CgroupID]demand {
	above := make(map[string]bool)
	for _, path := range sp.paths {
		for i := strings.LastIndexByte(path, '/'); i > 0; i = strings.LastIndexByte(path[:i], '/') {
			above[path[:i]] = true
		}
		above["/"] = above["/"] || path != "/"
	}
	demands := make(map[model.CgroupID]demand)
	for id, path := range sp.paths {
		var d demand
		told := false
		if r := sp.readings[id]; len(r) > 1 && !above[path] {
			d, told = demandIn(r, len(sp.samples)-1)
		}
		if d == (demand{}) && !told && grown != nil {
			d.more = grown(id)
		}
		if d != (demand{}) {
			demands[id] = d
		}
	}
	return demands
}

// demand is what a cgroup asked for, in bytes.
type demand struct {
	more uint64 // than it had
	back uint64 // what was evicted, and took the place of what is evicted now
}

// demandIn is the growth of memory that only swapping could take back, and what came back
// from where it was evicted to; of all memory, where memory.stat was not read twice. What
// memory.stat told twice, the last time at the end, is known, also that nothing grew.
func demandIn(r []look, end int) (d demand, told bool) {
	var first, last *model.CgroupDetail
	fresh, freshAt := 0, 0
	for _, x := range r {
		if x.detail.AnonBytes > 0 || x.detail.ShmemBytes > 0 || x.detail.FileBytes > 0 {
			if first == nil {
				first = x.detail
			}
			last = x.detail
			if !x.detail.Repeated {
				fresh, freshAt = fresh+1, x.at
			}
		}
	}
	if first == last {
		return demand{more: less(r[len(r)-1].detail.MemoryBytes, r[0].detail.MemoryBytes)}, false
	}
	refaults := min(less(last.RefaultPages, first.RefaultPages), math.MaxUint32) * pageBytes
	anon := less(plus(last.AnonBytes, last.ShmemBytes), plus(first.AnonBytes, first.ShmemBytes))
	grown := min(refaults, less(less(last.MemoryBytes, first.MemoryBytes), anon))
	return demand{more: plus(anon, grown), back: refaults - grown}, fresh > 1 && freshAt == end
}

func (sp *span) divideMemory(e estimated, demands map[model.CgroupID]demand) {
	var self, all, unclear uint64
	weights := []weight{{&e.SelfNS, 0}, {&e.UnknownNS, 0}}
	for id, d := range demands {
		all = plus(all, plus(d.more, d.back))
		unclear = plus(unclear, d.back)
		switch {
		case id == e.Victim || sp.paths[e.Victim] != "" && within(sp.paths[id], sp.paths[e.Victim]):
			self = plus(self, d.more)
		case sp.kin(id, e.Victim):
			unclear = plus(unclear, d.more)
		default:
			weights = append(weights, weight{e.part(id), d.more})
		}
	}
	weights[0].by, weights[1].by = self, unclear
	covered := e.WaitNS
	if enough := sp.samples[len(sp.samples)-1].Host.MemTotalBytes / demandParts; all < enough {
		covered = mulDiv(e.WaitNS, all, enough)
	}
	e.UnknownNS += e.WaitNS - covered
	e.divide(covered, weights)
}
