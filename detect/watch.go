// Package detect turns samples into incidents. It is pure: the same samples give the
// same incidents, on any machine and at any time; the only clock is the samples'.
//
// Each kind of incident has its own file and stands in the list that all returns.
package detect

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// detector is one kind of incident.
type detector interface {
	kind() model.Kind
	hold() time.Duration // how long a finding must last before an incident opens
	look(*window) []finding
	// measure gives each figure of the detector for one cgroup, also far below the threshold.
	measure(*window, model.CgroupID) []model.Measure
}

// all is the literal list of detectors. One that is covered by another stands behind it:
// see covered.
func all(cfg Config) []detector {
	return []detector{
		forkStorm{cfg.ForkStorm},
		cpuContention{cfg.CPUContention},
		noisyNeighbour{cfg.NoisyNeighbour},
		shortLivedJobs{cfg.ShortLivedJobs},
		memoryLeak{cfg.MemoryLeak},
		pressure{model.MemoryPressure, model.Memory, cfg.MemoryPressure},
		pressure{model.IOPressure, model.IO, cfg.IOPressure},
		psiSaturation{cfg.PSISaturation},
	}
}

// Kinds lists the kinds that this version can detect.
func Kinds() []model.Kind {
	var kinds []model.Kind
	for _, d := range all(Config{}) {
		kinds = append(kinds, d.kind())
	}
	return kinds
}

// Watch follows the samples and keeps the incidents.
type Watch struct {
	cfg       Config
	name      Namer
	window    *window
	detectors []detector
	tracks    map[model.Kind][]*track
}

// Namer says what people call the cgroup with this path.
type Namer func(path string) model.Workload

// NewWatch starts with nothing seen.
func NewWatch(cfg Config, name Namer) *Watch {
	return &Watch{
		cfg:       cfg,
		name:      name,
		window:    newWindow(cfg),
		detectors: all(cfg),
		tracks:    make(map[model.Kind][]*track),
	}
}

// SetConfig changes the thresholds from the next sample on. What is open stays open, and
// closes by the new ones.
func (w *Watch) SetConfig(cfg Config) {
	w.cfg, w.detectors = cfg, all(cfg)
	w.window.fair = fairnessOf(cfg)
}

// ChangeType says what happened to an incident.
type ChangeType string

// The changes of an incident.
const (
	Opened  ChangeType = "opened"
	Updated ChangeType = "updated"
	Closed  ChangeType = "closed"
)

// Change is an incident as it is after a tick.
type Change struct {
	Type     ChangeType
	Incident *model.Incident // of the watch: to be read before the next sample is fed
	// Active says that it is over its threshold in this tick, and not only still open
	// because it was a moment ago.
	Active bool
}

// track follows one culprit of one kind, from the first finding to the end of the
// incident.
type track struct {
	kind     model.Kind
	cgroup   model.CgroupID // 0: nobody stands out
	root     *node
	resource model.Resource  // that the victims wait for
	since    int64           // boot time of the first finding over the threshold
	below    int64           // boot time since when it is under the closing threshold; 0 if it is not
	incident *model.Incident // nil until it has been held long enough
	stall    map[model.CgroupID]float64
	seen     bool // in this tick
	active   bool // seen, and over the threshold
}

// Feed takes in the next sample and returns what became of the incidents: for every
// open one a change in each tick.
func (w *Watch) Feed(s *model.Sample) []Change {
	if broken := w.window.feed(s); broken {
		for kind, tracks := range w.tracks {
			w.tracks[kind] = keep(tracks, func(t *track) bool {
				t.below = 0 // what was quiet before says nothing about now
				return t.incident != nil
			})
		}
	}
	w.window.names.sweep(s.BootNS, w.spokenOf)
	var changes []Change
	for _, d := range w.detectors {
		changes = append(changes, w.follow(d, s)...)
	}
	return changes
}

