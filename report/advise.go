package report

import (
	"fmt"
	"time"
)

const (
	// enoughHolds and enoughTime is what it takes to judge a policy.
	enoughHolds = 3
	enoughTime  = 24 * time.Hour
	// mostlyHelped is the part of what was held that has to have spared somebody.
	mostlyHelped = 0.8
	// mostlyInfeasible is the part of the incidents about which it asks for what cannot be
	// done that calls for another policy.
	mostlyInfeasible = 0.5
)

// advise says what to do with a policy, and why.
func (p *Policy) advise(r *Report) {
	work := func(is bool, format string, args ...any) {
		if is {
			p.Reasons = append(p.Reasons, fmt.Sprintf(format, args...))
		}
	}
	work(p.Failed > 0, "it failed %s: %s", times(p.Failed), p.failure)
	work(p.Protected > 0, "it asks for what is protected, %s: leave that out of its rule", times(p.Protected))
	work(p.Flaps > 0, "it holds the same again and again: a longer lease, or another rule, would do better")
	work(p.OthersHit > 0, "%d processes that do not belong to the culprit would be hit, too: ask for the tree, or deny where there are others", p.OthersHit)
	work(p.Incidents > 0 && float64(p.Infeasible) > mostlyInfeasible*float64(p.Incidents),
		"what it asks for cannot be done in %d of %d incidents", p.Infeasible, p.Incidents)
	holds := max(p.Held-p.rungs, min(p.Held, 1)) // a ladder is one, however far it was climbed
	work(holds >= enoughHolds && p.Helped == 0, "of %d times, nobody would have been spared anything", p.Held)
	if len(p.Reasons) > 0 {
		p.Advice = NeedsWork
		return
	}
	watched := r.Until.Sub(r.Since)
	if r.Began.After(r.Since) {
		watched = r.Until.Sub(r.Began)
	}
	wait := work
	wait(p.Held > 0 && p.DryRun < p.Held, "it acts already: %d of %d times something was really held", p.Held-p.DryRun, p.Held)
	wait(p.Held == 0, "it held nothing")
	wait(p.Held > 0 && holds < enoughHolds, "it held something %s only: from %d on it can be judged", times(holds), enoughHolds)
	wait(watched < enoughTime, "history shows %s of it: a day shows how it does at night, too", span(watched))
	age := r.Until.Sub(p.heard)
	wait(watched >= enoughTime && age < enoughTime, "it first said something %s ago: a day shows how it does at night, too", span(age))
	wait(p.Estimated > 0, "%d of %d times the blame is an estimate and not measured", p.Estimated, p.Held)
	wait(p.Held > 0 && float64(p.Helped) < mostlyHelped*float64(p.Held), "only %d of %d times somebody would have been spared %d ms or more", p.Helped, p.Held, helpedMS)
	if len(p.Reasons) > 0 {
		p.Advice = KeepWatching
		return
	}
	p.Advice = ReadyToArm
	p.Reasons = []string{
		fmt.Sprintf("%d times in %s, and %d times it would have spared somebody, %s in all", p.Held, span(watched), p.Helped, stall(p.SparedMS)),
		"nothing failed, nothing flapped, nothing else would have been hit, and nothing protected was asked for",
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// span says a duration as shortly as a person would.
func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	case d >= 2*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// stall says how long somebody waits.
func stall(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return span(time.Duration(ms * float64(time.Millisecond)))
}
