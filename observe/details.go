package observe

import (
	"cmp"
	"errors"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/internal/cputime"
	"github.com/breakerd/breakerd/model"
)

const (
	// A cgroup that others made wait for one part in this of the time has its files read,
	// and goes on having them read for a while, so that its totals can be compared.
	detailWait = 100
	detailKept = 5 * time.Second
	// As many who waited for a CPU are read in a tick. What changes from tick to tick takes
	// about 60 µs a cgroup, all of it about 100, and the weights some 10 for each level more.
	detailMost = 16
	// The machine is short of memory or io from this much pressure in a tick. Then as many
	// suspects are read with each tick, the worst by each figure.
	pressedSomePercent = 5
	suspectsByIO       = 12
	suspectsByMemory   = 6
	suspectsByPressure = 8
	// Everybody is read in turn, so that slow growth is seen: all within sweepRound where
	// they are few, and within calmRound where the machine is calm. Where they are many it is
	// as many as take one part in sweepPart of one CPU (2,000 cgroups in about a minute).
	sweepRound = 3 * time.Second
	calmRound  = 30 * time.Second
	sweepPart  = 250
)

// details decides whose files are read, and remembers what was in them.
type details struct {
	interest map[model.CgroupID]time.Time // when a cgroup last deserved to be read each tick
	suspects map[model.CgroupID]time.Time // and all of its files
	known    map[model.CgroupID]*knownDetail
	turn     []model.CgroupID // who is still to be read in this round
	owed     float64          // of the round, until now
}

// knownDetail is what was last read of a cgroup.
type knownDetail struct {
	whole   model.CgroupDetail
	weights []uint32
	grew    uint64 // memory and io pressure between the last two looks, µs
	round   bool   // seen in this round
}

func newDetails() details {
	return details{
		interest: make(map[model.CgroupID]time.Time),
		suspects: make(map[model.CgroupID]time.Time),
		known:    make(map[model.CgroupID]*knownDetail),
	}
}

// readDetails reads the files of those that others made wait most, where memory or io is
// short of those who may suffer or cause it, and of everybody in turn.
func (o *Observer) readDetails(s *model.Sample, before model.Host) {
	runtime.LockOSThread() // for its clock
	defer runtime.UnlockOSThread()
	now, d := time.Now(), &o.details

	at := make(map[model.CgroupID]int, len(s.Cgroups))
	for i := range s.Cgroups {
		at[s.Cgroups[i].ID] = i
	}
	// Who is read once has been read in this tick, so that those of whom all is read come first.
	o.sweep(s, at)
	d.suspect(s, before, now)
	began := cputime.Thread()
	for _, id := range slices.Sorted(maps.Keys(d.suspects)) {
		switch {
		case now.Sub(d.suspects[id]) >= detailKept:
			delete(d.suspects, id)
		case cputime.Thread()-began < o.tick/sparing:
			o.readDetail(s, at, id, true)
		}
	}
	waited, caused := waits(s)
	for _, id := range d.waiters(s, waited, now) {
		o.readDetail(s, at, id, false)
	}
	for _, id := range d.unreadOffenders(s, caused) {
		o.readDetail(s, at, id, true)
	}
	for i := range s.Cgroups {
		if k := d.known[s.Cgroups[i].ID]; k != nil {
			s.Cgroups[i].CPUWeights = k.weights
		}
	}
	// Of the others that wait it is known which had a quota when they were last looked at, if they
	// were. The root never has one.
	for id := range d.interest {
		k := d.known[id]
		if path, _ := o.tree.Path(id); k == nil && path != "/" || k != nil && k.whole.CPUMaxPercent > 0 {
			unread(s, at, id)
		}
	}
	slices.SortFunc(s.Cgroups, func(a, b model.CgroupSample) int { return cmp.Compare(a.ID, b.ID) })
}

