package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Bounds of a report, so that a week in which a thousand things were held is read, and
// written, too.
const (
	maxHolds    = 100
	maxRows     = 50
	maxKeys     = 5000 // of what is counted by name
	maxCharts   = 6
	maxNames    = 5
	maxFlapLook = 64 // holds of one target that are compared
	laneSlots   = 1000
)

const (
	// flapHolds is how often the same has to be held, each time within flapGap of the
	// last, before it is said to flap.
	flapHolds = 3
	flapGap   = 15 * time.Minute
	// helpedMS is how much stall has to be spared before a hold is said to have helped.
	helpedMS = 100
)

// Builder takes in one story after the other, and keeps only what a report says of them.
type Builder struct {
	report   Report
	kinds    map[model.Kind]*KindCount
	policies map[string]*Policy
	victims  map[victimKey]*Spared
	others   map[targetKey]*OtherHit
	guards   map[string]*Guard
	targets  map[targetKey][]Flap // one for each hold
	unable   map[targetKey]*Refusal
	failed   map[targetKey]*Refusal
	lanes    map[laneKey][]uint8
	leftOut  map[string]int
}

type victimKey struct {
	cgroup   string
	resource model.Resource
}

type targetKey struct{ policy, cgroup string }

type laneKey struct {
	holds bool
	name  string
}

// New begins a report over a stretch of time.
func New(since, until time.Time) *Builder {
	return &Builder{
		report: Report{Since: since.UTC(), Until: until.UTC(), Holds: []Hold{}, Charts: []Chart{}},
		kinds:  map[model.Kind]*KindCount{}, policies: map[string]*Policy{}, victims: map[victimKey]*Spared{}, others: map[targetKey]*OtherHit{},
		guards: map[string]*Guard{}, targets: map[targetKey][]Flap{}, unable: map[targetKey]*Refusal{}, failed: map[targetKey]*Refusal{},
		lanes: map[laneKey][]uint8{}, leftOut: map[string]int{},
	}
}

// Of is the report of a chronicle.
func Of(c *model.Chronicle) *Report {
	b := New(c.Since, c.Until)
	for i := range c.Stories {
		b.Add(&c.Stories[i])
	}
	return b.Report(c.Began)
}

// Add takes in a story.
func (b *Builder) Add(s *model.Story) {
	b.incident(s)
	spoke := make(map[*Policy]bool) // about this incident
	refusedBy := make(map[string]bool)
	infeasible := make(map[*Policy]bool)
	for i := range s.Verdicts {
		v := &s.Verdicts[i]
		if v.LastAt.Before(b.report.Since) || v.At.After(b.report.Until) {
			continue
		}
		p := b.policy(v.Policy, v.At, v.LastAt)
		if p != nil {
			spoke[p] = true
			p.hash(v.PolicyHash)
		}
		b.verdict(s, v, p, refusedBy)
		if v.RefusedBy == "feasibility" && p != nil {
			infeasible[p] = true
		}
	}
	for p := range infeasible {
		p.Infeasible++
	}
	for i := range s.Holds {
		h := &s.Holds[i]
		if at := begun(h); at.Before(b.report.Since) || at.After(b.report.Until) {
			continue
		}
		b.hold(s, h)
	}
	for p := range spoke {
		p.Incidents++
	}
	if len(spoke) == 0 && s.Level != model.Info {
		b.report.Totals.Unanswered++
	}
}

// count finds or makes what is counted under a key; nil where there are too many.
func count[K comparable, V any](b *Builder, all map[K]*V, key K, what string) (v *V, fresh bool) {
	if v, known := all[key]; known {
		return v, false
	}
	if len(all) >= maxKeys {
		b.leftOut[what]++
		return nil, false
	}
	v = new(V)
	all[key] = v
	return v, true
}

func (b *Builder) incident(s *model.Story) {
	t := &b.report.Totals
	t.Incidents++
	k, fresh := count(b, b.kinds, s.Kind, "kinds")
	if k == nil {
		return
	}
	if fresh {
		k.Kind = s.Kind
	}
	k.Count++
	weight := 1
	switch s.Level {
	case model.Warning:
		k.Warning++
		t.Trouble++
		weight = 2
	case model.Critical:
		k.Critical++
		t.Trouble++
		weight = 3
	}
	for _, v := range s.Incident.Victims {
		k.StallMS += v.StallMS
	}
	until := b.report.Until
	if s.ClosedAt != nil {
		until = *s.ClosedAt
	}
	b.mark(laneKey{false, string(s.Kind)}, s.OpenedAt, until, weight)
}

