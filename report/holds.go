package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
)

const (
	// flapHolds is how often the same has to be held, each time within flapGap of the
	// last, before it is said to flap.
	flapHolds = 3
	flapGap   = 15 * time.Minute
	// helpedMS is how much stall has to be spared before a hold is said to have helped.
	helpedMS = 100
)

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
		if d.After != "" {
			p.rungs++
		}
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
		one := 1
		if d.After != "" {
			one = 0 // a ladder goes on: all of it is one hold
		}
		b.targets[key] = append(b.targets[key], Flap{Cgroup: row.Cgroup, Policy: row.Policy, Holds: one, From: row.At, Until: end})
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
