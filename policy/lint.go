package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/breakerd/breakerd/model"
)

// spoken is an action or a deny, with what can be told of it beforehand.
type spoken struct {
	*Rule
	rule *ast.Rule
	at   *ast.Location
	// only is true where its body tests the kind of incident and nothing else.
	only   bool
	asks   model.ActionKind
	ranked bool // it names a priority
}

// Lint finds what can be loaded and is probably not meant, conflicts between rules among it.
func (s *Set) Lint() []Problem {
	var ps problems
	var all []spoken
	for _, file := range slices.Sorted(maps.Keys(s.compiler.Modules)) {
		for _, r := range s.compiler.Modules[file].Rules {
			if d := s.rules[placeOf(r.Location)]; d != nil {
				all = append(all, s.spoken(d, r))
			}
		}
	}
	for i := range all {
		all[i].lint(&ps)
		for j := range all[:i] {
			conflict(&all[j], &all[i], &ps)
		}
	}
	return ps
}

func (s *Set) spoken(d *Rule, r *ast.Rule) spoken {
	p := spoken{Rule: d, rule: r, at: r.Location, only: true}
	known := aliases{}
	known.of(r)
	for _, x := range r.Body {
		if v, ref := known.binding(x); v != "" && known.resolve(ref).Equal(kindRef) {
			continue
		}
		if b, ok := x.Terms.(*ast.Term); ok && b.Equal(ast.BooleanTerm(true)) {
			continue
		}
		if kindsOfExpr(x, known) == nil && !setsTheHead(x, r) {
			p.only = false
		}
	}
	if o, ok := headObject(r); ok {
		if k := o.Get(ast.StringTerm("kind")); k != nil {
			if text, ok := k.Value.(ast.String); ok {
				p.asks = model.ActionKind(text)
			}
		}
		p.ranked = o.Get(ast.StringTerm("priority")) != nil
	}
	return p
}

// headObject is the action that a rule writes out, which the compiler may have put into its
// body.
func headObject(r *ast.Rule) (ast.Object, bool) {
	if o, ok := r.Head.Key.Value.(ast.Object); ok {
		return o, true
	}
	for _, x := range r.Body {
		if !x.IsEquality() {
			continue
		}
		for i := range 2 {
			if o, ok := x.Operand(i).Value.(ast.Object); ok && x.Operand(1-i).Equal(r.Head.Key) {
				return o, true
			}
		}
	}
	return nil, false
}

// setsTheHead reports whether an expression only makes what the rule gives.
func setsTheHead(x *ast.Expr, r *ast.Rule) bool {
	if x.Location == nil || r.Head.Key == nil || r.Head.Key.Location == nil {
		return false
	}
	from := r.Head.Key.Location
	return x.Location.Offset >= from.Offset && x.Location.Offset < from.Offset+len(from.Text)
}

func (p *spoken) lint(ps *problems) {
	add := func(format string, args ...any) { ps.add(p.File, p.at.Row, p.at.Col, format, args...) }
	switch {
	case p.Kinds != nil && len(p.Kinds) == 0:
		add("%s is never true: it asks for two kinds of incident at once", p.Name)
	case p.Name == "action" && p.Kinds == nil:
		add("action speaks about every kind of incident: test input.incident.kind")
	case p.Name == "deny" && p.Kinds == nil && p.only:
		add("deny is always true: with it nothing will ever be done")
	}
	if p.Title == "" {
		add("%s has no title: write one above it or above the package, under # METADATA", p.Name)
	}
	known := aliases{}
	known.of(p.rule)
	for _, x := range p.rule.Body {
		if setsTheHead(x, p.rule) {
			continue // in a reason people may read it
		}
		ast.WalkRefs(x, func(ref ast.Ref) bool {
			full := known.resolve(ref).String()
			for _, name := range []string{"comm", "cmdline"} {
				if full == "input.incident.culprit.root."+name {
					ps.add(p.File, x.Location.Row, x.Location.Col, "%s is chosen by the process: never let it tell friend from foe", name)
				}
			}
			return false
		})
	}
}

// conflict finds two rules of which one keeps the other from ever having its way.
func conflict(a, b *spoken, ps *problems) {
	both := sameKinds(a.Kinds, b.Kinds)
	if both == "" {
		return
	}
	if a.Name == "action" && b.Name == "deny" {
		a, b = b, a
	}
	switch {
	case a.Name == "deny" && b.Name == "action" && a.only && a.Kinds != nil && within(b.Kinds, a.Kinds):
		ps.add(b.File, b.at.Row, b.at.Col, "action can never have its way: the deny at %s:%d denies every %s", a.File, a.Line, both)
	case a.Name == "action" && b.Name == "action" && !a.DryRun && !b.DryRun && a.asks != "" && b.asks != "" && a.asks != b.asks && !a.ranked && !b.ranked:
		wins, loses := a, b
		if strength(b.asks) < strength(a.asks) {
			wins, loses = b, a
		}
		ps.add(loses.File, loses.at.Row, loses.at.Col, "action asks for a %s about %s, and the one at %s:%d for a %s: where both speak the milder wins; a priority says otherwise",
			loses.asks, both, wins.File, wins.Line, wins.asks)
	}
}

// sameKinds names the kinds that two rules have in common. Rules that do not say have every
// kind; that is another warning.
func sameKinds(a, b []string) string {
	var both []string
	for _, k := range a {
		if slices.Contains(b, k) {
			both = append(both, k)
		}
	}
	return strings.Join(both, ", ")
}

func within(some, of []string) bool {
	return len(some) > 0 && !slices.ContainsFunc(some, func(k string) bool { return !slices.Contains(of, k) })
}

// Field is a part of the input, for people.
type Field struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Unit        string   `json:"unit"`
	Description string   `json:"description"`
	Words       []string `json:"words,omitempty"`
	Kinds       []string `json:"kinds,omitempty"`
}

// Fields lists every part of the input that is no object of others.
func Fields() (all []Field) {
	var walk func(name string, s *schema)
	walk = func(name string, s *schema) {
		if s.Items != nil {
			s, name = s.Items, name+"[_]"
		}
		if s.Properties == nil {
			f := Field{Name: name, Type: s.Type, Unit: s.Unit, Description: s.Description, Words: s.Enum}
			for _, k := range s.Kinds {
				f.Kinds = append(f.Kinds, string(k))
			}
			all = append(all, f)
			return
		}
		for _, part := range slices.Sorted(maps.Keys(s.Properties)) {
			walk(name+"."+part, s.Properties[part])
		}
	}
	walk("input", inputDescription)
	return all
}

// FieldTable is the list as a document.
func FieldTable() []byte {
	var b strings.Builder
	b.WriteString("# The input of a policy\n\n" +
		"Made from the same source as [input.schema.json](../policy/input.schema.json), against which policies are\n" +
		"compiled: a name that does not stand here is refused when a policy is loaded. `breakerctl policy schema`\n" +
		"shows it, too. Figures of the evidence are there for the kinds of incident that are named, and not always.\n\n" +
		"| field | type | unit | meaning |\n|---|---|---|---|\n")
	for _, f := range Fields() {
		meaning := f.Description
		if len(f.Words) > 0 {
			meaning += " One of `" + strings.Join(f.Words, "`, `") + "`."
		}
		if len(f.Kinds) > 0 {
			meaning += " Of " + strings.Join(f.Kinds, ", ") + "."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, f.Unit, strings.ReplaceAll(meaning, "``", "empty"))
	}
	return []byte(b.String())
}
