package policy

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Rule is an action or a deny of a set, as its author describes it.
type Rule struct {
	Name        string `json:"name"` // action or deny
	Policy      string `json:"policy"`
	File        string `json:"file"`
	Line        int    `json:"line"`
	Title       string `json:"title"`
	Description string `json:"description"`
	// DryRun says that the author holds it to a dry run: what it asks for is never carried
	// out, also where what other rules ask for is.
	DryRun bool `json:"dry_run"`
	// Kinds are the incidents that it can speak about, as far as it says so itself.
	Kinds []string `json:"kinds"`
}

// dryAction is what an action that is held to a dry run is called once it is loaded. A
// policy cannot write the name.
const dryAction = "action (dry run)"

// modeKey is the annotation by which an author holds a rule, or all rules of a package,
// to a dry run.
const modeKey = "mode"

// annotations are those of all modules; what is wrong with them is added to the problems.
func annotations(modules map[string]*ast.Module, ps *problems) *ast.AnnotationSet {
	all := make([]*ast.Module, 0, len(modules))
	for file, m := range modules {
		all = append(all, m)
		for _, a := range m.Annotations {
			mode, set := a.Custom[modeKey]
			if set && mode != "dry-run" {
				ps.add(file, a.Location.Row, a.Location.Col,
					"custom.mode is %q: it can only be \"dry-run\", and what is not held to that acts as breakerd's own mode says", fmt.Sprint(mode))
			}
		}
	}
	set, errs := ast.BuildAnnotationSet(all)
	if len(errs) > 0 {
		ps.addRego("", errs)
		return nil
	}
	return set
}

// describe says what the annotations say of a rule: the nearest title, and a dry run
// wherever there is one.
func describeRule(set *ast.AnnotationSet, r *ast.Rule) (title, description string, dryRun bool, own bool) {
	for _, ref := range set.Chain(r) {
		a := ref.Annotations
		if a == nil {
			continue
		}
		if title == "" {
			title, description = a.Title, strings.TrimSpace(a.Description)
		}
		if a.Custom[modeKey] == "dry-run" {
			dryRun = true
			own = own || a.Scope == "rule" || a.Scope == "document"
		}
	}
	return title, description, dryRun, own
}

// describeRules describes the actions and denials of all modules, and renames the actions
// that are held to a dry run, so that nothing takes them for the others.
func describeRules(modules map[string]*ast.Module, set *ast.AnnotationSet, ps *problems) map[place]*Rule {
	all := map[place]*Rule{}
	for file, m := range modules {
		for _, r := range m.Rules {
			name := ruleName(r)
			if name != "action" && name != "deny" {
				continue
			}
			d := &Rule{Name: name, Policy: packageName(m), File: file, Line: r.Location.Row}
			var own bool
			d.Title, d.Description, d.DryRun, own = describeRule(set, r)
			switch {
			case name == "deny" && own:
				ps.add(file, r.Location.Row, r.Location.Col, "a deny cannot be held to a dry run: it would deny nothing")
			case name == "deny":
				d.DryRun = false // a file that is held to a dry run still denies
			case d.DryRun:
				r.Head.Name = ast.Var(dryAction)
				r.Head.SetRef(ast.Ref{ast.VarTerm(dryAction)})
			}
			all[placeOf(r.Location)] = d
		}
	}
	return all
}

// place is where something stands, also after the compiler has copied it.
type place struct {
	file     string
	row, col int
}

func placeOf(l *ast.Location) place { return place{l.File, l.Row, l.Col} }