// mark marks a stretch of a lane.
func (b *Builder) mark(key laneKey, from, until time.Time, weight int) {
	slots := b.lanes[key]
	if slots == nil {
		if len(b.lanes) >= maxRows {
			b.leftOut["lines of the timeline"]++
			return
		}
		slots = make([]uint8, laneSlots)
		b.lanes[key] = slots
	}
	whole := b.report.Until.Sub(b.report.Since)
	if whole <= 0 {
		return
	}
	slot := func(at time.Time) int {
		return min(max(int(float64(at.Sub(b.report.Since))/float64(whole)*laneSlots), 0), laneSlots-1)
	}
	for i := slot(from); i <= slot(until); i++ {
		slots[i] = max(slots[i], uint8(weight))
	}
}

func (b *Builder) policy(name string, first, last time.Time) *Policy {
	if name == "" {
		return nil
	}
	p, fresh := count(b, b.policies, name, "policies")
	if p == nil {
		return nil
	}
	if fresh {
		*p = Policy{Policy: name, FirstAt: first, LastAt: last, Hashes: []string{}}
	}
	if first.Before(p.FirstAt) {
		p.FirstAt = first
	}
	if last.After(p.LastAt) {
		p.LastAt = last
	}
	return p
}

func (p *Policy) hash(hash string) {
	if hash != "" && len(p.Hashes) < maxNames && !slices.Contains(p.Hashes, hash) {
		p.Hashes = append(p.Hashes, hash)
	}
}

// verdict counts a refusal or a failure; what was held is told by its lease.
func (b *Builder) verdict(s *model.Story, v *model.Verdict, p *Policy, refusedBy map[string]bool) {
	t := &b.report.Totals
	times := max(1, v.Times)
	key := targetKey{v.Policy, s.Culprit.Cgroup}
	switch {
	case v.Error != "":
		t.Failed += times
		if p != nil {
			p.Failed += times
			p.failure = cmp.Or(p.failure, v.Error)
		}
		b.refusal(b.failed, key, "", v.Error, times)
		return
	case v.RefusedBy == "":
		return
	case v.RefusedBy == "policy":
		t.Denied += times
		if p != nil {
			p.Denied += times
		}
	default:
		t.Refused += times
		if p != nil {
			p.Refused += times
			if v.RefusedBy == "protected" {
				p.Protected += times
			}
		}
	}
	if v.RefusedBy == "feasibility" || v.RefusedBy == "bystanders" {
		b.refusal(b.unable, key, v.RefusedBy, v.Reason, times)
	}
	g, fresh := count(b, b.guards, v.RefusedBy, "guards")
	if g == nil {
		return
	}
	if fresh {
		*g = Guard{Guard: v.RefusedBy, Policies: []string{}, Example: v.Reason, Cgroup: s.Culprit.Cgroup}
	}
	g.Times += times
	if !refusedBy[v.RefusedBy] {
		refusedBy[v.RefusedBy] = true
		g.Incidents++
	}
	if v.Policy != "" && len(g.Policies) < maxNames && !slices.Contains(g.Policies, v.Policy) {
		g.Policies = append(g.Policies, v.Policy)
	}
}

func (b *Builder) refusal(all map[targetKey]*Refusal, key targetKey, guard, why string, times int) {
	r, fresh := count(b, all, key, "refusals")
	if r == nil {
		return
	}
	if fresh {
		*r = Refusal{Cgroup: key.cgroup, Policy: key.policy, Guard: guard, Why: why}
	}
	r.Times += times
}

// begun is when a lease was held, or was to be.
func begun(h *model.Hold) time.Time {
	if h.HeldAt != nil {
		return *h.HeldAt
	}
	return h.CreatedAt
}