// Keyframe is the process table as it is now, as a sample that a recording can begin with.
func (w *Watch) Keyframe() model.Sample {
	now := w.window.now()
	s := model.Sample{Time: now.Time, BootNS: now.BootNS, Keyframe: true, Host: now.Host, Procs: w.window.table.keyframe()}
	s.Cgroups = w.window.paths()
	return s
}

func (w *Watch) follow(d detector, s *model.Sample) []Change {
	for _, t := range w.tracks[d.kind()] {
		t.seen, t.active = false, false
	}
	var changes []Change
	opened := 0
	for _, f := range d.look(w.window) {
		f.resource = cmp.Or(f.resource, model.CPU)
		if w.covered(d.kind(), f) {
			if d.kind() != model.PSISaturation {
				continue
			}
			// That it lasts is still worth to be told, and no second trouble.
			f.severity = min(f.severity, hostwideInfo)
		}
		t := w.match(d.kind(), f)
		switch {
		case t == nil && f.ratio >= 1:
			t = &track{kind: d.kind(), cgroup: f.cgroup, root: f.root, resource: f.resource, since: s.BootNS}
			w.tracks[d.kind()] = append(w.tracks[d.kind()], t)
		case t == nil:
			continue
		}
		t.seen, t.active = true, f.ratio >= 1
		if t.incident == nil {
			if f.ratio < 1 {
				t.seen = false // it starts again from nothing
				continue
			}
			t.root, t.cgroup = f.root, f.cgroup
			// Half a tick early is better than a whole one late.
			if s.BootNS-t.since < int64(d.hold())-s.LengthNS/2 || opened == mostOpened {
				continue
			}
			opened++
			w.open(t, f, s)
			changes = append(changes, Change{Opened, t.incident, true})
			continue
		}
		w.update(t, f)
		if f.ratio >= w.cfg.Hysteresis.CloseBelow {
			t.below = 0
		} else if t.below == 0 {
			t.below = s.BootNS
		}
	}
	return append(changes, w.settle(d.kind(), s)...)
}

const (
	// mostOpened is how many incidents of a kind open in one tick; the others follow in the
	// next. What a person would look at is captured for each.
	mostOpened = 4
	// Where more of a kind are open, those that are quiet are closed at once. There is more
	// room than one tick has findings.
	mostOpen = 2 * maxFindings
)

// settle forgets what was not seen again before it opened, and closes what has been
// quiet for long enough.
func (w *Watch) settle(kind model.Kind, s *model.Sample) []Change {
	var changes []Change
	open := 0
	for _, t := range w.tracks[kind] {
		if t.incident != nil {
			open++
		}
	}
	w.tracks[kind] = keep(w.tracks[kind], func(t *track) bool {
		if t.incident == nil {
			return t.seen
		}
		if !t.seen && t.below == 0 {
			t.below = s.BootNS
		}
		t.addStall(w.window.waits[len(w.window.waits)-1])
		w.listVictims(t)
		if t.below != 0 && (open > mostOpen || s.BootNS-t.below >= w.cfg.Hysteresis.CloseAfter.D().Nanoseconds()) {
			open--
			closed := s.Time
			t.incident.State, t.incident.ClosedAt = model.Closed, &closed
			changes = append(changes, Change{Closed, t.incident, false})
			return false
		}
		if !t.incident.OpenedAt.Equal(s.Time) {
			changes = append(changes, Change{Updated, t.incident, t.active})
		}
		return true
	})
	return changes
}

// match finds the track that a finding continues: the same tree, or the same cgroup
// where the tree's root has ended or the one is part of the other.
func (w *Watch) match(kind model.Kind, f finding) *track {
	var same *track
	for _, t := range w.tracks[kind] {
		if t.resource != f.resource || t.seen {
			continue
		}
		// Pressure of the whole host goes on whoever stands out in this tick.
		if f.hostwide && t.incident == nil {
			same = cmp.Or(same, t)
			continue
		}
		if t.cgroup != f.cgroup {
			continue
		}
		if t.root == f.root {
			return t
		}
		if t.root == nil || f.root == nil || t.root.ended || t.root.within(f.root) || f.root.within(t.root) {
			if same == nil || same.incident == nil {
				same = t
			}
		}
	}
	return same
}

