package history

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// revision counts changes, and knows which of them is written.
type revision struct{ now, written uint64 }

func (r *revision) change()         { r.now++ }
func (r revision) isWritten() bool  { return r.now == r.written }
func (r *revision) wrote(at uint64) { r.written = max(r.written, at) }

// partLength is how many verdicts or moments are packed together: enough that they
// share what they have in common, and few enough that the last part is soon rewritten.
const partLength = 32

// part is a run of what belongs to an incident. Only the last one grows.
type part[T any] struct {
	revision
	no    int
	items []T
}

// series is the parts that are not written yet, and the last one.
type series[T any] struct {
	numbering
	parts []*part[T]
	next  int // number of the next part
}

// numbering says after which parts of the file those of a series come, once it is found out:
// of an incident that was forgotten and then heard of again, there are some.
type numbering struct {
	found  bool
	offset int
}

// last is the part to add to; nil if there is none with room.
func (r *series[T]) last() *part[T] {
	if len(r.parts) == 0 || len(r.parts[len(r.parts)-1].items) >= partLength {
		return nil
	}
	return r.parts[len(r.parts)-1]
}

func (r *series[T]) add(v T) {
	p := r.last()
	if p == nil {
		p = &part[T]{no: r.next}
		r.next++
		r.parts = append(r.parts, p)
	}
	p.items = append(p.items, v)
	p.change()
}

// settle forgets what is written, but for the last part.
func (r *series[T]) settle() {
	for len(r.parts) > 1 && r.parts[0].isWritten() {
		r.parts = r.parts[1:]
	}
}

// entry is what is kept in memory of an incident: until it is over, and written.
type entry struct {
	revision
	id       string
	row      int64           // 0 until it is written
	incident *model.Incident // as it was told last; nil if only of verdicts
	host     *model.Host
	triaged  bool // its triage is written
	asked    questions
	verdicts series[model.Verdict]
	moments  series[model.Moment]
	holds    []*hold // that have not ended

	seen    int // moments
	from    *model.Sample
	forks   uint64
	runNS   uint64
	stallMS float64 // of all victims, at the last moment
}

func (e *entry) open() bool { return e.incident != nil && e.incident.State == model.Open }

// update takes in the incident as it is now.
func (e *entry) update(in *model.Incident) {
	e.incident = in
	e.change()
}

// forget lets everything be written once more.
func (e *entry) forget() {
	e.row, e.triaged, e.written, e.asked.written = 0, false, 0, 0
	e.change()
	e.verdicts.numbering, e.moments.numbering = numbering{}, numbering{}
	for _, p := range e.verdicts.parts {
		p.written = 0
	}
	for _, p := range e.moments.parts {
		p.written = 0
	}
}

// questions are what the policies were asked about an incident: the first time and the last.
type questions struct {
	revision
	inputs []json.RawMessage
}

// maxInput bounds what is kept of an input: one of an incident with a dozen victims has 6 KB.
const maxInput = 32 << 10

// add takes in an input, unless it is too large to be kept.
func (q *questions) add(input json.RawMessage) {
	if len(input) > maxInput {
		return
	}
	if len(q.inputs) == 2 { // what was taken to be written is not to change
		q.inputs = q.inputs[:1:1]
	}
	q.inputs = append(q.inputs, input)
	q.change()
}

// done says that nothing more is expected.
func (e *entry) done() bool {
	return !e.open() && len(e.holds) == 0 && e.isWritten()
}

// repeats reports whether a verdict would only be counted.
func (e *entry) repeats(v *model.Verdict) bool {
	p := e.verdicts.parts
	if len(p) == 0 {
		return false
	}
	last := p[len(p)-1].items
	return v.Repeats(&last[len(last)-1])
}

// add takes in a verdict, and reports whether it is a new one.
func (e *entry) add(v model.Verdict) bool {
	e.change()
	v.Times, v.LastAt = max(1, v.Times), v.At
	if e.repeats(&v) {
		p := e.verdicts.parts[len(e.verdicts.parts)-1]
		last := &p.items[len(p.items)-1]
		last.Times += v.Times
		last.LastAt = v.At
		p.change()
		return false
	}
	e.verdicts.add(v)
	return true
}

// What is seen around an incident: a moment is about a second while it is young, and
// longer the longer it goes on, so that one which lasts for days is not forgotten.
const (
	lookBack    = 8 * time.Second
	maxBefore   = 256 // samples; at the shortest tick more than lookBack
	youngFor    = 120 // moments of one second
	middleFor   = 240 // of ten seconds from there to here
	maxMoments  = 480 // of a minute from there to here, and then no more
	momentYoung = time.Second
	momentLater = 10 * time.Second
	momentOld   = time.Minute
)