func (b *Builder) hold(s *model.Story, h *model.Hold) {
	if h.HeldAt == nil {
		return // it never was: its verdict says why
	}
	d := &h.Decision
	end := h.ExpiresAt
	if h.EndedAt != nil {
		end = *h.EndedAt
	}
	if end.After(b.report.Until) {
		end = b.report.Until
	}
	row := Hold{
		ID: h.ID, Incident: s.ID, Kind: s.Kind, Policy: d.Policy, Action: d.Action.Kind, Limits: limits(&d.Action), Scope: d.Target.Scope,
		Cgroup: d.Target.Cgroup, Who: who(&s.Culprit), DryRun: h.DryRun, At: begun(h), lasted: max(0, end.Sub(begun(h))), End: h.EndReason, Note: h.Note,
		Estimated: s.Estimated, Spared: []Spared{},
	}
	row.HeldMS = ms(row.lasted)
	if h.EasedAt != nil {
		row.EasedMS = ms(max(0, end.Sub(*h.EasedAt)))
	}
	b.spared(s, h, &row)
	if d.Target.Scope == model.ScopeCgroup {
		row.OthersHit = d.Target.Outside
	}
	t := &b.report.Totals
	t.Held++
	t.HeldMS += row.HeldMS
	t.SparedMS += row.SparedMS
	weight := 3
	if row.DryRun {
		t.DryRun++
		weight = 1
	}
	b.mark(laneKey{true, row.Policy}, row.At, end, weight)
	if p := b.policy(row.Policy, row.At, row.At); p != nil {
		p.hash(d.PolicyHash)
		p.Held++
		p.HeldMS += row.HeldMS
		p.SparedMS += row.SparedMS
		p.OthersHit += row.OthersHit
		if row.DryRun {
			p.DryRun++
		}
		if row.Estimated {
			p.Estimated++
		}
		if row.SparedMS >= helpedMS {
			p.Helped++
		}
	}
	key := targetKey{row.Policy, row.Cgroup}
	if row.OthersHit > 0 {
		if o, fresh := count(b, b.others, key, "cgroups of others"); o != nil {
			if fresh {
				*o = OtherHit{Cgroup: row.Cgroup, Policy: row.Policy, Names: []string{}}
			}
			o.Times++
			o.Processes = max(o.Processes, row.OthersHit)
			o.names(s, d)
		}
	}
	if len(b.targets) < maxKeys || b.targets[key] != nil {
		b.targets[key] = append(b.targets[key], Flap{Cgroup: row.Cgroup, Policy: row.Policy, Holds: 1, From: row.At, Until: end})
		if len(b.targets[key]) > maxFlapLook {
			b.targets[key] = joined(b.targets[key])
		}
	}
	b.list(row, s)
}

// spared works out how long each victim would not have waited. In a dry run it is what it
// did wait; where something was held, it is what it would have waited had it gone on as
// before, and did not.
func (b *Builder) spared(s *model.Story, h *model.Hold, row *Hold) {
	before := make(map[victimKey]float64)
	for _, v := range h.Before {
		before[victimKey{v.Cgroup, v.Resource}] += v.StallMS
	}
	waited := row.At.Sub(s.OpenedAt)
	for _, v := range h.During {
		ms := v.StallMS
		if !h.DryRun {
			if waited <= 0 {
				continue
			}
			ms = max(0, before[victimKey{v.Cgroup, v.Resource}]*float64(row.lasted)/float64(waited)-v.StallMS)
		}
		if ms == 0 {
			continue
		}
		row.SparedMS += ms
		row.Spared = append(row.Spared, Spared{Cgroup: v.Cgroup, Unit: v.Unit, Resource: v.Resource, Estimated: s.Estimated || !h.DryRun, Holds: 1, SparedMS: ms})
		if sum, fresh := count(b, b.victims, victimKey{v.Cgroup, v.Resource}, "victims"); sum != nil {
			if fresh {
				*sum = Spared{Cgroup: v.Cgroup, Unit: v.Unit, Resource: v.Resource}
			}
			sum.Estimated = sum.Estimated || s.Estimated || !h.DryRun
			sum.Holds++
			sum.SparedMS += ms
		}
	}
	slices.SortStableFunc(row.Spared, func(x, y Spared) int { return cmp.Compare(y.SparedMS, x.SparedMS) })
	if len(row.Spared) > maxNames {
		row.Spared = row.Spared[:maxNames]
	}
}