// waits are how long, in nanoseconds, each cgroup waited for others in this tick, and made others wait.
func waits(s *model.Sample) (waited, caused map[model.CgroupID]uint64) {
	waited, caused = make(map[model.CgroupID]uint64), make(map[model.CgroupID]uint64)
	for _, w := range s.Waits {
		if w.By == model.ByCgroup && w.Offender != w.Victim {
			waited[w.Victim] += w.NS
			caused[w.Offender] += w.NS
		}
	}
	return waited, caused
}

// unreadOffenders are those that made others wait for a CPU in this tick, and were never read: their
// weight says whether they had a right to.
func (d *details) unreadOffenders(s *model.Sample, caused map[model.CgroupID]uint64) []model.CgroupID {
	return top(maps.Keys(caused), detailMost, func(id model.CgroupID) uint64 {
		if d.known[id] != nil || caused[id]*detailWait < uint64(s.LengthNS) {
			return 0
		}
		return caused[id]
	})
}

// waiters are those that others made wait for a CPU, in this tick or lately.
func (d *details) waiters(s *model.Sample, waited map[model.CgroupID]uint64, now time.Time) []model.CgroupID {
	for id, ns := range waited {
		if ns*detailWait >= uint64(s.LengthNS) {
			d.interest[id] = now
		}
	}
	maps.DeleteFunc(d.interest, func(_ model.CgroupID, since time.Time) bool { return now.Sub(since) >= detailKept })
	return top(maps.Keys(d.interest), detailMost, func(id model.CgroupID) uint64 { return waited[id] + 1 })
}

// suspect notes who may suffer or cause a shortage, if there is one in this tick.
func (d *details) suspect(s *model.Sample, before model.Host, now time.Time) {
	pressed := func(was, is model.Stall) bool {
		us := is.SomeUS - min(was.SomeUS, is.SomeUS)
		return float64(us)*1000*100 > pressedSomePercent*float64(s.LengthNS)
	}
	memory := pressed(before.Pressure.Memory, s.Host.Pressure.Memory)
	io := pressed(before.Pressure.IO, s.Host.Pressure.IO)
	if before.BootID == "" || s.Host.PressureAbsent || !memory && !io {
		return
	}
	var ids []model.CgroupID
	if io {
		held := make(map[model.CgroupID]uint64)
		for i := range s.Cgroups {
			if c := &s.Cgroups[i]; c.IOHeldNS > 0 {
				held[c.ID] = c.IOHeldNS
			}
		}
		ids = append(ids, top(maps.Keys(held), suspectsByIO, func(id model.CgroupID) uint64 { return held[id] })...)
	}
	if memory {
		ids = append(ids, top(maps.Keys(d.known), suspectsByMemory, func(id model.CgroupID) uint64 {
			k := d.known[id].whole
			return max(k.MemoryBytes, k.AnonBytes+k.ShmemBytes)
		})...)
	}
	ids = append(ids, top(maps.Keys(d.known), suspectsByPressure, func(id model.CgroupID) uint64 { return d.known[id].grew })...)
	for _, id := range ids {
		d.suspects[id] = now
	}
	// Those of a moment ago stay, up to a bound.
	const most = 2 * (suspectsByIO + suspectsByMemory + suspectsByPressure)
	if len(d.suspects) > most {
		for _, id := range top(maps.Keys(d.suspects), len(d.suspects), func(id model.CgroupID) uint64 { return uint64(now.Sub(d.suspects[id])) + 1 })[:len(d.suspects)-most] {
			delete(d.suspects, id)
		}
	}
}

// sweep reads those whose turn it is.
func (o *Observer) sweep(s *model.Sample, at map[model.CgroupID]int) {
	d := &o.details
	if len(d.turn) == 0 {
		d.turn = o.tree.IDs()
		maps.DeleteFunc(d.known, func(_ model.CgroupID, k *knownDetail) bool { return !k.round })
		for _, k := range d.known {
			k.round = false
		}
		d.owed = 0
	}
	round := sweepRound
	if o.rested() {
		round = calmRound
	}
	d.owed += float64(o.tree.Len()) * min(1, float64(s.Length())/float64(round))
	most := s.Length() / sweepPart
	for began := cputime.Thread(); d.owed >= 1 && len(d.turn) > 0 && cputime.Thread()-began < most; d.owed-- {
		id := d.turn[0]
		d.turn = d.turn[1:]
		o.readDetail(s, at, id, true)
	}
	d.owed = min(d.owed, float64(len(d.turn)))
}