// remember keeps the samples of the last seconds. They share their cgroups with those of
// the detectors, which look back as far.
func (s *Store) remember(sample *model.Sample) {
	light := *sample
	light.Procs, light.Waits, light.IOHolds = model.ProcChanges{}, nil, nil
	if n := len(s.before); n > 0 && (s.before[n-1].BootNS >= sample.BootNS || s.before[n-1].Host.BootID != sample.Host.BootID) {
		s.before = nil
	}
	s.before = append(s.before, &light)
	old := max(0, len(s.before)-maxBefore)
	for sample.BootNS-s.before[old].BootNS > int64(lookBack) {
		old++
	}
	s.before = slices.Delete(s.before, 0, old)
}

// lookBack tells the moments before the incident opened.
func (e *entry) lookBack(before []*model.Sample, in *model.Incident) {
	e.incident = in
	for i := range before {
		e.watch(before[:i+1])
	}
	e.stallMS = stallOf(in.Victims)
}

// watch takes in the last of the samples, and reports whether a moment is full.
func (e *entry) watch(samples []*model.Sample) bool {
	s := samples[len(samples)-1]
	if e.from == nil || e.from.BootNS >= s.BootNS || e.seen >= maxMoments {
		e.from, e.forks, e.runNS = s, 0, 0
		return false
	}
	if of := e.incident.Culprit.CgroupID; of != 0 {
		for i := range s.Cgroups {
			if s.Cgroups[i].ID == of {
				e.forks += s.Cgroups[i].Forks
				e.runNS += s.Cgroups[i].RunNS
				break
			}
		}
	}
	length := time.Duration(s.BootNS - e.from.BootNS)
	least := momentOld
	switch {
	case e.seen < youngFor:
		least = momentYoung
	case e.seen < middleFor:
		least = momentLater
	}
	if length < least {
		return false
	}
	was, is := &e.from.Host.Pressure, &s.Host.Pressure
	percent := func(was, is uint64) float64 {
		if is < was {
			return 0
		}
		return round1(float64(is-was) / float64(length.Microseconds()) * 100)
	}
	stall := stallOf(e.incident.Victims)
	e.moments.add(model.Moment{
		At: s.Time, LengthMS: float64(length.Milliseconds()),
		CPUPercent: percent(was.CPU.SomeUS, is.CPU.SomeUS), MemoryPercent: percent(was.Memory.SomeUS, is.Memory.SomeUS), IOPercent: percent(was.IO.SomeUS, is.IO.SomeUS),
		RunMS: float64(e.runNS / 1e6), Forks: e.forks, StallMS: round1(max(0, stall-e.stallMS)),
	})
	e.seen++
	e.from, e.forks, e.runNS, e.stallMS = s, 0, 0, stall
	e.change()
	return true
}

func round1(v float64) float64 { return float64(int64(v*10+0.5)) / 10 }

func stallOf(victims []model.Victim) (sum float64) {
	for i := range victims {
		sum += victims[i].StallMS
	}
	return sum
}

// hold is a lease that is followed.
type hold struct {
	revision
	model.Hold
	row int64  // 0 until it is written
	of  *entry // nil where its incident is not known
}

// begin notes what the victims had waited before.
func (h *hold) begin(e *entry) {
	h.of = e
	e.holds = append(e.holds, h)
	if e.incident != nil {
		h.Before = slices.Clone(e.incident.Victims)
	}
}

// change takes in the lease as it is now.
func (h *hold) change(l model.Lease) {
	h.Lease = l
	h.revision.change()
	if l.State == model.LeaseEnded && h.of != nil {
		h.of.holds = slices.DeleteFunc(h.of.holds, func(x *hold) bool { return x == h })
		h.of = nil
	}
}

// measure says how long each victim has waited since the lease began.
func (h *hold) measure(in *model.Incident) {
	h.revision.change()
	h.During = make([]model.Victim, 0, len(in.Victims))
	for _, v := range in.Victims {
		for i := range h.Before {
			if b := &h.Before[i]; b.CgroupID == v.CgroupID && b.Resource == v.Resource {
				v.StallMS = max(0, v.StallMS-b.StallMS)
			}
		}
		h.During = append(h.During, v)
	}
}
