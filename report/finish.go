package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

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
		p.heard = p.FirstAt
		if first, known := b.heard[p.Policy]; known && first.Before(p.heard) {
			p.heard = first
		}
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
