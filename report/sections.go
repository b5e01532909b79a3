package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

// section is a part of a report, in whatever form: a few sentences and a table.
type section struct {
	Title  string
	Notes  []string
	Titles []string
	// Figures is how many of the columns, from the left, are figures. Of the others, those
	// in Paths are cut from the left where there is no room, and the rest from the right.
	Figures int
	Paths   []int
	Rows    [][]string
	Advice  []advised
}

// advised is what to do with a policy.
type advised struct {
	Policy  string
	Advice  Advice
	Reasons []string
}

// Class names the advice in a style sheet.
func (a advised) Class() string { return strings.ReplaceAll(string(a.Advice), " ", "-") }

// Empty reports whether there is nothing to report of.
func (r *Report) Empty() bool { return r.Totals.Incidents == 0 }

// title says what the report is about.
func (r *Report) title() string {
	return fmt.Sprintf("breakerd: %s to %s", minute(r.Since), minute(r.Until))
}

// would is the word for what a dry run did not do.
func (r *Report) would() (held, spared string) {
	switch {
	case r.Totals.DryRun == r.Totals.Held:
		return "would have been held", "would have been spared"
	case r.Totals.DryRun == 0:
		return "was held", "was spared"
	}
	return "was held, or in a dry run would have been", "was spared, or would have been"
}

// summary says it all in a few sentences.
func (r *Report) summary() []string {
	if r.Empty() {
		text := "Nothing happened: history has no incident of this time."
		switch {
		case r.Began.IsZero():
			text = "History is empty: no incident was kept yet."
		case r.Began.After(r.Since):
			text += fmt.Sprintf(" It reaches back to %s.", minute(r.Began))
		}
		return []string{text}
	}
	t := r.Totals
	held, spared := r.would()
	lines := []string{fmt.Sprintf("%s, %d of them trouble. Something %s %s, for %s in all, and victims %s %s of waiting.",
		many(t.Incidents, "incident"), t.Trouble, held, times(t.Held), span(duration(t.HeldMS)), strings.Replace(spared, "was ", "were ", 1), stall(t.SparedMS))}
	if t.Held == 0 {
		lines[0] = fmt.Sprintf("%s, %d of them trouble. Nothing %s.", many(t.Incidents, "incident"), t.Trouble, held)
	}
	lines = append(lines, fmt.Sprintf("Guards refused %s, policies denied %s, and %s failed.", times(t.Refused), times(t.Denied), many(t.Failed, "action")))
	if t.Unanswered > 0 {
		lines = append(lines, fmt.Sprintf("About %s above informational no policy said anything.", many(t.Unanswered, "incident")))
	}
	if r.Began.After(r.Since) {
		lines = append(lines, fmt.Sprintf("History reaches back to %s only.", minute(r.Began)))
	}
	return lines
}

