package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Result is one scenario, taken once. What was not measured is null.
type Result struct {
	Name     string   `json:"name"`
	Run      int      `json:"run"`
	Tell     string   `json:"tell"`
	Expected string   `json:"expected"`
	Outcome  outcome  `json:"outcome"`
	Got      string   `json:"got"`
	Wrong    []string `json:"wrong"`
	Others   []string `json:"others"` // said of what is not of the scenario
	Why      string   `json:"why"`    // it is not possible here, or its label was not true

	Rank           int      `json:"rank"` // of the culprit among the contributors, from 1; 0: not among them
	DetectMS       *float64 `json:"detect_ms"`
	KernelMS       *float64 `json:"kernel_wait_ms"` // of the victim, by schedstat
	BlamedMS       *float64 `json:"blamed_wait_ms"` // of the victim, by breakerd
	BlameError     *float64 `json:"blame_error_percent"`
	OutsidePercent float64  `json:"outside_percent"` // of one CPU, used by others meanwhile
	Attempts       int      `json:"attempts"`

	right int
}

// Report is a whole proof.
type Report struct {
	Version string   `json:"version"`
	Kernel  string   `json:"kernel"`
	CPUs    int      `json:"cpus"`
	Results []Result `json:"results"`
	Summary Summary  `json:"summary"`
}

// Summary counts. Precision is the part of all accusations that were right, false alarms
// included; recall the part of the trouble that was found. Percentages are null where
// there was nothing to count.
type Summary struct {
	Speaking         int      `json:"speaking"`
	Right            int      `json:"right"`
	Missed           int      `json:"missed"`
	Unknown          int      `json:"unknown"`
	WrongAccusations int      `json:"wrong_accusations"`
	Silence          int      `json:"silence"`
	SilenceKept      int      `json:"silence_kept"`
	NoPremise        int      `json:"no_premise"`
	NotPossible      int      `json:"not_possible"`
	PrecisionPercent *float64 `json:"precision_percent"`
	RecallPercent    *float64 `json:"recall_percent"`
	WorstBlameError  *float64 `json:"worst_blame_error_percent"`
	Interrupted      bool     `json:"interrupted"`
	Passed           bool     `json:"passed"`
}

const (
	// leastRecall is what is asked for.
	leastRecall = 95.0
	// mostNoPremise is the part of the scenarios that may come to nothing: on a machine
	// that is busy with other things nothing is proved.
	mostNoPremise = 0.1
)

func summarize(results []Result) Summary {
	var s Summary
	accusations, wrongs := 0, 0
	for _, r := range results {
		switch r.Outcome {
		case notPossible:
			s.NotPossible++
			continue
		case noPremise:
			s.NoPremise++
			continue
		case silent:
			s.Silence, s.SilenceKept = s.Silence+1, s.SilenceKept+1
		case broken:
			s.Silence++
		case right:
			s.Speaking, s.Right = s.Speaking+1, s.Right+1
		case missed:
			s.Speaking, s.Missed = s.Speaking+1, s.Missed+1
		case unknown:
			s.Speaking, s.Unknown = s.Speaking+1, s.Unknown+1
		case wrong:
			s.Speaking++
			s.WrongAccusations += len(r.Wrong)
		}
		accusations += r.right
		wrongs += len(r.Wrong)
		if r.BlameError != nil && (s.WorstBlameError == nil || abs(*r.BlameError) > abs(*s.WorstBlameError)) {
			s.WorstBlameError = r.BlameError
		}
	}
	s.PrecisionPercent, s.RecallPercent = percent(accusations, accusations+wrongs), percent(s.Right, s.Speaking)
	s.Passed = s.WrongAccusations == 0 && s.SilenceKept == s.Silence &&
		(s.RecallPercent == nil || *s.RecallPercent >= leastRecall) && s.Speaking+s.Silence > 0 &&
		float64(s.NoPremise) <= mostNoPremise*float64(s.Speaking+s.Silence+s.NoPremise)
	return s
}

func abs(v float64) float64 { return max(v, -v) }

func percent(part, whole int) *float64 {
	if whole == 0 {
		return nil
	}
	p := 100 * float64(part) / float64(whole)
	return &p
}

func expectation(s scenario) string {
	if s.silent() {
		return "silence"
	}
	kinds := make([]string, len(s.kinds))
	for i, k := range s.kinds {
		kinds[i] = string(k)
	}
	who := strings.Join(s.culprits, "|")
	if s.root != "" {
		who += " (tree of " + s.root + ")"
	}
	return strings.Join(kinds, "|") + ": " + who
}

func (r *Report) write(out io.Writer) error {
	fmt.Fprintf(out, "breakerd %s on Linux %s, %d CPUs\n\n", r.Version, r.Kernel, r.CPUs)
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tEXPECTED\tOUTCOME\tGOT\tRANK\tDETECT MS\tBLAME ERROR %\tOTHERS' CPU %")
	for _, x := range r.Results {
		rank := "-"
		if x.Rank > 0 {
			rank = fmt.Sprint(x.Rank)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f\n", x.Name, x.Expected, x.Outcome, cmp.Or(x.Got, "-"), rank, figure(x.DetectMS, "%.0f"), figure(x.BlameError, "%+.1f"), x.OutsidePercent)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, x := range r.Results {
		for _, w := range slices.Concat(x.Wrong, x.Others) {
			fmt.Fprintf(out, "%s: %s\n", x.Name, w)
		}
		if x.Why != "" {
			fmt.Fprintf(out, "%s: %s: %s\n", x.Name, x.Outcome, x.Why)
		}
	}
	s := r.Summary
	fmt.Fprintf(out, "\ntrouble %d: right %d, missed %d, unknown %d, wrong accusations %d\n", s.Speaking, s.Right, s.Missed, s.Unknown, s.WrongAccusations)
	fmt.Fprintf(out, "silence %d: kept %d\n", s.Silence, s.SilenceKept)
	fmt.Fprintf(out, "not counted: %d not possible here, %d whose label was not true\n", s.NotPossible, s.NoPremise)
	_, err := fmt.Fprintf(out, "precision %s %%, recall %s %%, worst blame error %s %%: %s\n", figure(s.PrecisionPercent, "%.1f"), figure(s.RecallPercent, "%.1f"), figure(s.WorstBlameError, "%+.1f"),
		map[bool]string{true: "passed", false: "FAILED"}[s.Passed])
	return err
}

func figure(v *float64, format string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}

// writeList says what would be tried.
func writeList(out io.Writer, all []scenario, here *place) error {
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, s := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.name, expectation(s), s.tell)
		if why := here.why(s); why != "" {
			fmt.Fprintf(t, "\tnot possible here\t%s\n", why)
		}
	}
	return t.Flush()
}
