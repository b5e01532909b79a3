package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// row is one kind of blow.
type row struct {
	Kind    kind   `json:"kind"`
	Moment  string `json:"moment"`
	Program string `json:"program"`
	Act     act    `json:"act"`
}

// Row is what became of it. Undo is of those that found something to undo: after an
// enforcer's end from the start of the next one, after a stop from where it goes on, and
// after an end of breakerd from where the heartbeat is over.
type Row struct {
	row
	Tries  int     `json:"tries"`
	Dirty  int     `json:"with_something_held"`
	Failed int     `json:"failed"`
	Undo   Figures `json:"undo"`
}

// Figures are of durations; all 0 where there were none.
type Figures struct {
	N     int     `json:"n"`
	P50MS float64 `json:"p50_ms"`
	P99MS float64 `json:"p99_ms"`
	MaxMS float64 `json:"max_ms"`
}

// Latency is what was measured with nothing else at work.
type Latency struct {
	What string `json:"what"`
	Figures
	LimitMS float64 `json:"limit_ms"`
	Passed  bool    `json:"passed"`
}

// Report is a whole campaign.
type Report struct {
	Kernel      string    `json:"kernel"`
	Systemd     string    `json:"systemd"`
	CPUs        int       `json:"cpus"`
	Controllers []string  `json:"controllers"`
	NotPossible []string  `json:"not_possible"`
	Seconds     float64   `json:"seconds"`
	Latency     []Latency `json:"latency"`
	Rows        []Row     `json:"rows"`
	AtLabels    int       `json:"at_labelled_moments"`
	AtRandom    int       `json:"at_random_moments"`
	Dirty       int       `json:"with_something_held"`
	Failures    []string  `json:"failures"`
	Undo        Figures   `json:"undo"`
	LimitMS     float64   `json:"undo_limit_ms"`
	Passed      bool      `json:"passed"`
}

// tally is what lanes have found so far.
type tally struct {
	mu       sync.Mutex
	order    []row
	rows     map[row]*counted
	failures []string
}

type counted struct {
	tries, dirty, failed int
	undo                 []time.Duration
}

func (t *tally) add(r row, took time.Duration, dirty bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = map[row]*counted{}
	}
	c := t.rows[r]
	if c == nil {
		c = &counted{}
		t.rows[r], t.order = c, append(t.order, r)
	}
	c.tries++
	switch {
	case err != nil:
		c.failed++
	case dirty:
		c.dirty++
		c.undo = append(c.undo, took)
	}
}

func (t *tally) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, err.Error())
}

// often is so often that something must have been held at one of as many random moments: it
// is at most of them, and at every fifth where the processor is emulated. Who never finds
// anything held does not do what it says. (What must be held at a labelled moment is known,
// and looked for each time.)
const often = 30