func many(n int, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func second(t time.Time) string { return t.UTC().Format("01-02 15:04:05") }

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// sections are the report but for its summary, without those that have nothing to say. No
// text in them can do anything to a terminal.
func (r *Report) sections(maxHeld int) []section {
	held, spared := r.would()
	all := []section{r.adviceSection(), r.policySection()}

	holds := section{Title: "What " + held, Titles: []string{"AT (UTC)", "FOR", "SPARED", "ACTION", "WHO", "IN", "POLICY"}, Figures: 3, Paths: []int{5}}
	really := r.Totals.DryRun < r.Totals.Held
	if really { // else each ended when its time was up
		holds.Titles = append(holds.Titles, "END")
	}
	for i, h := range r.Holds {
		if i == maxHeld {
			holds.Notes = append(holds.Notes, fmt.Sprintf("The %d that spared most, of %d.", maxHeld, r.Totals.Held))
			break
		}
		action := string(h.Action)
		if h.Scope == model.ScopeCgroup {
			action += " of all"
		}
		cells := []string{h.At.UTC().Format("01-02 15:04"), span(h.lastedOr()), approx(h.SparedMS, h.Estimated), action, h.Who, h.Cgroup, short(h.Policy)}
		if really {
			cells = append(cells, end(h))
		}
		holds.row(cells...)
	}
	victims := section{Title: "Who " + spared, Titles: []string{"SPARED", "TIMES", "WAITED FOR", "VICTIM"}, Figures: 2, Paths: []int{3}}
	for _, v := range r.Victims {
		victims.row(approx(v.SparedMS, v.Estimated), strconv.Itoa(v.Holds), string(v.Resource), or(v.Cgroup, "?"))
	}
	if len(r.Victims) > 0 {
		victims.Notes = []string{"In a dry run: what they did wait for the culprit while it would have been held. ~ is an estimate."}
	}
	others := section{Title: "Who else " + strings.Replace(held, "held", "hit", 1), Titles: []string{"TIMES", "PROCESSES", "POLICY", "IN", "AMONG THEM"}, Figures: 2, Paths: []int{3}}
	for _, o := range r.OthersHit {
		others.row(strconv.Itoa(o.Times), strconv.Itoa(o.Processes), short(o.Policy), o.Cgroup, or(strings.Join(o.Names, " "), "?"))
	}
	guards := section{Title: "Who refused what", Titles: []string{"TIMES", "INCIDENTS", "GUARD", "FOR EXAMPLE", "OF"}, Figures: 2, Paths: []int{4}}
	for _, g := range r.Guards {
		guards.row(strconv.Itoa(g.Times), strconv.Itoa(g.Incidents), g.Guard, g.Example, g.Cgroup)
	}
	flaps := section{Title: "What flapped", Titles: []string{"TIMES", "WITHIN", "POLICY", "CGROUP"}, Figures: 2, Paths: []int{3}}
	for _, f := range r.Flaps {
		flaps.row(strconv.Itoa(f.Holds), span(f.Until.Sub(f.From)), short(f.Policy), f.Cgroup)
	}
	unable := section{Title: "What cannot be done here", Titles: []string{"TIMES", "GUARD", "POLICY", "WHY", "CGROUP"}, Figures: 1, Paths: []int{4}}
	for _, f := range r.Infeasible {
		unable.row(strconv.Itoa(f.Times), f.Guard, short(f.Policy), f.Why, f.Cgroup)
	}
	failed := section{Title: "What failed", Titles: []string{"TIMES", "POLICY", "WHY", "CGROUP"}, Figures: 1, Paths: []int{3}}
	for _, f := range r.Failed {
		failed.row(strconv.Itoa(f.Times), or(short(f.Policy), "?"), f.Why, f.Cgroup)
	}
	kinds := section{Title: "Incidents", Titles: []string{"COUNT", "WARNING", "CRITICAL", "VICTIMS WAITED", "KIND"}, Figures: 4}
	for _, k := range r.Kinds {
		kinds.row(strconv.Itoa(k.Count), strconv.Itoa(k.Warning), strconv.Itoa(k.Critical), stall(k.StallMS), string(k.Kind))
	}
	all = append(all, holds, victims, others, guards, flaps, unable, failed, kinds)
	if len(r.LeftOut) > 0 {
		all = append(all, section{Title: "Left out", Notes: []string{"There was too much for one report: " + strings.Join(r.LeftOut, "; ") + "."}})
	}
	said := all[:0]
	for _, s := range all {
		if len(s.Rows)+len(s.Advice) > 0 || len(s.Titles) == 0 && len(s.Notes) > 0 {
			said = append(said, s)
		}
	}
	return said
}

func (r *Report) adviceSection() section {
	s := section{Title: "What to do"}
	for _, p := range r.Policies {
		a := advised{Policy: safetext.Printable(p.Policy), Advice: p.Advice}
		for _, reason := range p.Reasons {
			a.Reasons = append(a.Reasons, safetext.Printable(reason))
		}
		s.Advice = append(s.Advice, a)
	}
	return s
}

func (r *Report) policySection() section {
	s := section{Title: "Policies", Titles: []string{"HELD", "FOR", "SPARED", "REFUSED", "DENIED", "FAILED", "INCIDENTS", "POLICY"}, Figures: 7}
	for _, p := range r.Policies {
		s.row(strconv.Itoa(p.Held), span(duration(p.HeldMS)), stall(p.SparedMS), strconv.Itoa(p.Refused), strconv.Itoa(p.Denied), strconv.Itoa(p.Failed), strconv.Itoa(p.Incidents), p.Policy)
	}
	return s
}

// row adds a row, and makes it harmless: whoever started a process chose its name.
func (s *section) row(cells ...string) {
	for i, c := range cells {
		cells[i] = safetext.Printable(c)
	}
	s.Rows = append(s.Rows, cells)
}

func (h *Hold) lastedOr() time.Duration {
	if h.lasted != 0 {
		return h.lasted
	}
	return duration(h.HeldMS) // of a report that was read
}

// end says why a lease ended, and since when it was held more loosely.
func end(h Hold) string {
	switch {
	case h.End != "" && h.EasedMS > 0:
		return fmt.Sprintf("%s, loosened %s before", h.End, span(duration(h.EasedMS)))
	case h.End != "":
		return string(h.End)
	case h.Note != "":
		return "not seen"
	}
	return "-"
}

func approx(ms float64, estimated bool) string {
	switch {
	case ms == 0:
		return "-"
	case estimated:
		return "~" + stall(ms)
	}
	return stall(ms)
}

// short is a policy's name without what all of them begin with.
func short(policy string) string { return strings.TrimPrefix(policy, "breaker.") }

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}
