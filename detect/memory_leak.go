package detect

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// MemoryLeakConfig are the thresholds of memory_leak.
type MemoryLeakConfig struct {
	// Horizon is how soon it must meet its limit, or the host's memory, if it goes on.
	Horizon config.Duration `json:"horizon" yaml:"horizon" doc:"How soon it must meet its limit, or the host's memory, if it goes on." range:"1s..1h"`
	// MinGrowth is how much it must have grown.
	MinGrowth config.Size `json:"min_growth" yaml:"min_growth" doc:"How much it must have grown." range:"1MiB..1TiB"`
	// MinGrowthPercent is how much it must have grown, of what it had.
	MinGrowthPercent float64 `json:"min_growth_percent" yaml:"min_growth_percent" doc:"How much it must have grown, in percent of what it had." range:"0.1..1000"`
	// RisingPercent is how many of its steps must have risen.
	RisingPercent float64 `json:"rising_percent" yaml:"rising_percent" doc:"How many of its steps must have risen, in percent." range:"50..100"`
	// MinObservation is how long it must have been seen to grow, at least.
	MinObservation config.Duration `json:"min_observation" yaml:"min_observation" doc:"How long it must have been seen to grow, at least." range:"1s..1h"`
}

const (
	// It must have been seen for this part of the time that is left: ten seconds where it
	// would be over in a minute, ten minutes where in an hour. What has not yet eaten a
	// part of what there is says little about the rest.
	observedPart = 1.0 / 6
	// A leak that hits in less than this is critical.
	leakCritical = time.Minute
	// Figures older than this say nothing about now.
	leakStale = 45 * time.Second
	// What processes share counts for each of them, and old recordings do not tell the files
	// that are mapped apart. So where nobody counts the cgroup's own, the host's available memory
	// must have fallen by this part of the growth.
	unavailablePart = 0.5
	// Who accounts for less than this part of what the host has lost of late, and has less
	// than that of all that is taken, meets what others took: he may have grown like this for
	// ever. Nobody is sure then.
	lostPart, takenPart = 0.5, 0.25
	lostSpan            = 15 * time.Minute // as long as is kept
	// Of so many that grow it is looked whether one below them does: slices of a deep tree, above all.
	mostLeaks  = 16 * maxFindings
	othersMost = 0.4 // confidence
)

// memoryLeak sees memory that grows steadily towards a limit.
type memoryLeak struct{ cfg MemoryLeakConfig }

func (d memoryLeak) kind() model.Kind    { return model.MemoryLeak }
func (d memoryLeak) hold() time.Duration { return 0 } // the trend is long enough

// leak is a trend, and what it leads to.
type leak struct {
	trend
	limit  float64       // bytes
	source string        // whose limit it is
	left   time.Duration // until it is met
	ratio  float64
	// Others took the memory that it meets.
	others bool
}

func (d memoryLeak) look(w *window) []finding {
	type candidate struct {
		id model.CgroupID
		leak
	}
	var leaks []candidate
	for _, id := range w.ledger.candidates(float64(d.cfg.MinGrowth) / 2) { // half way is told, too
		if l, ok := d.worst(w, id); ok && l.ratio >= 0.5 {
			leaks = append(leaks, candidate{id, l})
		}
	}
	slices.SortStableFunc(leaks, func(a, b candidate) int { return cmp.Compare(b.ratio, a.ratio) })
	var found []finding
	for _, c := range leaks[:min(len(leaks), mostLeaks)] {
		if len(found) < maxFindings && !w.grewBelow(c.id, c.trend) {
			found = append(found, d.judge(w, c.id, c.leak))
		}
	}
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(b.severity, a.severity) })
	return found
}

