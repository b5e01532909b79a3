package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Account says how far one rule got with an input.
type Account struct {
	Rule
	Spoke bool `json:"spoke"`
	// Passed of the Conditions held, line by line, before the first that did not.
	Passed     int `json:"passed"`
	Conditions int `json:"conditions"`
	// Stopped is the line at which it ended, with its place and what was seen there; ""
	// where the rule spoke.
	Stopped string `json:"stopped"`
	At      string `json:"at"`
	Saw     []Seen `json:"saw"`
	// Because says the same of the rules which that line asks.
	Because []Account `json:"because"`
}

// Nearly reports whether a single condition was in the way of a rule.
func (a *Account) Nearly() bool { return !a.Spoke && a.Passed > 0 && a.Passed == a.Conditions-1 }

// Seen is a part of the input or of the data, as JSON.
type Seen struct {
	Ref   string `json:"ref"`
	Value string `json:"value"` // "" where there is none
}

// Explain decides as [Set.Decide] does, and says of each action and deny whether it spoke
// and, if not, what it ended at: first those that spoke, then those that came closest.
func (s *Set) Explain(ctx context.Context, in Input) (Verdict, []Account) {
	v := s.Decide(ctx, in)
	if s.all == nil {
		return v, nil
	}
	input, err := in.value(everything)
	if err != nil {
		return v, nil
	}
	t := &tracer{open: map[uint64]*attempt{}, best: map[*ast.Rule]*attempt{}}
	m := &meter{limits: s.limits, deadline: time.Now().Add(s.limits.Time), done: ctx.Done(), trace: t}
	// An error is that of Decide, and what was tried until then is worth knowing.
	_, _ = s.run(ctx, s.all, ast.NewTerm(input), &in, m)
	var all []Account
	for _, module := range s.compiler.Modules {
		for _, r := range module.Rules {
			if d := s.rules[placeOf(r.Location)]; d != nil {
				all = append(all, s.account(*d, r, t, input, 0))
			}
		}
	}
	slices.SortFunc(all, func(a, b Account) int {
		return cmp.Or(
			cmp.Compare(b.order(), a.order()),
			strings.Compare(a.File, b.File), a.Line-b.Line, strings.Compare(a.Name, b.Name))
	})
	return v, all
}

// order is the part of the conditions that held; 2 for a rule that spoke.
func (a *Account) order() float64 {
	if a.Spoke {
		return 2
	}
	return float64(a.Passed) / float64(max(1, a.Conditions))
}

// maxBecause is how many rules deep an account goes.
const maxBecause = 3

func (s *Set) account(d Rule, r *ast.Rule, t *tracer, input ast.Value, depth int) Account {
	a := Account{Rule: d, Saw: []Seen{}, Because: []Account{}}
	rows := bodyRows(r)
	a.Conditions = len(rows)
	tried := t.best[r]
	switch {
	case tried == nil:
		a.Stopped, a.At = "it was not asked", fmt.Sprintf("%s:%d", d.File, d.Line)
		return a
	case tried.exited:
		a.Spoke, a.Passed = true, len(rows)
		return a
	case tried.failed == nil:
		a.Stopped, a.At = "the evaluation ended here", fmt.Sprintf("%s:%d", d.File, d.Line)
		return a
	}
	row := tried.failed.Location.Row
	a.Passed = max(0, slices.Index(rows, row))
	a.Stopped = s.line(tried.failed.Location.File, row)
	a.At = fmt.Sprintf("%s:%d", tried.failed.Location.File, row)
	known := aliases{}
	known.of(r)
	asked := map[*ast.Rule]bool{}
	for _, x := range r.Body {
		if x.Location == nil || x.Location.Row != row {
			continue
		}
		ast.WalkRefs(x, func(ref ast.Ref) bool {
			full := known.resolve(ref)
			a.see(full, input, s.data)
			if depth < maxBecause && full[0].Equal(ast.DefaultRootDocument) {
				for _, other := range s.compiler.GetRules(full.GroundPrefix()) {
					if !asked[other] && other != r {
						asked[other] = true
						helper := Rule{Name: ruleName(other), Policy: d.Policy, File: other.Location.File, Line: other.Location.Row}
						a.Because = append(a.Because, s.account(helper, other, t, input, depth+1))
					}
				}
			}
			return false
		})
	}
	return a
}

// see notes what a reference leads to.
func (a *Account) see(ref ast.Ref, input ast.Value, d *data) {
	name := written(ref)
	if slices.ContainsFunc(a.Saw, func(s Seen) bool { return s.Ref == name }) {
		return
	}
	switch {
	case ref[0].Equal(ast.InputRootDocument) && ref.IsGround():
		seen := Seen{Ref: name}
		if v, err := input.Find(ref[1:]); err == nil {
			seen.Value = cut(v.String(), 200)
		}
		a.Saw = append(a.Saw, seen)
	case ref[0].Equal(ast.DefaultRootDocument) && ref.IsGround():
		if found := d.find(ref); len(found) == 1 {
			if b, err := json.Marshal(found[0]); err == nil {
				a.Saw = append(a.Saw, Seen{name, cut(string(b), 200)})
			}
		}
	}
}

// bodyRows are the lines on which the conditions of a rule stand, without what the compiler
// has put among them to make what the rule gives.
func bodyRows(r *ast.Rule) []int {
	var rows []int
	for _, x := range r.Body {
		if x.Location != nil && x.Location.Row > 0 && !setsTheHead(x, r) {
			rows = append(rows, x.Location.Row)
		}
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}

func (s *Set) line(file string, row int) string {
	lines := strings.Split(s.texts[file], "\n")
	if row < 1 || row > len(lines) {
		return ""
	}
	return strings.TrimSpace(lines[row-1])
}

// tracer notes how far each rule gets.
type tracer struct {
	open map[uint64]*attempt // by query
	best map[*ast.Rule]*attempt
}

// attempt is one time that a rule was tried.
type attempt struct {
	exited bool
	failed *ast.Expr // the last of its conditions that did not hold
}

// Enabled is part of topdown.QueryTracer.
func (t *tracer) Enabled() bool { return true }

// Config is part of topdown.QueryTracer.
func (t *tracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent is part of topdown.QueryTracer.
func (t *tracer) TraceEvent(e topdown.Event) {
	switch node := e.Node.(type) {
	case *ast.Rule:
		if t.best[node] == nil {
			t.best[node] = &attempt{}
		}
		t.open[e.QueryID] = t.best[node]
		if e.Op == topdown.ExitOp {
			t.best[node].exited = true
		}
	case *ast.Expr:
		a := t.open[e.QueryID]
		if a != nil && e.Op == topdown.FailOp && node.Location != nil && (a.failed == nil || node.Index >= a.failed.Index) {
			a.failed = node
		}
	}
}
