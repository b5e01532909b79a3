package policy

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"github.com/open-policy-agent/opa/v1/ast"
	"gopkg.in/yaml.v3"
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

// dryRunMode is the only one that it names.
const dryRunMode = "dry-run"

// annotations are those of all modules; what is wrong with them is added to the problems.
func annotations(modules map[string]*ast.Module, ps *problems) *ast.AnnotationSet {
	all := make([]*ast.Module, 0, len(modules))
	for file, m := range modules {
		all = append(all, m)
		checkModes(m, file, ps)
	}
	set, errs := ast.BuildAnnotationSet(all)
	if len(errs) > 0 {
		ps.addRego("", errs)
		return nil
	}
	return set
}

// checkModes refuses what looks like a mistyped mode. OPA passes over what it does not know, and
// the rule that its author meant to hold to a dry run would act.
func checkModes(m *ast.Module, file string, ps *problems) {
	comments := map[int]*ast.Comment{} // by line, those that are in no annotation
	for _, c := range m.Comments {
		comments[c.Location.Row] = c
	}
	for _, a := range m.Annotations {
		var text strings.Builder
		first := a.Location.Row + 1
		lines := make([]*ast.Comment, 0, a.EndLoc().Row-a.Location.Row)
		for row := first; row <= a.EndLoc().Row; row++ {
			lines = append(lines, comments[row])
			text.Write(bytes.TrimPrefix(comments[row].Text, []byte(" ")))
			text.WriteByte('\n')
			delete(comments, row)
		}
		var doc yaml.Node
		if yaml.Unmarshal([]byte(text.String()), &doc) != nil || len(doc.Content) == 0 {
			continue // OPA has refused it
		}
		walkMode(doc.Content[0], "", func(n *yaml.Node, format string, args ...any) {
			c := lines[n.Line-1]
			col := c.Location.Col + n.Column // behind the #
			if bytes.HasPrefix(c.Text, []byte(" ")) {
				col++
			}
			ps.add(file, c.Location.Row, col, format, args...)
		})
	}
	for _, c := range comments {
		if key, value, _ := strings.Cut(string(c.Text), ":"); isModeKey(fold(key)) && fold(value) == "dryrun" {
			ps.add(file, c.Location.Row, c.Location.Col, "stands in no annotation, and holds nothing to a dry run: %s, in one block that begins with # METADATA", writeMode)
		}
	}
}

const writeMode = `write "# custom:" and below it "#   mode: dry-run"`

// otherAnnotations are those of OPA in which a dry run may be spoken of.
var otherAnnotations = []string{"scope", "title", "description", "entrypoint", "organizations", "related_resources", "authors", "schemas", "compile", "labels"}

// walkMode looks through the keys below a place for modes and what looks like one.
func walkMode(n *yaml.Node, below string, wrong func(n *yaml.Node, format string, args ...any)) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := below + key.Value
		switch folded := fold(key.Value); {
		case below == "" && slices.Contains(otherAnnotations, key.Value):
		case below == "custom." && key.Value == modeKey:
			if value.Kind != yaml.ScalarNode || value.Value != dryRunMode {
				wrong(value, "custom.mode is %q: it can only be \"dry-run\", and what is not held to that acts as breakerd's own mode says", value.Value)
			}
		case isModeKey(folded) && (below == "" || below == "custom."), value.Kind == yaml.ScalarNode && fold(value.Value) == "dryrun":
			wrong(key, "%s holds nothing to a dry run: %s, or take it away", name, writeMode)
		default:
			walkMode(value, name+".", wrong)
		}
	}
}

// isModeKey reports whether a folded key is what a slip makes of the mode's.
func isModeKey(folded string) bool {
	return folded == "mode" || folded == "custommode" || folded == "dryrun"
}

// fold leaves the letters of a word alone, in lower case.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
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
		if a.Custom[modeKey] == dryRunMode {
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