// grewBelow reports whether most of a cgroup's growth is that of a single one below it:
// memory.stat counts all that is below, so that a leak is one of each slice that holds it,
// up to the root.
func (w *window) grewBelow(id model.CgroupID, t trend) bool {
	path := w.ledger.accounts[id].path
	if path == "" {
		return false
	}
	grown := t.last - t.first
	below := path + "/"
	for _, a := range w.ledger.accounts {
		if !strings.HasPrefix(a.path, below) {
			continue
		}
		s := &a.anon
		if len(s.fine) < 2 {
			s = &a.own
		}
		grew := float64(s.growth(t.span)) >= dominant*grown
		// Who has as much, and was not followed for as long, may have grown by all of it.
		unknown := s.followed() < t.span && s.last() >= dominant*grown
		if grew || unknown {
			return true
		}
	}
	return false
}

// worst is the trend of a cgroup that leads furthest, of the last minute or the last
// quarter of an hour: of what memory.stat says where somebody reads it, else of its processes.
func (d memoryLeak) worst(w *window, id model.CgroupID) (leak, bool) {
	a := w.ledger.accounts[id]
	if a == nil {
		return leak{}, false
	}
	now := w.now().BootNS
	s, resident := &a.anon, false
	if len(s.fine) < fewestPoints || now-s.seen > int64(leakStale) {
		// Where memory.stat is there, but rarely read, it must not contradict.
		if n := len(s.fine); n >= 2 && s.fine[n-1].pages <= s.fine[0].pages {
			return leak{}, false
		}
		s, resident = &a.own, true
	}
	if now-s.seen > int64(leakStale) {
		return leak{}, false
	}
	if a.judged == s.seen { // nothing new
		return a.leak, a.leaks
	}
	a.judged, a.leaks = s.seen, false
	for _, t := range s.trends(float64(d.cfg.MinGrowth)/2, d.cfg.RisingPercent/100/2) {
		if l := d.lead(w, a, t, resident); !a.leaks || l.ratio > a.leak.ratio {
			a.leak, a.leaks = l, true
		}
	}
	return a.leak, a.leaks
}

// lead says where a trend leads.
func (d memoryLeak) lead(w *window, a *memoryAccount, t trend, resident bool) leak {
	l := leak{trend: t, source: "the host's memory"}
	h := &w.now().Host
	room := float64(h.MemAvailBytes)
	l.limit = t.last + room
	if a.limit > 0 && float64(a.limit)-t.last < room {
		l.limit, l.source = float64(a.limit), "its limit"
		room = max(0, l.limit-t.last)
	} else {
		l.others = w.othersTook(a, t, resident)
	}
	grown := t.last - t.first
	pace := min(t.perSecond, t.recent)
	if pace <= 0 || grown <= 0 || h.MemTotalBytes == 0 && a.limit == 0 {
		return l
	}
	seconds := room / pace
	l.left = time.Duration(min(seconds, 1e6) * 1e9)
	if t.recent < t.perSecond/2 || t.ahead() < room {
		return l // it comes to rest
	}
	if resident && w.ledger.fallen(t.span) < unavailablePart*grown {
		return l
	}
	needed := max(d.cfg.MinObservation.D().Seconds(), observedPart*seconds)
	l.ratio = min(
		d.cfg.Horizon.D().Seconds()/max(seconds, 1),
		grown/float64(d.cfg.MinGrowth),
		grown/max(1, t.first)*100/d.cfg.MinGrowthPercent,
		t.rising*100/d.cfg.RisingPercent,
		// A reading comes a moment late.
		t.span.Seconds()/(0.95*needed),
	)
	return l
}

// othersTook reports whether most of what the host has lost, over the trend and for as long
// as the cgroup is followed, is not the cgroup's growth, and most of what is taken not its own.
func (w *window) othersTook(a *memoryAccount, t trend, resident bool) bool {
	h := &w.now().Host
	if t.last >= takenPart*(float64(h.MemTotalBytes)-float64(h.MemAvailBytes)) {
		return false
	}
	s := &a.anon
	if resident {
		s = &a.own
	}
	long := min(s.followed(), lostSpan)
	return t.last-t.first < lostPart*w.ledger.fallen(t.span) || float64(s.growth(long)) < lostPart*w.ledger.fallen(long)
}