// names adds those of the cgroup that the triage shows, and shows not to be of the tree.
func (o *OtherHit) names(s *model.Story, d *model.Decision) {
	if s.Triage == nil {
		return
	}
	parent := make(map[int32]int32)
	for _, p := range s.Triage.Processes {
		parent[p.PID] = p.ParentPID
	}
	for _, p := range s.Triage.Processes {
		ofTree := false
		for pid, steps := p.PID, 0; pid > 1 && steps < len(parent)+1; pid, steps = parent[pid], steps+1 {
			ofTree = ofTree || pid == d.Target.Root.PID
		}
		if p.CgroupID == d.Target.CgroupID && !ofTree && len(o.Names) < maxNames && !slices.Contains(o.Names, p.Comm) {
			o.Names = append(o.Names, p.Comm)
		}
	}
}

// list keeps a hold among those that spared most, and the course of the first of them.
func (b *Builder) list(row Hold, s *model.Story) {
	r := &b.report
	more := func(x, y Hold) int {
		return cmp.Or(cmp.Compare(y.SparedMS, x.SparedMS), x.At.Compare(y.At), strings.Compare(x.ID, y.ID))
	}
	r.Holds = append(r.Holds, row)
	if len(r.Holds) > 2*maxHolds {
		slices.SortFunc(r.Holds, more)
		b.leftOut["things that were held"] += len(r.Holds) - maxHolds
		r.Holds = slices.Delete(r.Holds, maxHolds, len(r.Holds))
	}
	if len(s.Moments) < 2 {
		return
	}
	r.Charts = append(r.Charts, Chart{row, s.OpenedAt, s.Moments})
	if len(r.Charts) > 2*maxCharts {
		slices.SortFunc(r.Charts, func(x, y Chart) int { return more(x.Hold, y.Hold) })
		r.Charts = slices.Delete(r.Charts, maxCharts, len(r.Charts))
	}
}

// joined joins holds that follow one another closely.
func joined(all []Flap) []Flap {
	slices.SortFunc(all, func(x, y Flap) int { return x.From.Compare(y.From) })
	out := all[:1]
	for _, f := range all[1:] {
		last := &out[len(out)-1]
		if f.From.Sub(last.Until) <= flapGap {
			last.Holds += f.Holds
			if f.Until.After(last.Until) {
				last.Until = f.Until
			}
			continue
		}
		out = append(out, f)
	}
	return out
}

// Report is the report of everything that was added. History reaches back to began.
func (b *Builder) Report(began time.Time) *Report {
	r := &b.report
	r.Began = began
	r.Kinds = values(b.kinds, func(x, y KindCount) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Kind, y.Kind))
	})
	for _, holds := range b.targets {
		for _, f := range joined(holds) {
			if f.Holds < flapHolds {
				continue
			}
			r.Flaps = append(r.Flaps, f)
			if p := b.policies[f.Policy]; p != nil {
				p.Flaps++
			}
		}
	}
	slices.SortFunc(r.Flaps, func(x, y Flap) int {
		return cmp.Or(cmp.Compare(y.Holds, x.Holds), strings.Compare(x.Cgroup, y.Cgroup), strings.Compare(x.Policy, y.Policy), x.From.Compare(y.From))
	})
	for _, p := range b.policies {
		p.advise(r)
	}
	r.Policies = values(b.policies, func(x, y Policy) int {
		return cmp.Or(cmp.Compare(y.SparedMS, x.SparedMS), cmp.Compare(y.Held, x.Held), strings.Compare(x.Policy, y.Policy))
	})
	r.Victims = values(b.victims, func(x, y Spared) int {
		return cmp.Or(cmp.Compare(y.SparedMS, x.SparedMS), strings.Compare(x.Cgroup, y.Cgroup), cmp.Compare(x.Resource, y.Resource))
	})
	r.OthersHit = values(b.others, func(x, y OtherHit) int {
		return cmp.Or(cmp.Compare(y.Times, x.Times), strings.Compare(x.Cgroup, y.Cgroup), strings.Compare(x.Policy, y.Policy))
	})
	r.Guards = values(b.guards, func(x, y Guard) int {
		return cmp.Or(cmp.Compare(y.Times, x.Times), strings.Compare(x.Guard, y.Guard))
	})
	byTimes := func(x, y Refusal) int {
		return cmp.Or(cmp.Compare(y.Times, x.Times), strings.Compare(x.Cgroup, y.Cgroup), strings.Compare(x.Policy, y.Policy))
	}
	r.Infeasible, r.Failed = values(b.unable, byTimes), values(b.failed, byTimes)
	more := func(x, y Hold) int {
		return cmp.Or(cmp.Compare(y.SparedMS, x.SparedMS), x.At.Compare(y.At), strings.Compare(x.ID, y.ID))
	}
	slices.SortFunc(r.Holds, more)
	slices.SortFunc(r.Charts, func(x, y Chart) int { return more(x.Hold, y.Hold) })
	r.Charts = r.Charts[:min(len(r.Charts), maxCharts)]
	b.cut("things that were held", &r.Holds, maxHolds)
	cutRows(b, "policies", &r.Policies)
	cutRows(b, "victims", &r.Victims)
	cutRows(b, "cgroups of others", &r.OthersHit)
	cutRows(b, "what flapped", &r.Flaps)
	cutRows(b, "what cannot be done", &r.Infeasible)
	cutRows(b, "failures", &r.Failed)
	r.Lanes = b.spans()
	r.LeftOut = []string{}
	for _, what := range slices.Sorted(maps.Keys(b.leftOut)) {
		r.LeftOut = append(r.LeftOut, fmt.Sprintf("%s: %d more", what, b.leftOut[what]))
	}
	return r
}