// take puts what was found into the report.
func (r *Report) take(t *tally) {
	var undo []time.Duration
	for _, k := range t.order {
		c := t.rows[k]
		r.Rows = append(r.Rows, Row{row: k, Tries: c.tries, Dirty: c.dirty, Failed: c.failed, Undo: figuresOf(c.undo)})
		if k.Moment == atRandom {
			r.AtRandom += c.tries
		} else {
			r.AtLabels += c.tries
		}
		r.Dirty += c.dirty
		undo = append(undo, c.undo...)
	}
	r.Failures, r.Undo, r.LimitMS = append([]string{}, t.failures...), figuresOf(undo), ms(undoneWithin)
	for _, x := range r.Rows {
		if x.Moment == atRandom && x.Tries >= often && x.Dirty == 0 {
			r.Failures = append(r.Failures, fmt.Sprintf("%s %s, %s: nothing was held at any of %d random moments, so that nothing was tried", x.Program, x.Act, x.Kind, x.Tries))
		}
	}
	r.Passed = len(r.Failures) == 0 && r.Undo.MaxMS <= r.LimitMS &&
		!slices.ContainsFunc(r.Latency, func(l Latency) bool { return !l.Passed }) &&
		!slices.ContainsFunc(r.Rows, func(x Row) bool { return x.Failed > 0 })
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// figuresOf are those of durations: of n, the p-th percentile is the smallest that p % of
// them do not exceed.
func figuresOf(all []time.Duration) Figures {
	if len(all) == 0 {
		return Figures{}
	}
	sorted := slices.Sorted(slices.Values(all))
	at := func(p float64) float64 { return ms(sorted[int(math.Ceil(p*float64(len(sorted))))-1]) }
	return Figures{N: len(sorted), P50MS: at(0.5), P99MS: at(0.99), MaxMS: at(1)}
}

func (r *Report) write(out io.Writer) error {
	fmt.Fprintf(out, "Linux %s, systemd %s, %d CPUs, controllers %s: %.0f s\n\n", r.Kernel, r.Systemd, r.CPUs, strings.Join(append([]string{"freeze"}, r.Controllers...), " "), r.Seconds)
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if len(r.Latency) > 0 {
		fmt.Fprintln(t, "LATENCY\tN\tP50 MS\tP99 MS\tMAX MS\tLIMIT MS\t")
	}
	for _, l := range r.Latency {
		fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.0f\t%s\n", l.What, l.N, l.P50MS, l.P99MS, l.MaxMS, l.LimitMS, verdict(l.Passed))
	}
	fmt.Fprint(t, "\nUNDONE AFTER\t")
	for _, b := range blows {
		fmt.Fprintf(t, "%s %s\t", b.at, b.act)
	}
	fmt.Fprintln(t)
	r.writeMoments(t)
	fmt.Fprintln(t, "\nAT RANDOM MOMENTS\tTRIES\tHELD\tFAILED\tP50 MS\tP99 MS\tMAX MS")
	for _, x := range r.Rows {
		if x.Moment == atRandom {
			fmt.Fprintf(t, "%s %s: %s\t%d\t%d\t%d\t%.1f\t%.1f\t%.1f\n", x.Program, x.Act, x.Kind, x.Tries, x.Dirty, x.Failed, x.Undo.P50MS, x.Undo.P99MS, x.Undo.MaxMS)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, what := range r.NotPossible {
		fmt.Fprintln(out, "not possible here:", what)
	}
	for _, what := range r.Failures {
		fmt.Fprintln(out, "FAILED:", what)
	}
	_, err := fmt.Fprintf(out, "%d at labelled moments, %d at random ones, %d with something held; undone after p50 %.1f ms, p99 %.1f ms, max %.1f ms (limit %.0f): %s\n",
		r.AtLabels, r.AtRandom, r.Dirty, r.Undo.P50MS, r.Undo.P99MS, r.Undo.MaxMS, r.LimitMS, verdict(r.Passed))
	return err
}

// writeMoments has a line for each labelled moment: how long the undo took at most, in ms.
func (r *Report) writeMoments(out io.Writer) {
	type line struct {
		kind   kind
		moment string
	}
	var order []line
	cells := map[line]map[blow]string{}
	for _, x := range r.Rows {
		if x.Moment == atRandom {
			continue
		}
		at := line{x.Kind, x.Moment}
		if cells[at] == nil {
			cells[at], order = map[blow]string{}, append(order, at)
		}
		cell := fmt.Sprintf("%.1f", x.Undo.MaxMS)
		switch {
		case x.Failed > 0:
			cell = "FAILED"
		case x.Dirty == 0:
			cell = "clean"
		}
		cells[at][blow{x.Program, x.Act}] = cell
	}
	slices.SortStableFunc(order, func(a, b line) int { return strings.Compare(string(a.kind), string(b.kind)) })
	for _, at := range order {
		fmt.Fprintf(out, "%s, %s\t", at.kind, at.moment)
		for _, b := range blows {
			cell := cells[at][b]
			if cell == "" {
				cell = "-"
			}
			fmt.Fprintf(out, "%s\t", cell)
		}
		fmt.Fprintln(out)
	}
}

func verdict(passed bool) string {
	if passed {
		return "passed"
	}
	return "FAILED"
}
