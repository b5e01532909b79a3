package detect

import (
	"cmp"
	"slices"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// fairness says when a wait is a wrong that one cgroup does to another.
type fairness struct {
	deprivedPercent    float64 // less than it is entitled to, by at least so much
	ownQuotaPartAtMost float64 // of the victim's wait, 0 to 1
}

// wrong is a wait that one cgroup made another, though that one had a right to run.
type wrong struct {
	hurt
	share           float64 // of what the victim waited and had not asked to, 0 to 1
	next            float64 // the same of the worst other neighbour
	unknown         float64 // the part of the victim's wait that nobody is known to have made
	deprivedPercent float64 // how much less than it was entitled to the victim got
}

// A wait shorter than this in each second is noise: a few scheduling rounds.
const leastWrong = 10.0 // ms/s

// wrongs lists by offender whom it wrongs, the worst first, over hurtSpan.
//
// Who made whom wait is measured, and says nothing of who is in the right: while a
// service runs, every queued task of a crowd waits for it. So each fight is judged by
// what both got. The pair divides what it was given by max-min fairness: where the
// victim wanted what it got and what it lost to this offender, it is entitled to that
// up to the part of what both got that its weight gives it: half, where nobody set one. Nothing is said of the CPUs on which they met, because
// nobody counts run time by cgroup and CPU: so it holds whether both are pinned to one
// CPU of many or free, and a cgroup that has eight CPUs is not entitled to half of a
// ninth that somebody with none wants.
func (w *window) wrongs() map[model.CgroupID][]wrong {
	if w.wronged != nil {
		return w.wronged
	}
	w.wronged = make(map[model.CgroupID][]wrong)
	shares := w.blame(hurtSpan)
	run := w.ran()
	_, covered := w.last(hurtSpan)
	for victim, s := range shares {
		if s.WaitNS == 0 || w.fair.excuses(s) || w.table.watcher(victim) {
			continue
		}
		for i, n := range s.Neighbours {
			rate := msPerSecond(n.NS, covered)
			if rate < leastWrong {
				break // the worst come first
			}
			right := w.right(victim, n.Offender)
			deprived := deprivedBy(
				side{run[victim], lost(n.NS, s, run[victim])},
				side{run[n.Offender], lostInAll(shares[n.Offender], run[n.Offender])},
				right)
			if deprived < w.fair.deprivedPercent || !w.branchDeprived(victim, n.Offender, right) {
				continue
			}
			x := wrong{
				hurt:    hurt{victim, rate},
				share:   part(n.NS, s.WaitNS-s.AskedNS),
				unknown: part(s.UnknownNS, s.WaitNS-s.AskedNS), deprivedPercent: deprived,
			}
			if other := nextTo(i); other < len(s.Neighbours) {
				x.next = part(s.Neighbours[other].NS, s.WaitNS-s.AskedNS)
			}
			w.wronged[n.Offender] = append(w.wronged[n.Offender], x)
		}
	}
	excuseTheWronged(w.wronged)
	for _, list := range w.wronged {
		slices.SortFunc(list, func(a, b wrong) int {
			return cmp.Or(cmp.Compare(b.msPerSecond, a.msPerSecond), cmp.Compare(a.victim, b.victim))
		})
	}
	return w.wronged
}

// excuseTheWronged accuses nobody of a wait for which somebody else answers first: one who makes the
// same victim wait as long or longer, and wrongs the accused as much, too. A service that gets its turn beside
// a crowd does not answer to those who wait for both.
func excuseTheWronged(wronged map[model.CgroupID][]wrong) {
	type pair struct{ offender, victim model.CgroupID }
	wrongs := make(map[pair]float64) // ms/s
	type made struct {
		offender    model.CgroupID
		msPerSecond float64
	}
	by := make(map[model.CgroupID][]made) // wait, the worst first
	for offender, list := range wronged {
		for _, x := range list {
			wrongs[pair{offender, x.victim}] = x.msPerSecond
			by[x.victim] = append(by[x.victim], made{offender, x.msPerSecond})
		}
	}
	for victim, offenders := range by {
		slices.SortFunc(offenders, func(a, b made) int {
			return cmp.Or(cmp.Compare(b.msPerSecond, a.msPerSecond), cmp.Compare(a.offender, b.offender))
		})
		by[victim] = offenders[:min(len(offenders), maxFindings)]
	}
	for offender, list := range wronged {
		left := slices.DeleteFunc(list, func(x wrong) bool {
			return slices.ContainsFunc(by[x.victim], func(first made) bool {
				return min(first.msPerSecond, wrongs[pair{first.offender, offender}]) >= x.msPerSecond
			})
		})
		if wronged[offender] = left; len(left) == 0 {
			delete(wronged, offender)
		}
	}
}

// fight is between two branches of the tree: those of the one whom the other made wait, and those
// of the other who did, each so much that it is no noise.
type fight struct{ victims, offenders side }

// side is one side of a fight: the CPU time that it had, and what it would have had more, in
// nanoseconds.
type side struct{ ran, lost uint64 }

func (s side) wanted() uint64 { return s.ran + s.lost }

// branchDeprived says that those in the victim's branch whom the offender's branch made wait
// got less, together, than they were entitled to against it. The scheduler divides the CPUs
// among branches first: so each of many cgroups gets little, and nobody wrongs them who gets
// what is his own.
func (w *window) branchDeprived(victim, offender model.CgroupID, right float64) bool {
	v, o := w.path(victim), w.path(offender)
	if v == o {
		return true // neither is known, or one was made again
	}
	claims := w.claims()
	var key [2]blame.Branch
	key[0], key[1] = claims.Branches(v, o)
	f, known := w.fights[key]
	if !known {
		f = w.fight(key[0], key[1])
		w.fights[key] = f
	}
	return deprivedBy(f.victims, f.offenders, right) >= w.fair.deprivedPercent
}

// right is what the first of two cgroups may have of what both get: see blame.Right.
func (w *window) right(one, other model.CgroupID) float64 {
	if !w.names.weighted {
		return 0.5
	}
	x, y := w.names.byID[one], w.names.byID[other]
	return blame.Right(x.path, y.path, x.weights, y.weights)
}

func (w *window) fight(victims, offenders blame.Branch) (f fight) {
	claims, shares := w.claims(), w.blame(hurtSpan)
	_, covered := w.last(hurtSpan)
	made := make(map[int]uint64) // wait, by offender
	for i := victims.First; i < victims.End; i++ {
		victim := claims.At(i)
		s := shares[victim.ID]
		if s == nil {
			continue
		}
		var waited uint64
		for _, n := range s.Neighbours {
			if at := claims.Index(n.Offender); at >= offenders.First && at < offenders.End {
				waited += n.NS
				made[at] += n.NS
			}
		}
		if msPerSecond(waited, covered) >= leastWrong {
			f.victims.ran += victim.Ran
			f.victims.lost += lost(waited, s, victim.Ran)
		}
	}
	for at, ns := range made {
		if offender := claims.At(at); msPerSecond(ns, covered) >= leastWrong {
			f.offenders.ran += offender.Ran
			f.offenders.lost += offender.Wanted - offender.Ran
		}
	}
	return f
}

// claims are what the cgroups ran and wanted over hurtSpan.
func (w *window) claims() *blame.Claims {
	if w.claimed == nil {
		shares, run := w.blame(hurtSpan), w.ran()
		claims := make([]blame.Claim, 0, len(run))
		add := func(id model.CgroupID, ran uint64) {
			is := w.names.byID[id]
			claims = append(claims, blame.Claim{ID: id, Path: is.path, Ran: ran, Wanted: ran + lostInAll(shares[id], ran), Weights: is.weights})
		}
		for id, ran := range run {
			add(id, ran)
		}
		for id := range shares {
			if run[id] == 0 {
				add(id, 0)
			}
		}
		w.claimed, w.fights = blame.NewClaims(claims), make(map[[2]blame.Branch]fight)
	}
	return w.claimed
}

// nextTo is the index of the worst neighbour besides the given one.
func nextTo(i int) int {
	if i == 0 {
		return 1
	}
	return 0
}

// deprivedBy is by how many percent the victim got less than it was entitled to against
// one offender, and 0 where the offender got no more than it was entitled to itself. The victim's
// right is the part of what both got that its weight gives it. It is
// blame.Claims.Entitled for two: thousands of pairs are judged in a tick.
func deprivedBy(victim, offender side, right float64) float64 {
	given := victim.ran + offender.ran
	partOf := func(right float64) uint64 { return min(given, uint64(float64(given)*right)) }
	entitled := min(victim.wanted(), partOf(right))
	if float64(offender.wanted())*right < float64(victim.wanted())*(1-right) { // who wants less for his weight comes first
		entitled = min(victim.wanted(), given-min(offender.wanted(), partOf(1-right)))
	}
	if entitled <= victim.ran || offender.ran <= min(offender.wanted(), given-entitled) {
		return 0
	}
	return 100 * (1 - part(victim.ran, entitled))
}

// lost is the CPU time that a cgroup would have had, had it not waited so long for others. It
// loses a CPU once, however many of its tasks wait for it: of ten that share one, ten wait while
// somebody else has it, and nine while one of them has. So how many wait at a time is told by how
// long its tasks wait for each other, beside how long they run.
func lost(waitedNS uint64, s *blame.Shares, ranNS uint64) uint64 {
	if ranNS == 0 {
		return waitedNS
	}
	return uint64(float64(waitedNS) * part(ranNS, ranNS+s.SelfNS-s.AskedNS))
}

// lostInAll is what it would have had more, had nobody else been there.
func lostInAll(s *blame.Shares, ranNS uint64) uint64 {
	if s == nil {
		return 0
	}
	// What held it, by its quota or in the hypervisor, nobody else got.
	return lost(s.WaitNS-s.SelfNS-s.OwnQuotaNS-s.StealNS, s, ranNS)
}

// excuses says that a wait is the victim's own quota's or the hypervisor's to so large a
// part that nobody else is accused of it.
func (f fairness) excuses(s *blame.Shares) bool {
	return s.QuotaUnsure || float64(s.OwnQuotaNS+s.StealNS) > f.ownQuotaPartAtMost*float64(s.WaitNS)
}

// wrongedBy lists whom a cgroup wrongs at least so much, the worst first.
func (w *window) wrongedBy(offender model.CgroupID, atLeastMSPerSecond float64) []hurt {
	var hurts []hurt
	for _, x := range w.wrongs()[offender] {
		if x.msPerSecond >= atLeastMSPerSecond {
			hurts = append(hurts, x.hurt)
		}
	}
	return hurts
}

// wrongedByTree is the same for a part of a cgroup: what the whole does to others counts for it by
// the CPU time that it used of the cgroup's. Where nobody's was read yet it answers for all of it.
func (w *window) wrongedByTree(a *account, s suspect, atLeastMSPerSecond float64) []hurt {
	hurts := w.wrongedBy(a.cgroup, atLeastMSPerSecond)
	if s.root == nil || len(hurts) == 0 {
		return hurts
	}
	if a.used == nil {
		a.used = w.cpuUsed(a.cgroup)
		a.usedByAll = a.sum(suspect{}, a.used)
	}
	if a.usedByAll == 0 {
		return hurts
	}
	of := a.sum(s, a.used) / a.usedByAll
	var its []hurt
	for _, h := range hurts {
		if h.msPerSecond *= of; h.msPerSecond >= atLeastMSPerSecond {
			its = append(its, h)
		}
	}
	return its
}

// part is a part of a whole, 0 to 1.
func part(of, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return min(1, float64(of)/float64(whole))
}

// known is the part of some victims' waits of which it is known who made them, 0 to 1.
func (w *window) known(victims []hurt) float64 {
	shares := w.blame(hurtSpan)
	var unknown, whole float64
	for _, h := range victims {
		if s := shares[h.victim]; s != nil {
			unknown += float64(s.UnknownNS)
			whole += float64(s.WaitNS - s.AskedNS)
		}
	}
	if whole == 0 {
		return 1
	}
	return max(0, 1-unknown/whole)
}

// trust is the part of what happened in the last d that was seen, 0 to 1: what was lost
// makes every verdict less sure.
func (w *window) trust(d time.Duration) float64 {
	var events, cells, cgroups, lostEvents, lostCells, lostCgroups float64
	from := w.index(d)
	for at, s := range w.samples[from:] {
		n := w.seen[from+at]
		events += n.events
		cells += n.cells
		cgroups += n.cgroups
		lostEvents += float64(s.Lost.Events)
		lostCells += float64(s.Lost.Cells)
		lostCgroups += float64(s.Lost.Cgroups)
	}
	// The counts of cgroups are complete where records were lost, so that what happened
	// is what they say, or more.
	return (1 - lostEvents/max(1, events, lostEvents)) *
		seenPart(cells, lostCells) * seenPart(cgroups, lostCgroups)
}

// observedSpan is how far back a person who asks what was seen of late would look.
const observedSpan = 10 * time.Second

// Observed is the part of what happened of late that was seen, 0 to 1: 0 where the window
// was discarded, because the machine slept, or its clock jumped.
func (w *Watch) Observed() float64 {
	if len(w.window.samples) == 0 {
		return 0
	}
	if w.window.gap != 0 && w.window.now().BootNS-w.window.gap < int64(observedSpan) {
		return 0
	}
	return round3(clamp(w.window.trust(observedSpan)))
}

func seenPart(seen, lost float64) float64 {
	if lost == 0 {
		return 1
	}
	return seen / (seen + lost)
}