func (d memoryLeak) judge(w *window, id model.CgroupID, l leak) finding {
	s := w.culprit(id, w.grown(id))
	f := finding{
		suspect: s, cgroup: id, resource: model.Memory, ratio: l.ratio,
		// Growth is counted, and compared with nobody's. How sure it is that it goes on is
		// a matter of how evenly it went.
		confidence: min(1, l.rising) * w.trust(hurtSpan), margin: 1,
	}
	if l.others {
		f.confidence = min(f.confidence, othersMost)
	}
	// An hour off is a warning; in a minute it is over.
	horizon := max(d.cfg.Horizon.D(), 2*leakCritical)
	near := 1 - math.Log(max(1, l.left.Seconds()/leakCritical.Seconds()))/math.Log(horizon.Seconds()/leakCritical.Seconds())
	f.severity = model.WarningSeverity + (model.CriticalSeverity-model.WarningSeverity)*clamp(near)
	if l.left < leakCritical {
		f.severity += (1 - model.CriticalSeverity) * (1 - l.left.Seconds()/leakCritical.Seconds())
	}
	const mb = 1 << 20
	f.evidence = map[string]float64{
		"memory_mb":            round(l.last / mb),
		"growth_mb":            round((l.last - l.first) / mb),
		"growth_mb_per_second": round(l.perSecond / mb),
		"limit_mb":             round(l.limit / mb),
		"time_left_s":          round(l.left.Seconds()),
		"observed_s":           round(l.span.Seconds()),
		"rising_percent":       round(100 * l.rising),
	}
	f.explain = func(name string, _ []string) string {
		return fmt.Sprintf("%s grows steadily: by %.0f MB within %v, to %.0f MB, and it does not slow down. If it goes on it meets %s in %v.",
			name, (l.last-l.first)/mb, l.span.Round(time.Second), l.last/mb, l.source, l.left.Round(time.Second))
	}
	return f
}

// mild is the trend of what is kept finely, where it is too small for a finding.
func (d memoryLeak) mild(w *window, cgroup model.CgroupID) (leak, bool) {
	a := w.ledger.accounts[cgroup]
	if a == nil {
		return leak{}, false
	}
	s, resident := &a.anon, false
	if len(s.fine) < fewestPoints {
		s, resident = &a.own, true
	}
	t, ok := trendOf(s.fine)
	if !ok {
		return leak{}, false
	}
	return d.lead(w, a, t, resident), true
}

func (d memoryLeak) measure(w *window, cgroup model.CgroupID) []model.Measure {
	l, ok := d.worst(w, cgroup)
	if !ok {
		l, ok = d.mild(w, cgroup)
	}
	needed := max(d.cfg.MinObservation.D().Seconds(), observedPart*l.left.Seconds())
	left := model.Measure{Name: "time_left_s", Threshold: d.cfg.Horizon.D().Seconds(), Known: ok && l.left > 0}
	if left.Known {
		left.Value = round(l.left.Seconds())
		left.Met = l.left <= d.cfg.Horizon.D()
	}
	steadily := 0.0 // of the growth before, what goes on
	if l.early > 0 {
		steadily = 100 * l.recent / l.early
	}
	measures := []model.Measure{
		known("growth_mb", (l.last-l.first)/(1<<20), ok, float64(d.cfg.MinGrowth)/(1<<20)),
		known("growth_percent", 100*(l.last-l.first)/max(1, l.first), ok, d.cfg.MinGrowthPercent),
		known("rising_percent", 100*l.rising, ok, d.cfg.RisingPercent),
		known("steady_percent", steadily, ok && l.early > 0, 100*steady),
		known("observed_s", l.span.Seconds(), ok, round(needed)),
		left,
	}
	a := w.ledger.accounts[cgroup]
	if a == nil || !ok {
		return measures
	}
	byItself := 1.0 // and not by that of one below it
	if w.grewBelow(cgroup, l.trend) {
		byItself = 0
	}
	measures = append(measures, over("grew_by_itself", byItself, 1))
	if len(a.anon.fine) < fewestPoints && l.last > l.first { // nobody counts the cgroup's own
		measures = append(measures, over("available_fell_percent", 100*w.ledger.fallen(l.span)/(l.last-l.first), 100*unavailablePart))
	}
	return measures
}