// readDetail gives a cgroup of the sample its detail, once. One that was not active in the
// tick is added to it.
func (o *Observer) readDetail(s *model.Sample, at map[model.CgroupID]int, id model.CgroupID, whole bool) {
	i, active := at[id]
	if active && s.Cgroups[i].Detail != nil {
		return
	}
	path, ok := o.tree.Path(id)
	switch {
	case !ok:
		unread(s, at, id) // whoever made it may have hidden it
		return
	case path == "/":
		return // the root has no pressure but the host's, and no limits
	}
	k := o.details.known[id]
	whole = whole || k == nil
	detail, weights, err := readFiles(o.reader, path, whole)
	switch {
	case errors.Is(err, host.ErrGone):
		return // it has no detail
	case err != nil:
		unread(s, at, id) // whoever may make cgroups can forbid others to read their files
		return
	}
	if k == nil {
		k = &knownDetail{}
		o.details.known[id] = k
	} else {
		k.grew = troubled(&detail) - min(troubled(&k.whole), troubled(&detail))
		if !whole {
			keepSlow(&detail, &k.whole)
			detail.Repeated = true
			weights = k.weights
		}
	}
	k.whole, k.weights, k.round = detail, weights, true
	if !active {
		i = len(s.Cgroups)
		at[id] = i
		s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: id, Path: path})
	}
	s.Cgroups[i].Detail = &detail
}

// readFiles reads what changes from tick to tick, or all, the weights among it. Who has forbidden
// to read those counts as one that has none.
func readFiles(r host.Reader, path string, whole bool) (model.CgroupDetail, []uint32, error) {
	if !whole {
		detail, err := r.CgroupStalls(path)
		return detail, nil, err
	}
	detail, err := r.CgroupDetail(path)
	if err != nil {
		return detail, nil, err
	}
	weights, _ := r.CPUWeights(path)
	return detail, weights, nil
}

// unread notes that a cgroup of the sample may have a quota that was not read.
func unread(s *model.Sample, at map[model.CgroupID]int, id model.CgroupID) {
	if i, active := at[id]; active && s.Cgroups[i].Detail == nil {
		s.Cgroups[i].QuotaUnread = true
	}
}

// keepSlow fills in what is not read with each tick as it was read last, so that every
// detail is whole and a total never seems to go back.
func keepSlow(to, from *model.CgroupDetail) {
	to.AnonBytes, to.FileBytes, to.ShmemBytes = from.AnonBytes, from.FileBytes, from.ShmemBytes
	to.RefaultPages, to.ScanPages = from.RefaultPages, from.ScanPages
	to.MemoryMaxBytes, to.MemoryHighBytes = from.MemoryMaxBytes, from.MemoryHighBytes
	to.CPUMaxPercent, to.PIDsMax, to.IOLimited = from.CPUMaxPercent, from.PIDsMax, from.IOLimited
}

// troubled is the pressure that is not a CPU's, in µs.
func troubled(d *model.CgroupDetail) uint64 {
	if d.Pressure == nil {
		return 0
	}
	return d.Pressure.Memory.SomeUS + d.Pressure.IO.SomeUS
}

// top are those with the largest figures, at most n, the largest first; 0 is none.
func top(ids func(func(model.CgroupID) bool), n int, figure func(model.CgroupID) uint64) []model.CgroupID {
	var all []model.CgroupID
	for id := range ids {
		if figure(id) > 0 {
			all = append(all, id)
		}
	}
	slices.SortFunc(all, func(a, b model.CgroupID) int {
		return cmp.Or(cmp.Compare(figure(b), figure(a)), cmp.Compare(a, b))
	})
	return all[:min(len(all), n)]
}