func (b *Builder) cut(what string, all *[]Hold, most int) {
	if more := len(*all) - most; more > 0 {
		b.leftOut[what] += more
		*all = (*all)[:most]
	}
}

func cutRows[T any](b *Builder, what string, all *[]T) {
	if *all == nil {
		*all = []T{}
	}
	if more := len(*all) - maxRows; more > 0 {
		b.leftOut[what] += more
		*all = (*all)[:maxRows]
	}
}

func values[K comparable, V any](all map[K]*V, order func(x, y V) int) []V {
	out := make([]V, 0, len(all))
	for _, v := range all {
		out = append(out, *v)
	}
	slices.SortFunc(out, order)
	return out
}

// spans are the lanes of the timeline: what was held below what happened.
func (b *Builder) spans() []Lane {
	lanes := []Lane{}
	for key, slots := range b.lanes {
		lane := Lane{Name: key.name, Holds: key.holds}
		for i, weight := range slots {
			switch n := len(lane.Spans); {
			case weight == 0:
			case n > 0 && lane.Spans[n-1].Until == i && lane.Spans[n-1].Weight == int(weight):
				lane.Spans[n-1].Until = i + 1
			default:
				lane.Spans = append(lane.Spans, Span{i, i + 1, int(weight)})
			}
		}
		lanes = append(lanes, lane)
	}
	slices.SortFunc(lanes, func(x, y Lane) int {
		if x.Holds != y.Holds {
			if x.Holds {
				return 1
			}
			return -1
		}
		return strings.Compare(x.Name, y.Name)
	})
	return lanes
}

// limits says what a throttle limits.
func limits(a *model.Action) string {
	var parts []string
	add := func(said bool, text string, v any) {
		if said {
			parts = append(parts, fmt.Sprintf(text, v))
		}
	}
	add(a.CPUPercent != 0, "%v %% of a CPU", a.CPUPercent)
	add(a.MemoryHigh != 0, "memory.high %d MiB", a.MemoryHigh>>20)
	add(a.IOPercent != 0, "%v %% of io", a.IOPercent)
	add(a.PIDsMax != 0, "%d processes", a.PIDsMax)
	return strings.Join(parts, ", ")
}

// who is the culprit as people call it.
func who(c *model.Culprit) string {
	switch {
	case c.Scope == model.ScopeTree && c.Root.Comm != "":
		return fmt.Sprintf("%s[%d]", c.Root.Comm, c.Root.PID)
	case c.Unit != "":
		return c.Unit
	}
	return c.Cgroup
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