func (w *Watch) open(t *track, f finding, s *model.Sample) {
	t.incident = &model.Incident{
		ID:           incidentID(t, s),
		Kind:         t.kind,
		Estimated:    f.estimated,
		State:        model.Open,
		OpenedAt:     s.Time,
		Evidence:     map[string]float64{},
		Victims:      []model.Victim{},
		Contributors: []model.Contributor{},
		Decisions:    []model.DecisionRecord{},
	}
	// What led to it counts: the victims waited before anybody was sure.
	t.stall = make(map[model.CgroupID]float64)
	_, covered := w.window.last(hurtSpan)
	for _, h := range f.victims {
		t.stall[h.victim] = 0
	}
	earlier := w.window.waits[:len(w.window.waits)-1]
	for _, before := range earlier[min(len(earlier), w.window.index(hurtSpan)):] {
		t.addStall(before)
	}
	if t.incident.Estimated {
		t.estimateStall(f, covered-s.Length())
	}
	w.describe(t, f)
	w.update(t, f)
	t.incident.Triage = w.triage(t)
}

// update keeps the figures of the worst moment, and the culprit's size and how sure that
// verdict is as they are now.
func (w *Watch) update(t *track, f finding) {
	in := t.incident
	if in.Culprit.Known() && f.largest != nil && (in.Culprit.Root.IsZero() || t.root != nil && t.root.ended && f.root != nil) {
		// It had just been moved to its cgroup when the incident opened, and who is in
		// there was not known yet; or its root has ended, and somebody goes on.
		t.root = f.root
		w.identify(t, f)
	}
	if in.Culprit.Known() && in.Culprit.Cgroup == "" {
		w.locate(&in.Culprit) // its cgroup had just been made, or could not be looked into
	}
	if f.root == t.root {
		in.Culprit.Processes, in.Culprit.Outside = f.members, f.outside
	} else if members, outside, ok := w.window.table.size(t.cgroup, t.root); ok {
		in.Culprit.Processes, in.Culprit.Outside = members, outside // whoever is looked at in this tick
	}
	for _, h := range f.victims {
		if _, known := t.stall[h.victim]; !known {
			t.stall[h.victim] = 0
		}
	}
	if in.Estimated {
		t.estimateStall(f, w.window.now().Length())
	}
	w.window.markGaps(in.Evidence)
	if f.ratio >= 1 { // of what is over, the last that was sure of it says more
		in.Confidence, in.Margin = round3(clamp(f.confidence)), round3(clamp(f.margin))
	}
	if severity := round3(clamp(f.severity)); severity > in.Severity {
		in.Severity = severity
		in.Level = model.LevelOf(severity)
		maps.Copy(in.Evidence, f.evidence)
		in.Summary = f.explain(culpritName(in.Culprit), w.victimNames(f.victims))
	}
}

// covered says that an incident is told already by another that is open: the machine as
// a whole says more than two neighbours, and who makes a pressure more than that there is
// one.
func (w *Watch) covered(kind model.Kind, f finding) bool {
	is := func(by model.Kind, same func(*track) bool) bool {
		return slices.ContainsFunc(w.tracks[by], func(t *track) bool { return t.incident != nil && same(t) })
	}
	sameCgroup := func(t *track) bool { return t.cgroup == f.cgroup }
	switch kind {
	case model.NoisyNeighbour:
		return is(model.CPUContention, sameCgroup)
	case model.PSISaturation:
		anybody := func(*track) bool { return true }
		switch f.resource {
		case model.CPU:
			return is(model.CPUContention, anybody)
		case model.Memory:
			return is(model.MemoryPressure, anybody)
		case model.IO:
			return is(model.IOPressure, anybody)
		}
	}
	return false
}

func keep(tracks []*track, want func(*track) bool) []*track {
	kept := tracks[:0]
	for _, t := range tracks {
		if want(t) {
			kept = append(kept, t)
		}
	}
	return kept
}
